"""Durations on the command line: what is taken, what is refused, how they are told."""

from __future__ import annotations

import datetime as dt

import pytest

from merchant_usage.cli.durations import parse_duration
from merchant_usage.clock import format_duration
from merchant_usage.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90m", dt.timedelta(minutes=90)),
        ("2h", dt.timedelta(hours=2)),
        ("1d", dt.timedelta(days=1)),
        ("007h", dt.timedelta(hours=7)),
        ("999999d", dt.timedelta(days=999_999)),
    ],
)
def test_minutes_hours_and_days_are_taken(text: str, duration: dt.timedelta) -> None:
    assert parse_duration("--max-lag", text) == duration


@pytest.mark.parametrize(
    "text",
    ["", "2", "h", "2 h", " 2h", "2h\n", "2H", "-2h", "+2h", "1.5h", "1_0h", "٢h", "2h30m", "30s", "0m", "1000000d"],
)
def test_anything_else_is_refused_with_what_is_taken(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_duration("--max-lag", text)
    told = f"--max-lag={text!r} is not a duration; it takes minutes, hours or days, more than zero: 90m, 2h or 1d."
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("duration", "told"),
    [
        (dt.timedelta(), "0s"),
        (dt.timedelta(seconds=-5), "0s"),
        (dt.timedelta(seconds=42.9), "42s"),
        (dt.timedelta(hours=2), "2h"),
        (dt.timedelta(hours=1, minutes=5, seconds=59), "1h 5m"),
        (dt.timedelta(days=3, minutes=59), "3d"),
        (dt.timedelta(days=400, hours=4), "400d 4h"),
    ],
)
def test_told_in_the_two_largest_units(duration: dt.timedelta, told: str) -> None:
    assert format_duration(duration) == told
