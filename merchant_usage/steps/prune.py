"""Forgets what nobody needs any more: dead letters that were resolved, alerts, superseded attempts, hourly history.

Verdicts, decisions, seals and counters stay for ever. Rows go in batches of their own transactions, so many a call
at most; hourly history goes by whole weeks.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from contextlib import nullcontext
from enum import StrEnum
from typing import Final

import psycopg
from psycopg import Connection

from merchant_usage.log import Log
from merchant_usage.model.dates import local_date
from merchant_usage.settings import Settings
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import transaction

log = Log(__name__)

#: Rows that one transaction deletes: some hundredths of a second.
BATCH: Final = 10_000
#: Rows of a kind that the first run of a day deletes at most; the next day's goes on.
MAX_ROWS_A_DAY: Final = 200_000
#: Resolved dead letters that are kept, however young they are: a flood a run would else be kept for a year.
MAX_RESOLVED: Final = 1_000_000
# Nobody waits for this work, and it waits for nobody.
LIMITS: Final = {"lock_timeout": "2s", "statement_timeout": "60s"}


class Prunable(StrEnum):
    """What is forgotten after `USAGE_LEDGER_RETENTION_DAYS`; each has its query, prune_NAME."""

    DEAD_LETTERS = "dead_letters"
    ALERTS = "alerts"
    ATTEMPTS = "attempts"


def prune(
    conn: Connection, now: dt.datetime, settings: Settings, *, most: int | None = None, dry_run: bool = False
) -> dict[Prunable, int]:
    """Delete what is older than the ledger's retention. Returns how many rows of each kind.

    Args:
        most: rows of a kind that are deleted; None for all.
        dry_run: take all of it back.
    """
    before = now - dt.timedelta(days=settings.ledger_retention_days)
    found: Counter[Prunable] = Counter()
    with conn.transaction(force_rollback=True) if dry_run else nullcontext():
        for kind in Prunable:
            while most is None or found[kind] < most:
                limit = BATCH if most is None else min(BATCH, most - found[kind])
                with transaction(conn, LIMITS):
                    parameters = {"before": before, "most": MAX_RESOLVED, "limit": limit}
                    deleted = conn.execute(query(f"prune_{kind}"), parameters).rowcount
                found[kind] += deleted
                if deleted < limit:
                    break
    return {kind: found[kind] for kind in Prunable}


def prune_history(conn: Connection, now: dt.datetime, settings: Settings, *, dry_run: bool = False) -> int:
    """Drop the weeks of hourly history that are past their retention, and make those to come. Returns how many.

    Args:
        dry_run: take all of it back.
    """
    first_kept = local_date(now, settings) - dt.timedelta(days=settings.hourly_retention_days)
    with transaction(conn, LIMITS), conn.transaction(force_rollback=dry_run):
        row = conn.execute(query("keep_hourly_history"), {"first_kept": first_kept}).fetchone()
    return int(row[0]) if row else 0


def prune_daily(conn: Connection, now: dt.datetime, settings: Settings) -> None:
    """Prune as much as the first run of a day does. That it cannot be done fails no run."""
    try:
        found = prune(conn, now, settings, most=MAX_ROWS_A_DAY)
        weeks = prune_history(conn, now, settings)
    except psycopg.errors.InsufficientPrivilege as error:
        log.warning(f"Old rows are not pruned: {str(error).strip()}. See docs/reference/grants.md.")
    except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled) as error:
        log.warning(f"Old rows are not pruned now, but tomorrow: {str(error).strip()}")
    else:
        if any(found.values()):
            log.info(
                f"Pruned what is older than {settings.ledger_retention_days} days: {format_pruned(found)}", **found
            )
        if weeks:
            log.info(
                f"Dropped {format_weeks(weeks)} of hourly history, which is kept {settings.hourly_retention_days} days"
            )


def format_pruned(found: dict[Prunable, int]) -> str:
    """How many rows of what, in words."""
    return ", ".join(f"{number:,} {kind.replace('_', ' ')}" for kind, number in found.items())


def format_weeks(number: int) -> str:
    """How many weeks, in words."""
    return f"{number:,} week{'' if number == 1 else 's'}"
