"""What to type about an error. The engine says what is wrong, and does not know that it runs on a command line."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Final

from merchant_usage.errors import PROGRAM, PartitionMissing, UpsertFailed, UsageError, UsageMismatch
from merchant_usage.model.dates import MAX_DATES_NAMED, date_ranges

_TO_DO: Final[Mapping[type[UsageError], str]] = {
    PartitionMissing: "Make it, then run it again",
    UpsertFailed: "Mend the cause, then run it again",
    UsageMismatch: "To mend: run it again",
}


def aggregate_command(dates: Sequence[dt.date]) -> str:
    """What to type to aggregate dates."""
    return _command("aggregate", dates)


def verify_command(dates: Sequence[dt.date]) -> str:
    """What to type to see what differs of dates."""
    return _command("verify", dates)


def _command(name: str, dates: Sequence[dt.date]) -> str:
    """One for each range of dates; of very many gaps from first to last."""
    ranges = date_ranges(dates)
    if len(ranges) > MAX_DATES_NAMED:
        ranges = [[min(dates), max(dates)]]
    return " && ".join(
        f"{PROGRAM} {name} " + (f"--date {first}" if first == last else f"--from {first} --to {last}")
        for first, *_, last in ([each[0], *each] for each in ranges)
    )


def remedies(dates: Sequence[dt.date] = ()) -> dict[type[UsageError], str]:
    """What ends the sentence of an error.

    Args:
        dates: those that were aggregated, if that is known.
    """
    command = f": {aggregate_command(dates)}" if dates else "."
    return {kind: f"{to_do}{command}" for kind, to_do in _TO_DO.items()}
