"""What an address asks for, read from its query. What cannot be read is one sentence, and status 400."""

from __future__ import annotations

import datetime as dt

from merchant_usage.errors import SettingsError
from merchant_usage.model.dates import parse_day
from merchant_usage.model.keys import why_no_merchant_id
from merchant_usage.text import shown


def date_of(name: str, value: str | None) -> dt.date:
    """A date that must be given.

    Raises:
        SettingsError: it is missing, or is none.
    """
    if not value:
        raise SettingsError(f"{name} is missing; it takes a date as in 2026-11-20.")
    return parse_day(name, value)


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
