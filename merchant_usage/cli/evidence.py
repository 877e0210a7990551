"""`explain --evidence`: what is stored of a period and what shows that it is right, as files for those who check it."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from merchant_usage import clock
from merchant_usage.cli import evidence_files
from merchant_usage.cli.output import say, say_json
from merchant_usage.cli.requests import requested_dates, requested_merchants
from merchant_usage.connections import postgres_from_url
from merchant_usage.errors import SettingsError
from merchant_usage.model.keys import why_no_merchant_id
from merchant_usage.settings import load_settings
from merchant_usage.sink import grants, period, schema
from merchant_usage.sink.period import Period
from merchant_usage.text import shown

#: Dates that an answer names, of those that are not proven. The files name all.
NAMED: Final = 10


def write_evidence(options: argparse.Namespace) -> int:
    """Write a folder of evidence, whole or not at all."""
    asked = _period(options)
    with _new_folder(options.evidence) as folder, postgres_from_url() as conn:
        schema.check(conn, grants.EVIDENCE)
        with period.snapshot(conn):
            written = evidence_files.write(conn, folder, asked)
    if options.json:
        say_json(written)
    else:
        say(_format(written, options.evidence))
    return 0


def _period(options: argparse.Namespace) -> Period:
    """What the arguments ask for.

    Raises:
        SettingsError: naming what is wrong, and what is accepted.
    """
    if options.metric is not None:
        raise SettingsError(f"METRIC={shown(options.metric)!r}: evidence is of all metrics; leave it out.")
    merchant = options.merchant_id
    if merchant is not None:
        if problem := why_no_merchant_id(merchant):
            raise SettingsError(f"MERCHANT={shown(merchant)!r} {problem}; it takes a merchant's id.")
        if not (options.day or options.from_date or options.to_date):
            # What was meant may have been a date of all merchants.
            raise SettingsError(
                f"MERCHANT={shown(merchant)!r} is without a date: give DATE after it, or --from and --to. Without "
                "MERCHANT, evidence is of all merchants."
            )
    dates = requested_dates(options, clock.now(), load_settings())
    others = requested_merchants(options.merchant) or ()
    named = {*others} if merchant is None else {*others, merchant}
    return Period(dates[0], dates[-1], tuple(sorted(named)) or None)


@contextmanager
def _new_folder(given: str) -> Iterator[Path]:
    """A folder beside the one that is asked for, whose name it gets once all is in it; until then there is none.

    Raises:
        SettingsError: there is something in its place, or it cannot be written.
    """
    if not given:
        raise SettingsError("--evidence='' is no folder; it takes one that does not exist, or is empty.")
    target = Path(given).resolve()
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise SettingsError(
                f"--evidence={shown(given)!r} is there already; it takes a folder that does not exist, or is empty."
            )
        made = Path(tempfile.mkdtemp(prefix=".evidence-", suffix=".unfinished", dir=target.parent))
        try:
            yield made
            made.replace(target)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        raise SettingsError(f"--evidence={shown(given)!r} cannot be written: {error.strerror or error}.") from None


def _format(written: dict[str, Any], folder: str) -> str:
    first, last = written["from_date"], written["to_date"]
    dates = first if first == last else f"{first} to {last}"
    lines = [
        f"Wrote evidence of {dates} to {shown(folder, 200)}: {written['merchants']:,} merchants, "
        f"{written['counters']:,} counters, {int(written['total']):,} in all.",
        f"Proven: {written['proven']:,} of {written['dates']:,} dates.",
    ]
    missing = written["not_proven"]
    lines += [f"{each['date']} is not proven: {each['why']}." for each in missing[:NAMED]]
    if len(missing) > NAMED:
        lines.append(f"And {len(missing) - NAMED:,} more dates are not proven: see days.csv.")
    return "\n".join(lines)
