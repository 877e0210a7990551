"""What an address asks for, read from its query. What cannot be read is one sentence, and status 400."""

from __future__ import annotations

import datetime as dt
from typing import Final

from merchant_usage.errors import SettingsError
from merchant_usage.model.dates import parse_day
from merchant_usage.model.keys import why_no_merchant_id
from merchant_usage.text import shown

FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 9000


def date_of(name: str, value: str | None) -> dt.date:
    """A date that must be given.

    Raises:
        SettingsError: it is missing, or is none.
    """
    if not value:
        raise SettingsError(f"{name} is missing; it takes a date as in 2026-11-20.")
    return _day(name, value)


def optional_date(name: str, value: str | None) -> dt.date | None:
    """A date that may be left out.

    Raises:
        SettingsError: it is none.
    """
    return _day(name, value) if value else None


def _day(name: str, value: str) -> dt.date:
    # Days around it, and moments in other time zones, must be days still.
    day = parse_day(name, value)
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        raise SettingsError(f"{name}={day} is not shown; it takes a date of the years {FIRST_YEAR} to {LAST_YEAR}.")
    return day


def whole(name: str, value: str | None, default: int, least: int, most: int) -> int:
    """A whole number that may be left out.

    Raises:
        SettingsError: it is none, or too small, or too large.
    """
    if not value:
        return default
    if value.isascii() and value.isdecimal() and len(value) <= len(str(most)) and least <= int(value) <= most:
        return int(value)
    raise SettingsError(f"{name}={shown(value)!r} is not possible; it takes a whole number, {least} to {most}.")


def identity(name: str, value: str | None) -> int:
    """The number of a row behind which a list begins; 0 if none is given.

    Raises:
        SettingsError: it is none.
    """
    return whole(name, value, 0, 0, 2**63 - 1)


def merchant_of(value: str | None) -> str:
    """A merchant's id that must be given.

    Raises:
        SettingsError: it is missing, or can be no merchant's.
    """
    if not value:
        raise SettingsError("merchant is missing; it takes a merchant's id.")
    if problem := why_no_merchant_id(value):
        raise SettingsError(f"merchant={shown(value)!r} {problem}; it takes a merchant's id.")
    return value
