"""The commands, but for status. Each returns its exit code."""

from __future__ import annotations

import argparse
import base64
from typing import Any

from merchant_usage import clock, pipeline
from merchant_usage.cli.differences import as_document, mismatches, tell_comparison
from merchant_usage.cli.output import complain, progress, say, say_json, width
from merchant_usage.cli.parser import PROGRAM
from merchant_usage.cli.requests import requested_run
from merchant_usage.connections import postgres_from_url, redis_from_url
from merchant_usage.errors import RunIncomplete, SettingsError, UpsertFailed, UsageMismatch
from merchant_usage.model.dates import parse_day
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.run import Run
from merchant_usage.settings import Settings, load_settings
from merchant_usage.sink import dead_letters, ledger, schema
from merchant_usage.steps import preview
from merchant_usage.steps.resolve import Decision, decide
from merchant_usage.tables import describe, describe_letters, describe_preview


def migrate(_: argparse.Namespace) -> int:
    """Create or migrate the tables."""
    with postgres_from_url() as conn:
        for name in schema.migrate(conn):
            say(f"applied {name}")
    return 0


def aggregate(options: argparse.Namespace) -> int:
    """Move and verify."""
    settings = load_settings()
    run = requested_run(options, clock.now(), settings)
    return _preview(options, run, settings) if options.dry_run else _aggregate(options, run, settings)


def _aggregate(options: argparse.Namespace, run: Run, settings: Settings) -> int:
    proof, problem = None, ""
    with redis_from_url() as client, postgres_from_url() as conn:
        with progress("Scanning Redis", "Storing batches", "Verifying") as on_batch:
            try:
                proof = pipeline.aggregate(client, conn, run, settings, on_batch)
            except (RunIncomplete, UpsertFailed, UsageMismatch) as error:
                problem = str(error)
        rows = ledger.run(conn, run.run_id)
    if not problem and (wrong := [str(row["usage_date"]) for row in rows if row["verdict"] == DateVerdict.MISMATCH]):
        problem = (
            f"Counters of {', '.join(wrong)} went backwards and wait for a decision. "
            f"See: {PROGRAM} dead-letters --reason {Reason.COUNTER_REGRESSED}"
        )
    if options.json:
        say_json({"run_id": run.run_id, "dates": rows, "error": problem or None})
    elif proof is not None:
        say(describe(proof, width()))
    if problem:
        complain(problem)
    return int(bool(problem))


def _preview(options: argparse.Namespace, run: Run, settings: Settings) -> int:
    with redis_from_url() as client, postgres_from_url() as conn, progress("Reading", "", ""):
        proof = preview.preview(client, conn, run, settings)
    if options.json:
        document = as_document(proof)
        for date in document["dates"]:
            del date["verdict"], date["settled"]  # a dry run passes no verdict
        say_json({"dry_run": True, **document})
    else:
        say(describe_preview(proof, width()))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Compare Redis with PostgreSQL now."""
    settings = load_settings()
    run = requested_run(options, clock.now(), settings)
    with redis_from_url() as client, postgres_from_url() as conn, progress("Comparing", "", ""):
        proof = preview.compare(client, conn, run, settings)
    if options.json:
        say_json(as_document(proof))
    else:
        say(tell_comparison(proof))
    wrong = mismatches(proof.reports)
    if wrong:
        complain(
            f"PostgreSQL does not hold what Redis holds of {', '.join(wrong)}. "
            "`aggregate` stores what is missing or behind; `resolve` decides what went backwards."
        )
    return int(bool(wrong))


def list_dead_letters(options: argparse.Namespace) -> int:
    """List the keys that cannot be counted."""
    if options.reason is not None and options.reason not in set(Reason):
        raise SettingsError(f"--reason={options.reason!r} is no reason; it takes one of {', '.join(Reason)}.")
    with postgres_from_url() as conn:
        schema.check(conn)
        counts = dead_letters.open_counts(conn)
        rows = dead_letters.listed(conn, with_resolved=options.all, reason=options.reason, most=options.most)
    if options.json:
        say_json({"open": counts, "letters": list(map(_letter, rows))})
        return 0
    say("Open: " + (", ".join(f"{count:,} {reason}" for reason, count in counts.items()) or "none"))
    if rows:
        say(describe_letters(rows, width()))
    return 0


def _letter(row: dict[str, Any]) -> dict[str, Any]:
    """A dead letter for a program. A key is any bytes: `key` is to be read, `key_base64` is exact."""
    raw = bytes(row.pop("redis_key"))
    exact = base64.b64encode(raw).decode()
    return {"key": raw.decode(errors="backslashreplace"), "key_base64": exact, **row}


def resolve(options: argparse.Namespace) -> int:
    """Decide counters that went backwards."""
    settings = load_settings()
    date = parse_day("--date", options.date) if options.date else None
    with redis_from_url() as client, postgres_from_url() as conn:
        schema.check(conn)
        decision = Decision(options.decision)
        for decided in decide(client, conn, decision, settings.key_prefix, key=options.key, date=date):
            say(f"{decision}: {decided.key}: stored {decided.before} -> {decided.after}")
    return 0
