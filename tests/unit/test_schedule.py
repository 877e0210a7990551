"""Real, gapless intervals of the length that was asked for, on the clock of the time zone."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from airflow.timetables.base import TimeRestriction, Timetable
from airflow.timetables.interval import CronDataIntervalTimetable, DeltaDataIntervalTimetable
from pendulum import instance

from merchant_usage.orchestration.schedule import timetable
from tests.support import settings

MINUTE_MS = 60_000


@pytest.mark.parametrize(
    ("minutes", "cron"),
    [
        (1, "*/1 * * * *"),
        (5, "*/5 * * * *"),
        (30, "*/30 * * * *"),
        (60, "0 * * * *"),
        (120, "0 */2 * * *"),
        (720, "0 */12 * * *"),
        (1440, "0 0 * * *"),
    ],
)
def test_interval_that_divides_the_day_is_cron(minutes: int, cron: str) -> None:
    found = timetable(settings(interval_ms=minutes * MINUTE_MS))
    assert isinstance(found, CronDataIntervalTimetable)
    assert found.summary == cron


@pytest.mark.parametrize("minutes", [7, 45, 61, 90, 300, 1380])
def test_other_intervals_count_from_the_start(minutes: int) -> None:
    assert isinstance(timetable(settings(interval_ms=minutes * MINUTE_MS)), DeltaDataIntervalTimetable)


def test_switched_off() -> None:
    assert timetable(settings(enabled=False)) is None


def intervals(found: Timetable, start: dt.datetime, number: int) -> list[tuple[dt.datetime, dt.datetime]]:
    """The first intervals of a DAG that starts then and catches up."""
    restriction = TimeRestriction(earliest=instance(start), latest=None, catchup=True)
    told: list[tuple[dt.datetime, dt.datetime]] = []
    last = None
    for _ in range(number):
        info = found.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        assert info is not None
        last = info.data_interval
        assert last is not None
        assert info.run_after == last.end
        told.append((last.start, last.end))
    return told


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata"])
@pytest.mark.parametrize("minutes", [1, 60, 90])
@pytest.mark.parametrize("start", ["2026-11-01", "2026-10-24", "2026-03-28", "2026-03-07"])
def test_intervals_have_no_gap_and_the_right_width(zone: str, minutes: int, start: str) -> None:
    """Also where the clock goes forward or back."""
    chosen = settings(interval_ms=minutes * MINUTE_MS, timezone=ZoneInfo(zone), start=dt.datetime.fromisoformat(start))
    found = timetable(chosen)
    assert found is not None
    told = intervals(found, chosen.start_date, 60)
    assert told[0][0] == chosen.start_date
    assert [begin for begin, _ in told[1:]] == [end for _, end in told[:-1]]
    assert {(end - begin).total_seconds() for begin, end in told} == {minutes * 60}


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
@pytest.mark.parametrize("hours", [2, 3, 4, 6, 12, 24])
@pytest.mark.parametrize("start", ["2026-10-24", "2026-03-28"])
def test_longer_intervals_keep_to_the_clock_and_have_no_gap(zone: str, hours: int, start: str) -> None:
    """The one in which the clock goes forward or back is an hour shorter or longer; none is missing."""
    chosen = settings(
        interval_ms=hours * 60 * MINUTE_MS, timezone=ZoneInfo(zone), start=dt.datetime.fromisoformat(start)
    )
    found = timetable(chosen)
    assert found is not None
    told = intervals(found, chosen.start_date, 96 // hours)
    assert told[0][0] == chosen.start_date
    assert [begin for begin, _ in told[1:]] == [end for _, end in told[:-1]]
    assert {(end - begin).total_seconds() / 3600 for begin, end in told} <= {hours - 1, hours, hours + 1}
    midnights = [begin for begin, _ in told if begin.astimezone(chosen.timezone).hour == 0]
    assert len(midnights) == 4
