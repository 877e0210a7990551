"""Nothing stored is ever lowered: a counter that fell back is flagged, and a person decides."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import Connection

from merchant_usage.errors import UsageMismatch
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.keys import CounterKey
from merchant_usage.settings import OnRegression
from merchant_usage.steps import staging, store
from tests.support import TODAY, YESTERDAY, Connect, Letter, Usage, key, raw

REGRESSED = Reason.COUNTER_REGRESSED


@pytest.fixture(params=[YESTERDAY, TODAY], ids=["settled", "live"])
def acme(request: pytest.FixtureRequest, usage: Usage) -> CounterKey:
    """A counter that was stored at 100, and stands at 5 now."""
    counter = key("acme", request.param)
    usage.write({counter: 100, key("other", request.param): 1})
    usage.aggregate(request.param)
    usage.write({counter: 5})
    return counter


def test_stored_value_stays_and_a_letter_tells_both_numbers(usage: Usage, acme: CounterKey) -> None:
    before = usage.row_versions()
    proof = usage.aggregate(acme.date, run_id="regressed")  # raises nothing: others should not wait for a decision
    assert usage.row_versions() == before
    assert usage.letters() == [
        Letter(raw(acme), REGRESSED, "Redis has 5, PostgreSQL has 100", acme.date, attempts=1, resolved=False)
    ]
    assert usage.verdicts(proof) == {acme.date: "mismatch"}
    assert proof.reports[0].keys == {"match": 1, "regressed": 1}
    assert proof.reports[0].counts.regressed == 1
    assert usage.ledger("regressed")[acme.date][0] == "mismatch"


def test_a_row_that_a_trigger_keeps_as_it_was_is_not_told_as_raised(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate()
    usage.conn.execute("CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    usage.conn.execute("CREATE TRIGGER lose BEFORE UPDATE ON merchant_usage FOR EACH ROW EXECUTE FUNCTION lose()")
    usage.write({key("acme"): 6})
    with pytest.raises(UsageMismatch, match=r"Redis has 6, PostgreSQL has 5 \(behind\)"):
        usage.aggregate(run_id="lost")
    row = usage.conn.execute("SELECT rows_inserted, rows_updated FROM usage_run WHERE run_id = 'lost'").fetchone()
    assert row == (0, 0)


def test_a_row_that_a_trigger_writes_as_it_was_is_no_row_that_was_stored(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate()
    usage.conn.execute("CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'")
    usage.conn.execute("CREATE TRIGGER lose BEFORE UPDATE ON merchant_usage FOR EACH ROW EXECUTE FUNCTION lose()")
    usage.write({key("acme"): 6})
    with pytest.raises(UsageMismatch, match=r"Redis has 6, PostgreSQL has 5 \(behind\)"):
        usage.aggregate(run_id="lost")
    # Its two times are the same, as those of a new row are.
    assert usage.conn.execute("SELECT rows_inserted FROM usage_run WHERE run_id = 'lost'").fetchone() == (0,)


def test_letter_counts_its_attempts_and_tells_the_latest_numbers(usage: Usage, acme: CounterKey) -> None:
    usage.aggregate(acme.date)
    usage.write({acme: 7})
    usage.aggregate(acme.date)
    usage.aggregate(acme.date)
    assert usage.letters() == [Letter(raw(acme), REGRESSED, "Redis has 7, PostgreSQL has 100", acme.date, 3, False)]
    assert usage.rows()[acme] == 100


def test_letter_stays_open_when_the_counter_overtakes(usage: Usage, acme: CounterKey) -> None:
    usage.aggregate(acme.date)
    usage.write({acme: 150})
    usage.aggregate(acme.date)
    assert usage.rows()[acme] == 150
    assert [letter.resolved for letter in usage.letters()] == [False]


def test_counter_that_falls_between_storing_and_verifying_is_flagged(usage: Usage) -> None:
    usage.write({key("acme"): 100})
    stored = usage.store_only()
    usage.write({key("acme"): 99})
    proof = usage.prove(stored)
    assert usage.verdicts(proof) == {YESTERDAY: "mismatch"}
    assert [(letter.reason, letter.detail) for letter in usage.letters()] == [
        (REGRESSED, "Redis has 99, PostgreSQL has 100")
    ]


def test_carry_counts_on_from_what_was_stored(usage: Usage, acme: CounterKey) -> None:
    proof = usage.aggregate(acme.date, on_regression=OnRegression.CARRY)
    assert (usage.rows()[acme], usage.carried(acme)) == (105, 100)
    assert usage.verdicts(proof) == {acme.date: "verified"}
    assert [(letter.detail, letter.resolved) for letter in usage.letters()] == [
        ("Redis has 5, PostgreSQL has 100", True)
    ]
    usage.client.incrby(raw(acme), 10)
    usage.aggregate(acme.date)
    assert (usage.rows()[acme], usage.carried(acme)) == (115, 100)
    before = usage.row_versions()
    usage.aggregate(acme.date, on_regression=OnRegression.CARRY)
    assert usage.row_versions() == before


def test_carry_twice(usage: Usage, acme: CounterKey) -> None:
    usage.aggregate(acme.date, on_regression=OnRegression.CARRY)
    usage.write({acme: 2})
    proof = usage.aggregate(acme.date, on_regression=OnRegression.CARRY)
    assert (usage.rows()[acme], usage.carried(acme)) == (107, 105)
    assert usage.verdicts(proof) == {acme.date: "verified"}


def test_carried_row_that_falls_back_is_not_lowered(usage: Usage, acme: CounterKey) -> None:
    usage.aggregate(acme.date, on_regression=OnRegression.CARRY)
    usage.write({acme: 2})
    usage.aggregate(acme.date)
    assert usage.rows()[acme] == 105
    assert [letter.detail for letter in usage.letters() if not letter.resolved] == [
        "Redis has 2, PostgreSQL has 105 (carried 100)"
    ]


class Later:
    """Another run that reads and commits after ours has read and before ours writes."""

    def __init__(self, usage: Usage, other: Connection, stored: int, counter: int) -> None:
        self.usage, self.other, self.stored, self.counter = usage, other, stored, counter

    def stage(self, *arguments: Any, **options: Any) -> None:
        staging.stage(*arguments, **options)
        self.other.execute(
            "INSERT INTO merchant_usage VALUES ('acme', %s, 'queries', %s) ON CONFLICT (merchant_id, date, metric_type)"
            " DO UPDATE SET metric_value = EXCLUDED.metric_value",
            [YESTERDAY, self.stored],
        )
        self.usage.write({key("acme"): self.counter})


@pytest.mark.parametrize(
    ("counter", "ends_at"),
    [pytest.param(8, 8, id="stored all there is"), pytest.param(9, 9, id="Redis grew on")],
)
@pytest.mark.parametrize("row_was_there", [True, False], ids=["row was there", "row is new"])
@pytest.mark.parametrize("on_regression", list(OnRegression))
def test_later_parallel_run_is_no_regression(
    usage: Usage,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    counter: int,
    ends_at: int,
    row_was_there: bool,
    on_regression: OnRegression,
) -> None:
    usage.write({key("acme"): 5})
    if row_was_there:
        usage.aggregate()
        usage.write({key("acme"): 6})  # what is stored already is not staged
    monkeypatch.setattr(store, "stage", Later(usage, connect(), stored=8, counter=counter).stage)
    proof = usage.aggregate(on_regression=on_regression)
    assert usage.rows() == {key("acme"): ends_at}
    assert usage.carried(key("acme")) == 0
    assert usage.letters() == []
    assert usage.verdicts(proof) == {YESTERDAY: "verified"}


def test_really_lower_after_a_parallel_run_is_a_regression(
    usage: Usage, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage.write({key("acme"): 5})
    monkeypatch.setattr(store, "stage", Later(usage, connect(), stored=8, counter=7).stage)
    usage.aggregate()
    assert usage.rows() == {key("acme"): 8}
    assert [letter.detail for letter in usage.letters()] == ["Redis has 7, PostgreSQL has 8"]


@pytest.mark.parametrize("now", [b"poison", None], ids=["became bad", "is gone"])
def test_suspect_that_cannot_be_read_again(
    usage: Usage, connect: Connect, monkeypatch: pytest.MonkeyPatch, now: bytes | None
) -> None:
    usage.write({key("acme"): 5, key("other"): 1})

    class Gone(Later):
        def stage(self, *arguments: Any, **options: Any) -> None:
            super().stage(*arguments, **options)
            if now is None:
                self.usage.client.delete(raw(key("acme")))
            else:
                self.usage.write({key("acme"): now})

    monkeypatch.setattr(store, "stage", Gone(usage, connect(), stored=8, counter=0).stage)
    usage.aggregate()
    assert usage.rows() == {key("acme"): 8, key("other"): 1}
    assert {letter.reason for letter in usage.letters()} == ({Reason.NOT_AN_INTEGER} if now else set())
