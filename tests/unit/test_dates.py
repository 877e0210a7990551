"""Which dates a run handles: its own, the day before while that settles, and once a day all that Redis still has."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from merchant_usage.errors import SettingsError
from merchant_usage.model.dates import (
    Scope,
    dates_of_interval,
    dates_of_range,
    is_settled,
    local_date,
    oldest_kept,
    parse_day,
)
from tests.support import settings

BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")  # half an hour of summer time
KIRITIMATI = ZoneInfo("Pacific/Kiritimati")  # UTC+14
HOUR_MS = 3_600_000


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def days(*texts: str) -> list[dt.date]:
    return [dt.date.fromisoformat(text) for text in texts]


def sweep(first: str, last: str) -> list[dt.date]:
    begin, end = days(first, last)
    return [begin + dt.timedelta(days=n) for n in range((end - begin).days + 1)]


@pytest.mark.parametrize(
    ("start", "changes", "dates"),
    [
        pytest.param("2026-11-24T12:00", {}, days("2026-11-24"), id="noon"),
        pytest.param("2026-11-24T23:00", {}, days("2026-11-24"), id="last hour"),
        pytest.param("2026-11-24T01:00", {}, days("2026-11-23", "2026-11-24"), id="while yesterday settles"),
        pytest.param("2026-11-24T02:00", {}, days("2026-11-24"), id="yesterday is settled"),
        pytest.param("2026-11-24T00:00", {}, sweep("2026-11-17", "2026-11-24"), id="first run sweeps"),
        pytest.param("2026-11-24T00:00", {"retention_days": 1}, days("2026-11-23", "2026-11-24"), id="short retention"),
        pytest.param("2026-11-24T01:00", {"settle_hours": 0}, days("2026-11-24"), id="no settle hours"),
        pytest.param(
            "2026-11-24T22:59", {"settle_hours": 23}, days("2026-11-23", "2026-11-24"), id="settles nearly all day"
        ),
        pytest.param(
            "2026-11-24T00:30",
            {"interval_ms": HOUR_MS // 2},
            days("2026-11-23", "2026-11-24"),
            id="second half hour does not sweep",
        ),
        pytest.param(
            "2026-11-24T00:00", {"interval_ms": 24 * HOUR_MS}, sweep("2026-11-17", "2026-11-24"), id="daily run sweeps"
        ),
        pytest.param(
            "2026-11-24T00:20",
            {"interval_ms": HOUR_MS},
            sweep("2026-11-17", "2026-11-24"),
            id="interval not at midnight",
        ),
    ],
)
def test_dates_of_interval(start: str, changes: dict[str, int], dates: list[dt.date]) -> None:
    begin = utc(start)
    assert dates_of_interval(begin, begin + dt.timedelta(minutes=61), settings(**changes)) == dates


@pytest.mark.parametrize(
    ("now", "dates"),
    [
        pytest.param("2026-11-24T01:00", sweep("2026-11-17", "2026-11-24"), id="in time"),
        pytest.param("2026-11-26T01:00", sweep("2026-11-19", "2026-11-24"), id="two days late"),
        pytest.param("2026-12-01T01:00", days("2026-11-23", "2026-11-24"), id="a week late"),
        pytest.param("2027-11-24T01:00", days("2026-11-23", "2026-11-24"), id="a year late"),
    ],
)
def test_late_run_sweeps_what_redis_still_has(now: str, dates: list[dt.date]) -> None:
    assert dates_of_interval(utc("2026-11-24T00:00"), utc(now), settings()) == dates


@pytest.mark.parametrize(
    ("zone", "start", "dates"),
    [
        pytest.param(BERLIN, "2026-11-23T23:00", sweep("2026-11-17", "2026-11-24"), id="Berlin midnight in winter"),
        pytest.param(BERLIN, "2026-07-22T22:00", sweep("2026-07-16", "2026-07-23"), id="Berlin midnight in summer"),
        pytest.param(BERLIN, "2026-11-24T00:00", days("2026-11-23", "2026-11-24"), id="Berlin one o'clock"),
        pytest.param(BERLIN, "2026-11-24T01:00", days("2026-11-24"), id="Berlin two o'clock"),
        # 25 October 2026 has two hours from two to three; the second one is the third hour of its day.
        pytest.param(
            BERLIN, "2026-10-25T00:00", days("2026-10-25"), id="Berlin, two o'clock before the clock goes back"
        ),
        pytest.param(BERLIN, "2026-10-25T01:00", days("2026-10-25"), id="Berlin, two o'clock once more"),
        pytest.param(BERLIN, "2026-10-24T22:00", sweep("2026-10-18", "2026-10-25"), id="Berlin, a day of 25 hours"),
        pytest.param(BERLIN, "2026-03-28T23:00", sweep("2026-03-22", "2026-03-29"), id="Berlin, a day of 23 hours"),
        pytest.param(KIRITIMATI, "2026-11-24T10:00", sweep("2026-11-18", "2026-11-25"), id="UTC+14"),
        pytest.param(LORD_HOWE, "2026-11-23T13:00", sweep("2026-11-17", "2026-11-24"), id="half an hour summer time"),
    ],
)
def test_dates_are_days_of_the_time_zone(zone: ZoneInfo, start: str, dates: list[dt.date]) -> None:
    begin = utc(start)
    assert dates_of_interval(begin, begin + dt.timedelta(minutes=61), settings(timezone=zone)) == dates


@pytest.mark.parametrize("zone", [dt.UTC, BERLIN, KIRITIMATI], ids=str)
def test_start_may_be_given_in_any_zone(zone: dt.tzinfo) -> None:
    begin = utc("2026-10-24T22:00")
    found = dates_of_interval(begin.astimezone(zone), begin, settings(timezone=BERLIN))
    assert found[-1] == dt.date(2026, 10, 25)
    assert len(found) == 8


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Kiritimati", "Asia/Kolkata"])
def test_every_day_is_handled_once_it_is_over_and_settled(zone: str) -> None:
    """Two years of hourly runs: each date is handled by a run after its settle hours, while Redis still has it."""
    chosen = settings(timezone=ZoneInfo(zone))
    start, hour = utc("2026-01-01T00:00"), dt.timedelta(hours=1)
    handled: set[dt.date] = set()
    while start < utc("2028-01-01T00:00"):
        now = start + hour
        handled.update(date for date in dates_of_interval(start, now, chosen) if is_settled(date, now, chosen))
        start += hour
    assert set(sweep("2026-01-02", "2027-12-29")) <= handled


@pytest.mark.parametrize(
    ("now", "settled"),
    [
        pytest.param("2026-11-24T01:59:59", False, id="a second too early"),
        pytest.param("2026-11-24T02:00:00", True, id="two hours after midnight"),
        pytest.param("2026-11-23T23:00:00", False, id="the day itself"),
        pytest.param("2020-01-01T00:00:00", False, id="a day to come"),
    ],
)
def test_is_settled(now: str, settled: bool) -> None:
    assert is_settled(dt.date(2026, 11, 23), utc(now), settings()) is settled


def test_is_settled_by_the_clock_of_the_time_zone() -> None:
    chosen = settings(timezone=BERLIN)
    assert not is_settled(dt.date(2026, 11, 23), utc("2026-11-24T00:59"), chosen)
    assert is_settled(dt.date(2026, 11, 23), utc("2026-11-24T01:00"), chosen)


@pytest.mark.parametrize("date", [dt.date.min, dt.date(2026, 1, 1)])
def test_old_days_are_settled_in_any_zone(date: dt.date) -> None:
    for zone in (KIRITIMATI, BERLIN, ZoneInfo("Pacific/Niue")):
        assert is_settled(date, utc("2026-11-24T00:00"), settings(timezone=zone))


def test_local_date_and_oldest_kept() -> None:
    today = local_date(utc("2026-11-23T23:30"), settings(timezone=BERLIN))
    assert today == dt.date(2026, 11, 24)
    assert oldest_kept(today, settings()) == dt.date(2026, 11, 17)


NOW = utc("2026-11-24T12:30")


@pytest.mark.parametrize(
    ("first", "last", "dates"),
    [
        pytest.param(None, None, days("2026-11-23"), id="yesterday"),
        pytest.param("", "", days("2026-11-23"), id="empty is yesterday"),
        pytest.param("2026-11-01", None, days("2026-11-01"), id="from alone"),
        pytest.param(None, "2026-11-01", days("2026-11-01"), id="to alone"),
        pytest.param("2026-11-24", "2026-11-24", days("2026-11-24"), id="today"),
        pytest.param("2026-10-30", "2026-11-02", sweep("2026-10-30", "2026-11-02"), id="both ends included"),
        pytest.param("2025-11-24", "2026-11-24", sweep("2025-11-24", "2026-11-24"), id="a year"),
    ],
)
def test_range(first: str | None, last: str | None, dates: list[dt.date]) -> None:
    assert dates_of_range(first, last, NOW, settings()) == dates


def test_yesterday_is_that_of_the_time_zone() -> None:
    assert dates_of_range(None, None, utc("2026-11-23T23:30"), settings(timezone=BERLIN)) == days("2026-11-23")


@pytest.mark.parametrize(
    ("asked", "dates"),
    [
        pytest.param("2026-11-20T00:30", days("2026-11-19"), id="days ago"),
        pytest.param("2026-11-19T23:30", days("2026-11-19"), id="a day by the time zone"),
        pytest.param("2026-11-30T00:30", days("2026-11-23"), id="to come"),
        pytest.param(None, days("2026-11-23"), id="unknown"),
    ],
)
def test_yesterday_is_that_of_whoever_asked(asked: str | None, dates: list[dt.date]) -> None:
    moment = utc(asked) if asked else None
    assert dates_of_range(None, None, NOW, settings(timezone=BERLIN), asked_at=moment) == dates


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [
        pytest.param("2026-11-02", "2026-11-01", "to_date=2026-11-01 lies before from_date=2026-11-02", id="backwards"),
        pytest.param("2026-11-25", None, "from_date=2026-11-25 is in the future", id="tomorrow"),
        pytest.param(None, "2026-11-25", "to_date=2026-11-25 is in the future", id="to tomorrow"),
        pytest.param(None, "never", "to_date='never' is not a date", id="word, to alone"),
        pytest.param("2026-11-01", "2026-11-25", "to_date=2026-11-25 is in the future", id="until tomorrow"),
        pytest.param("2026-02-30", None, "from_date='2026-02-30' is not a date; it takes YYYY-MM-DD", id="no such day"),
        pytest.param("2026-11-01", "20261102", "to_date='20261102' is not a date", id="no dashes"),
        pytest.param("2026-W47-1", None, "from_date='2026-W47-1' is not a date", id="ISO week"),
        pytest.param("yesterday", None, "from_date='yesterday' is not a date", id="word"),
        pytest.param(" 2026-11-1", None, "is not a date", id="ten characters but no date"),
        pytest.param("1026-11-01", "2026-11-01", "is 365,244 days; a run takes 366 at most", id="slip in the year"),
    ],
)
def test_range_that_cannot_be(first: str | None, last: str | None, told: str) -> None:
    with pytest.raises(SettingsError) as raised:
        dates_of_range(first, last, NOW, settings())
    assert told in str(raised.value)


def test_day_in_iso_week_form_is_refused() -> None:
    with pytest.raises(SettingsError):
        parse_day("date", "2026-W47-1")


@pytest.mark.parametrize("merchants", [None, (), ("a:b", "é")])
def test_scope_round_trip(merchants: tuple[str, ...] | None) -> None:
    scope = Scope(dt.date(2026, 11, 23), settled=True, merchant_ids=merchants)
    assert Scope.from_json(scope.to_json()) == scope
