"""Durations and moments as people write them on a command line, and as they like to read them."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from merchant_usage.errors import SettingsError

# Six digits are 2700 years even in days, and far from what a timedelta cannot hold.
_DURATION: Final = re.compile("([0-9]{1,6})([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


def parse_duration(name: str, value: str) -> dt.timedelta:
    """A duration of minutes, hours or days: `90m`, `2h`, `1d`.

    Raises:
        SettingsError: naming the parameter, the value and what is accepted.
    """
    found = _DURATION.fullmatch(value)
    duration = dt.timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else dt.timedelta()
    if not duration:
        raise SettingsError(
            f"{name}={value!r} is not a duration; it takes minutes, hours or days, more than zero: 90m, 2h or 1d."
        )
    return duration


def format_moment(moment: dt.datetime | None) -> str:
    """To the minute, in UTC."""
    return "never" if moment is None else f"{moment.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
