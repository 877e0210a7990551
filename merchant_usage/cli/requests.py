"""Turns arguments into what the engine takes: dates, merchants, a run."""

from __future__ import annotations

import argparse
import datetime as dt

from merchant_usage.errors import SettingsError
from merchant_usage.model.dates import dates_of_range, parse_day
from merchant_usage.model.keys import shown, why_no_merchant_id
from merchant_usage.model.run import Run
from merchant_usage.settings import Settings


def requested_dates(
    options: argparse.Namespace, now: dt.datetime, settings: Settings, one: str = "--date"
) -> list[dt.date]:
    """The dates of `--date`, or of `--from` and `--to`; yesterday if none is given.

    Args:
        one: what the argument for one date is called.

    Raises:
        SettingsError: for what is no date or no range, naming the argument.
    """
    if options.date and (options.from_date or options.to_date):
        raise SettingsError("One date, or --from and --to for a range: give one of the two.")
    for name, value in ((one, options.date), ("--from", options.from_date), ("--to", options.to_date)):
        if value is not None:
            parse_day(name, value)
    names = (one, one) if options.date else ("--from", "--to")
    return dates_of_range(options.from_date or options.date, options.to_date or options.date, now, settings, names)


def requested_run(options: argparse.Namespace, now: dt.datetime, settings: Settings) -> Run:
    """The run that the arguments ask for."""
    dates = requested_dates(options, now, settings)
    return Run(f"cli__{now.isoformat()}", "cli", tuple(dates), now, _merchants(options.merchant))


def _merchants(given: list[str] | None) -> tuple[str, ...] | None:
    if given is None:
        return None
    for merchant in given:
        if problem := why_no_merchant_id(merchant):
            raise SettingsError(
                f"--merchant={shown(merchant)!r} {problem}; it takes a merchant's id. Leave it out for all merchants."
            )
    return tuple(sorted(set(given)))
