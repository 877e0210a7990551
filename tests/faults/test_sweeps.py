"""What is done once a day is done by the first scheduled run of it that comes to an end, whichever interval it has."""

from __future__ import annotations

import pytest

from merchant_usage.steps.audit import audit_daily
from tests.faults.long_life import DAY, HOUR, Life, at
from tests.support import TODAY, Usage, key

#: Counted on each day that is looked at.
ACME = key("acme", TODAY)


@pytest.fixture
def audited(life: Life, usage: Usage, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The hours at which seals were audited; all days before today are sealed."""
    life.count(key("acme"), 5)
    life.run_hours(at(TODAY - DAY, "22:00"), at(TODAY - DAY, "23:00"))
    hours: list[int] = []

    def note(*arguments: object) -> object:
        hours.append(life.now.hour)
        return audit_daily(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("merchant_usage.pipeline.audit_daily", note)
    assert usage.rows() == {key("acme"): 5}
    return hours


def test_the_first_run_of_a_day_does_it_and_no_other(life: Life, audited: list[int]) -> None:
    life.count(ACME, 1)
    life.run_hours(at(TODAY, "01:00"), at(TODAY, "23:00"))
    life.run(at(TODAY + DAY, "00:00"))
    assert audited == [1]
    life.run_hours(at(TODAY + DAY, "01:00"), at(TODAY + DAY, "03:00"))
    assert audited == [1, 1]


def test_the_next_one_does_it_if_the_first_has_nothing_to_do(life: Life, usage: Usage, audited: list[int]) -> None:
    """Somebody asked for all dates by hand before it began."""
    life.count(ACME, 1)
    life.now = at(TODAY, "02:30")
    usage.aggregate(*(TODAY - days * DAY for days in range(8)), now=life.now)
    life.now = at(TODAY, "02:45")
    assert life.run_of(at(TODAY, "00:00")) == {}
    assert audited == []
    life.run_hours(at(TODAY, "03:00"), at(TODAY, "05:00"))
    assert audited == [3]


def test_the_next_one_does_it_if_the_first_comes_to_no_end(
    life: Life, usage: Usage, audited: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    life.count(ACME, 1)
    with monkeypatch.context() as patch:
        patch.setattr("merchant_usage.pipeline.verify", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            life.run(at(TODAY, "01:00"))
    assert usage.ledger(f"scheduled__{at(TODAY, '01:00').isoformat()}")[TODAY][0] is None
    life.run_hours(at(TODAY, "02:00"), at(TODAY, "04:00"))
    assert audited == [2]


def test_one_that_is_repeated_does_it_again(life: Life, audited: list[int]) -> None:
    life.count(ACME, 1)
    life.run(at(TODAY, "01:00"))
    life.run(at(TODAY, "01:00"))
    assert audited == [1, 1]
    life.run(at(TODAY, "02:00"))
    assert audited == [1, 1]


def test_runs_that_catch_up_do_it_once(life: Life, audited: list[int]) -> None:
    life.count(ACME, 1)
    life.now = at(TODAY, "09:00")
    start = at(TODAY - DAY, "23:00")
    while start < life.now:
        life.run_of(start)
        start += HOUR
    assert audited == [9]
