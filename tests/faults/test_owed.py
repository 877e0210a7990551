"""What a run could not do is owed: the next one does it, the lag tells it, and to catch up costs what it must."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from unittest import mock

import pytest

from merchant_usage import clock
from merchant_usage.cli.main import main
from merchant_usage.sink import ledger
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.faults.scheduled import run_scheduled
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw, settings

HOUR = dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
START = dt.datetime(2026, 11, 1)  # noqa: DTZ001 - as the environment gives it


class Clock:
    """What `clock.now` says."""

    now = NOW

    def present(self) -> dt.datetime:
        return self.now


@pytest.fixture
def time() -> Iterator[Clock]:
    time = Clock()
    with mock.patch.object(clock, "now", time.present):
        yield time


def at(date: dt.date, time: str) -> dt.datetime:
    return dt.datetime.combine(date, dt.time.fromisoformat(time), dt.UTC)


def run(usage: Usage, end: dt.datetime) -> set[dt.date]:
    """The run for the hour that ends then; the dates that it took."""
    reports = run_scheduled(usage.client, usage.conn, end - HOUR, settings(start=START))
    return {report.date for report in reports or ()}


def is_sealed(usage: Usage, date: dt.date) -> bool:
    return date in ledger.sealed_dates(usage.conn, [date])


@pytest.mark.usefixtures("quiet")
def test_the_next_run_repairs_what_the_night_left(usage: Usage, time: Clock) -> None:
    usage.write({key("acme"): 5})
    time.now = at(YESTERDAY, "23:00")
    run(usage, time.now)
    usage.write({key("acme"): 7, key("acme", TODAY): 1})
    # PostgreSQL is away from midnight to three o'clock; nothing that these runs do remains.
    time.now = at(TODAY, "04:00")
    assert YESTERDAY in run(usage, time.now)
    assert is_sealed(usage, YESTERDAY)
    assert usage.rows() == {key("acme"): 7, key("acme", TODAY): 1}
    time.now += HOUR
    assert YESTERDAY not in run(usage, time.now), "once is enough"


@pytest.mark.usefixtures("quiet")
def test_fourteen_nights_without_postgresql(usage: Usage, time: Clock) -> None:
    """It is away when the day settles and when the first run sweeps; by noon nothing is owed."""
    first = TODAY - 14 * DAY
    for night in range(15):
        date = first + night * DAY
        usage.write({key("acme", date): night + 1})
        # Of last night's keys some come late, and those of a week ago expire.
        usage.client.incrby(raw(key("acme", date - DAY)), 100)
        usage.client.delete(raw(key("acme", date - 8 * DAY)))
        for hour in range(4, 24, 4):
            time.now = dt.datetime.combine(date, dt.time(hour), dt.UTC)
            run(usage, time.now)
    days = [first + night * DAY for night in range(14)]
    assert [day for day in days if not is_sealed(usage, day)] == []
    assert {day: usage.rows()[key("acme", day)] for day in days} == {
        day: night + 1 + 100 for night, day in enumerate(days)
    }


@pytest.mark.usefixtures("quiet")
def test_one_that_waits_for_a_decision_is_owed_until_it_is_made(usage: Usage, time: Clock) -> None:
    for value, clock_time in ((5, "01:00"), (3, "02:00")):
        usage.write({key("acme"): value})
        time.now = at(TODAY, clock_time)
        run(usage, time.now)
    for hour in range(3, 6):
        time.now = dt.datetime.combine(TODAY, dt.time(hour), dt.UTC)
        assert YESTERDAY in run(usage, time.now)
    assert not is_sealed(usage, YESTERDAY)
    decide(usage.client, usage.conn, Ruling(Decision.KEEP, "a person"), "usage", date=YESTERDAY)
    time.now += HOUR
    assert YESTERDAY in run(usage, time.now)
    assert is_sealed(usage, YESTERDAY)
    time.now += HOUR
    assert YESTERDAY not in run(usage, time.now)


@pytest.mark.usefixtures("quiet")
def test_three_days_down_cost_three_working_runs(usage: Usage, time: Clock) -> None:
    first = TODAY - 3 * DAY
    for days in range(4):
        usage.write({key("acme", first + days * DAY): days + 1})
    time.now = at(first, "12:00")
    run(usage, time.now)
    time.now = at(TODAY, "12:00")
    end, working, changed = at(first, "13:00"), 0, 0
    while end <= at(TODAY, "12:00"):
        time.now += dt.timedelta(seconds=20)
        before = usage.row_versions()
        working += bool(run(usage, end))
        changed += usage.row_versions() != before
        end += HOUR
    assert usage.rows() == {key("acme", first + days * DAY): days + 1 for days in range(4)}
    assert changed <= 2, "the days that are over by the first, today by the first of today"
    assert working <= 3
    for days in range(3):
        assert is_sealed(usage, first + days * DAY)


def status(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["status", "--max-lag", "2h"])
    return code, capsys.readouterr().err


@pytest.mark.usefixtures("quiet")
def test_the_lag_looks_at_what_is_owed(
    usage: Usage,
    time: Clock,
    database_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The newest usage is fresh, a day of last week is not proven."""
    monkeypatch.setenv("USAGE_POSTGRES_URL", database_url)
    old = TODAY - 3 * DAY
    usage.write({key("acme", old): 9, key("acme", TODAY): 1})
    time.now = at(old, "12:00")
    usage.aggregate(old, now=time.now)
    days = [old + n * DAY for n in range(1, 4)]
    time.now = at(TODAY, "12:00")
    usage.aggregate(*days, now=time.now)
    code, said = status(capsys)
    assert code == 1
    assert "owed" in said
    usage.aggregate(old, now=time.now)
    capsys.readouterr()
    assert status(capsys)[0] == 0
