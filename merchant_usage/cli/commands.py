"""The commands, but for status. Each returns its exit code."""

from __future__ import annotations

import argparse
import base64
import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import psycopg
from psycopg import Connection

from merchant_usage import clock, pipeline
from merchant_usage.cli.differences import format_comparison, problems, proof_to_json
from merchant_usage.cli.exit_codes import exit_code
from merchant_usage.cli.output import complain, progress, remark, say, say_json, width
from merchant_usage.cli.remedies import aggregate_command, remedies
from merchant_usage.cli.requests import due_run, requested_run
from merchant_usage.cli.servers import both_servers
from merchant_usage.clock import format_duration
from merchant_usage.connections import postgres_from_url
from merchant_usage.errors import (
    PROGRAM,
    DatesNotStored,
    RunIncomplete,
    SettingsError,
    UpsertFailed,
    UsageError,
    UsageMismatch,
)
from merchant_usage.log import Log
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.run import CLI, Run
from merchant_usage.model.verdict import Proof
from merchant_usage.settings import Settings, load_settings
from merchant_usage.sink import dead_letters, grants, ledger, schema
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps import preview
from merchant_usage.steps import prune as pruning
from merchant_usage.steps.due import due_dates
from merchant_usage.steps.prune import format_pruned, format_weeks
from merchant_usage.tables import describe, describe_letters, describe_preview

log = Log(__name__)


def migrate(options: argparse.Namespace) -> int:
    """Create or migrate the tables."""
    with postgres_from_url() as conn:
        applied = schema.migrate(conn)
        lacking = _lacking(conn, options.role)
    if options.json:
        say_json({"applied": applied, "missing": [each._asdict() for each in chain.from_iterable(lacking)]})
    else:
        for name in applied:
            say(f"applied {name}")
    for of_role in lacking:
        remark(grants.describe(of_role))
    return 0


def _lacking(conn: Connection, role: str | None) -> list[list[grants.Missing]]:
    """What the roles that runs are made with may not do, by role.

    Args:
        role: None for those that may write the ledger.

    Raises:
        SettingsError: there is no such role.
    """
    roles = grants.ledger_writers(conn) if role is None else [role]
    try:
        found = [grants.missing(conn, grants.PIPELINE, each) for each in roles]
    except psycopg.errors.UndefinedObject:
        raise SettingsError(f"--role={role!r} is no role of this PostgreSQL.") from None
    return [lacking for lacking in found if lacking]


def aggregate(options: argparse.Namespace) -> int:
    """Move and verify."""
    settings = load_settings()
    now = clock.now()
    run = due_run(options, now, settings) if options.due else requested_run(options, now, settings)
    with both_servers() as (client, conn):
        schema.check(conn, grants.COMPARE if options.dry_run else grants.RUN)
        run = replace(run, dates=due_dates(conn, run, settings))
        if options.dry_run:
            return _preview(options, client, conn, run, settings)
        _tell_of_others(conn, now, settings)
        return _aggregate(options, client, conn, run, settings)


def _tell_of_others(conn: Connection, now: dt.datetime, settings: Settings) -> None:
    """Say if another run is at work: an entry of a scheduler that starts one before the last has ended, say."""
    for run_id, began_at in ledger.unfinished_runs(conn, CLI, now - dt.timedelta(seconds=settings.deadline_seconds)):
        log.warning(
            f"Another run of {PROGRAM}, {run_id}, began {format_duration(now - began_at)} ago and has not ended. Both "
            "go on: what they store is the same.",
            other_run_id=run_id,
        )


def _aggregate(options: argparse.Namespace, client: RedisClient, conn: Connection, run: Run, settings: Settings) -> int:
    proof: Proof | None = None
    error: UsageError | None = None
    stored: list[int] = []
    with progress("Scanning Redis", "Storing batches", "Verifying") as show:

        def on_batch(done: int, total: int) -> None:
            stored[:] = done, total
            show(done, total)

        try:
            proof = pipeline.aggregate(client, conn, run, settings, on_batch)
        except KeyboardInterrupt as interrupt:
            so_far = "{:,} of {:,} batches were stored".format(*stored) if stored else "no batch was stored whole"
            raise type(interrupt)(
                f"Interrupted: {so_far}. What is stored is exact, and not proven; the run can be repeated at any time: "
                f"{aggregate_command(run.dates)}"
            ) from None
        except (DatesNotStored, RunIncomplete, UpsertFailed, UsageMismatch) as raised:
            error = raised  # of a part of the run only: the ledger has more to say
    rows = ledger.run(conn, run.run_id)
    problem = " ".join(_undecided(rows)) if error is None else error.with_remedy(remedies(run.dates))
    if options.json:
        say_json({"run_id": run.run_id, "dates": rows, "error": problem or None})
    elif proof is not None:
        say(describe(proof, width()))
    if problem:
        complain(problem)
    return exit_code(error) if error is not None else int(bool(problem))


def _undecided(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """What waits for a person to decide, though nothing failed: a sentence each."""
    dates: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        dates[row["verdict"]].append(str(row["usage_date"]))
    if lower := dates[DateVerdict.MISMATCH]:
        yield (
            f"Counters of {', '.join(lower)} went backwards and wait for a decision. "
            f"See: {PROGRAM} dead-letters --reason {Reason.COUNTER_REGRESSED}"
        )
    if unread := dates[DateVerdict.INCOMPLETE]:
        yield (
            f"The end of {', '.join(unread)} was never read, so usage may be lost. See: {PROGRAM} status {unread[0]}; "
            f"if what is stored shall stand: {PROGRAM} resolve --date {unread[0]} --keep"
        )


def _preview(options: argparse.Namespace, client: RedisClient, conn: Connection, run: Run, settings: Settings) -> int:
    with progress("Reading", "", ""):
        proof = preview.preview(client, conn, run, settings)
    if options.json:
        say_json({"dry_run": True, **proof_to_json(proof, with_verdicts=False)})
    else:
        say(describe_preview(proof, width()))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Compare Redis with PostgreSQL now."""
    settings = load_settings()
    run = requested_run(options, clock.now(), settings)
    with both_servers() as (client, conn), progress("Comparing", "", ""):
        proof = preview.compare(client, conn, run, settings)
    if options.json:
        say_json(proof_to_json(proof))
    else:
        say(format_comparison(proof))
    if found := [*problems(proof)]:
        complain(" ".join(found))
    return int(bool(found))


def list_dead_letters(options: argparse.Namespace) -> int:
    """List the keys that cannot be counted."""
    if options.reason is not None and options.reason not in set(Reason):
        raise SettingsError(f"--reason={options.reason!r} is no reason; it takes one of {', '.join(Reason)}.")
    with postgres_from_url() as conn:
        schema.check(conn, grants.LETTERS)
        counts = dead_letters.open_counts(conn)
        rows = dead_letters.listed(conn, with_resolved=options.all, reason=options.reason, limit=options.most)
    if options.json:
        say_json({"open": counts, "letters": list(map(_letter, rows))})
        return 0
    say("Open: " + (", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "none"))
    if rows:
        say(describe_letters(rows, width()))
    return 0


def _letter(row: dict[str, Any]) -> dict[str, Any]:
    """A dead letter for a program. A key is any bytes: `key` is to be read, `key_base64` is exact.

    With `key_sha256`, which is that of the whole name, the key is only the beginning of one that is too long.
    """
    raw = bytes(row.pop("redis_key"))
    exact = base64.b64encode(raw).decode()
    digest = row.pop("redis_key_sha256")
    return {
        "key": raw.decode(errors="backslashreplace"),
        "key_base64": exact,
        "key_sha256": None if digest is None else bytes(digest).hex(),
        **row,
    }


def prune(options: argparse.Namespace) -> int:
    """Forget what nobody needs any more."""
    settings = load_settings()
    with postgres_from_url() as conn:
        schema.check(conn, grants.PRUNE)
        found = pruning.prune(conn, clock.now(), settings, dry_run=options.dry_run)
        weeks = pruning.prune_history(conn, clock.now(), settings, dry_run=options.dry_run)
    if options.json:
        say_json(
            {
                "dry_run": options.dry_run,
                "days": settings.ledger_retention_days,
                "deleted": found,
                "hourly_days": settings.hourly_retention_days,
                "hourly_weeks": weeks,
            }
        )
    else:
        what = "Would delete" if options.dry_run else "Deleted"
        say(f"{what} what is older than {settings.ledger_retention_days} days: {format_pruned(found)}")
        say(f"{what} hourly history older than {settings.hourly_retention_days} days: {format_weeks(weeks)}")
    return 0
