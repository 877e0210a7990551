"""Turns arguments into what the engine takes: dates, merchants, a run."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from merchant_usage.errors import SettingsError
from merchant_usage.model.dates import dates_of_interval, dates_of_range, local_date, parse_day
from merchant_usage.model.keys import why_no_merchant_id
from merchant_usage.model.run import CLI, CLI_IDS, Run
from merchant_usage.settings import Settings
from merchant_usage.text import shown, storable

# A year and more is a slip of the pen.
_DAYS_AGO: Final = re.compile("-[0-9]{1,3}")


def requested_dates(options: argparse.Namespace, now: dt.datetime, settings: Settings) -> list[dt.date]:
    """The dates of `DATE` or `--date`, or of `--from` and `--to`; yesterday if none is given.

    Raises:
        SettingsError: for what is no date or no range, naming the argument.
    """
    if options.day is not None and options.date is not None:
        raise SettingsError("DATE and --date are the same: give one of the two.")
    given = {"DATE": options.day, "--date": options.date, "--from": options.from_date, "--to": options.to_date}
    days = {name: str(day_of(name, text, now, settings)) for name, text in given.items() if text is not None}
    one = next((name for name in ("DATE", "--date") if name in days), None)
    if one is not None and len(days) > 1:
        raise SettingsError("One date, or --from and --to for a range: give one of the two.")
    first, last = (one, one) if one else ("--from", "--to")
    return dates_of_range(days.get(first), days.get(last), now, settings, (first, last))


def day_of(name: str, text: str, now: dt.datetime, settings: Settings) -> dt.date:
    """A day as people give it on a command line: a date, `today`, `yesterday`, or `-2` for two days ago.

    Raises:
        SettingsError: naming the argument, the text and what is accepted.
    """
    today = local_date(now, settings)
    ago = {"today": 0, "yesterday": 1}.get(text)
    if ago is None and _DAYS_AGO.fullmatch(text):
        ago = int(text[1:])
    return parse_day(name, text) if ago is None else today - dt.timedelta(days=ago)


def requested_run(options: argparse.Namespace, now: dt.datetime, settings: Settings) -> Run:
    """The run that the arguments ask for."""
    return run_of(requested_dates(options, now, settings), now, requested_merchants(options.merchant))


def due_run(options: argparse.Namespace, now: dt.datetime, settings: Settings) -> Run:
    """The run that a scheduler without Airflow asks for: that of an interval which is this moment.

    Its dates are those of today; what is owed besides, the ledger knows.

    Raises:
        SettingsError: dates or merchants are given too.
    """
    if options.day or options.date or options.from_date or options.to_date or options.merchant:
        raise SettingsError("--due takes all merchants of the dates that are due: give it no date and no merchant.")
    return replace(run_of(dates_of_interval(now, now, settings), now), interval=(now, now))


def run_of(dates: Iterable[dt.date], now: dt.datetime, merchant_ids: tuple[str, ...] | None = None) -> Run:
    """A run of the command line."""
    return Run(f"{CLI_IDS}{now.isoformat()}", CLI, tuple(dates), now, merchant_ids, requested_by=user_name())


def user_name() -> str | None:
    """The user of the operating system; None if there is no name, as in a container of any user's id."""
    try:
        return storable(getpass.getuser())
    except (KeyError, OSError):
        return None


def requested_merchants(given: list[str] | None) -> tuple[str, ...] | None:
    """The merchants of `--merchant`; None for all of them.

    Raises:
        SettingsError: for what is no merchant's id.
    """
    if given is None:
        return None
    for merchant in given:
        if problem := why_no_merchant_id(merchant):
            raise SettingsError(
                f"--merchant={shown(merchant)!r} {problem}; it takes a merchant's id. Leave it out for all merchants."
            )
    return tuple(sorted(set(given)))
