"""Days of 23 and of 25 hours: settle hours are hours that pass, and each day is settled by the first run after them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import pytest
from airflow.timetables.base import TimeRestriction
from pendulum import instance

from merchant_usage.model.dates import dates_of_interval, is_settled, local_date, oldest_kept
from merchant_usage.orchestration.schedule import timetable
from merchant_usage.settings import Settings
from tests.support import settings

DAY = dt.timedelta(days=1)
MINUTE_MS = 60_000
MINUTES = [15, 30, 60, 90, 120, 180, 300, 360, 720, 1440]
#: Days on which the clocks go back or forward.
CHANGES = [
    pytest.param("Europe/Berlin", "2026-10-25", id="Berlin, 25 hours"),
    pytest.param("Europe/Berlin", "2027-03-28", id="Berlin, 23 hours"),
    pytest.param("America/New_York", "2026-11-01", id="New York, 25 hours"),
    pytest.param("America/New_York", "2027-03-14", id="New York, 23 hours"),
    pytest.param("Africa/Cairo", "2027-04-30", id="Cairo, whose midnight is skipped"),
    pytest.param("Africa/Cairo", "2026-10-30", id="Cairo, whose midnight comes twice"),
]


def runs(chosen: Settings, first: dt.datetime, last: dt.datetime) -> Iterator[tuple[dt.datetime, dt.datetime]]:
    """The data intervals of the real schedule between two moments."""
    found = timetable(chosen)
    assert found is not None
    restriction = TimeRestriction(earliest=instance(first), latest=None, catchup=True)
    interval = None
    while True:
        info = found.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)
        assert info is not None
        interval = info.data_interval
        assert interval is not None
        if interval.end > last:
            return
        yield interval.start, interval.end


def midnight_after(date: dt.date, zone: ZoneInfo) -> dt.datetime:
    """When a day is over, found by looking at each of its quarters of an hour."""
    moment = dt.datetime.combine(date, dt.time(), dt.UTC) - DAY
    while moment.astimezone(zone).date() <= date:
        moment += dt.timedelta(minutes=15)
    return moment


# Airflow's own schedule gets stuck there, by the hour ("did not advance"): half an hour of summer time.
LORD_HOWE = pytest.param("Australia/Lord_Howe", "2026-10-04", id="Lord Howe, 23 and a half")


@pytest.mark.parametrize(("zone", "changes"), [*CHANGES, LORD_HOWE])
@pytest.mark.parametrize("hours", [0, 1, 2, 6, 23])
def test_settle_hours_pass_whatever_the_clocks_show(zone: str, changes: str, hours: int) -> None:
    chosen = settings(timezone=ZoneInfo(zone), settle_hours=hours)
    for day in (-2, -1, 0, 1):
        date = dt.date.fromisoformat(changes) + day * DAY
        settled = midnight_after(date, chosen.timezone) + dt.timedelta(hours=hours)
        assert not is_settled(date, settled - dt.timedelta(seconds=1), chosen)
        assert is_settled(date, settled, chosen)


@pytest.mark.parametrize(("zone", "changes"), CHANGES)
@pytest.mark.parametrize("hours", [0, 2, 6])
@pytest.mark.parametrize("minutes", MINUTES)
def test_each_day_is_settled_by_a_run_that_begins_within_an_interval(
    zone: str, changes: str, hours: int, minutes: int
) -> None:
    """Which is at most one interval, and an hour that the clocks were put back by, after its settle hours."""
    start = dt.datetime.fromisoformat(changes) - 3 * DAY
    chosen = settings(
        interval_ms=minutes * MINUTE_MS, timezone=ZoneInfo(zone), settle_hours=hours, start=start, retention_days=2
    )
    all_runs = list(runs(chosen, chosen.start_date, chosen.start_date + 8 * DAY))
    for day in (-2, -1, 0, 1):
        date = dt.date.fromisoformat(changes) + day * DAY
        settled = midnight_after(date, chosen.timezone) + dt.timedelta(hours=hours)
        sealing = next(
            end
            for begin, end in all_runs
            if date in dates_of_interval(begin, end, chosen) and is_settled(date, end, chosen)
        )
        late = sealing - settled
        assert dt.timedelta() <= late
        # A day's run finds its own day still unsettled, and takes it along the next day.
        assert late < dt.timedelta(minutes=minutes, hours=1), f"{date}: settled at {settled}, sealed at {sealing}"


@pytest.mark.parametrize(("zone", "changes"), CHANGES)
@pytest.mark.parametrize("minutes", MINUTES)
def test_a_run_of_each_day_sweeps(zone: str, changes: str, minutes: int) -> None:
    """Two of them where the first hours of a day are fewer than they look: that costs a little, and does no harm."""
    start = dt.datetime.fromisoformat(changes) - 3 * DAY
    chosen = settings(interval_ms=minutes * MINUTE_MS, timezone=ZoneInfo(zone), start=start, retention_days=3)
    days, sweeps = set(), []
    for begin, end in runs(chosen, chosen.start_date, chosen.start_date + 7 * DAY):
        oldest = oldest_kept(local_date(end, chosen), chosen)
        date = local_date(begin, chosen)
        days.add(date)
        if set(dates_of_interval(begin, end, chosen)) >= {oldest + n * DAY for n in range((date - oldest).days + 1)}:
            sweeps.append(date)
    assert set(sweeps) == days
    assert len(sweeps) <= len(days) + 1
