"""Reads and compares without writing: dry runs, and comparisons on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from psycopg import Connection

from merchant_usage.log import Log
from merchant_usage.model.dates import format_dates
from merchant_usage.model.run import Run
from merchant_usage.model.verdict import Proof, preview_counts
from merchant_usage.settings import OnRegression, Settings
from merchant_usage.sink import grants, schema
from merchant_usage.sink.server import require_primary
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.preflight import require_usage
from merchant_usage.steps.scan import ScanResult, log_absent_merchants, require_known_merchants, scan_keys
from merchant_usage.steps.verify import Claim, verify
from merchant_usage.text import shown

log = Log(__name__)


def preview(client: RedisClient, conn: Connection, run: Run, settings: Settings) -> Proof:
    """A dry run: read and compare, log what would change, write nothing."""
    require_primary(conn)
    schema.check(conn, grants.COMPARE)
    log.info(f"Dry run for date {format_dates(run.dates)}: nothing is written", run_id=run.run_id)
    found = scan_keys(client, run.scopes(settings), run, settings)
    require_usage(client, conn, settings.key_prefix, found.scanned)
    require_known_merchants(conn, found, run)
    # Judged as if settled: whatever is not stored yet is what a run would store.
    scopes = [replace(found.scopes[date], settled=True) for date in sorted(found.scopes)]
    batches = found.census.batches((), settings.max_mapped_tasks)
    proof = verify(client, conn, Claim(scopes, batches), settings, run.now)
    _log_preview(proof, found, carry=settings.on_regression is OnRegression.CARRY)
    return proof


def _log_preview(proof: Proof, found: ScanResult, *, carry: bool) -> None:
    """What a run would do. It passes no verdict: what is not stored yet is no mismatch."""
    for report in proof.reports:
        numbers = preview_counts(report)
        log.info(
            f"{report.date}: {numbers['would_store']:,} counter(s) would be stored, "
            f"{numbers['unchanged']:,} unchanged, {numbers['regressed']:,} went backwards, "
            f"{numbers['expired']:,} expired: Redis {report.redis_total:,}, PostgreSQL {report.postgres_total:,}",
            date=str(report.date),
            **numbers,
            redis_total=report.redis_total,
            postgres_total=report.postgres_total,
        )
    stay = " (would be carried on from what is stored)" if carry else " (would stay as stored)"
    letters = [f"{_named(letter.redis_key)} ({letter.reason}: {letter.detail})" for letter in found.bad.values()]
    _log_each("Would store", proof.failing, proof.failing_count)
    _log_each("Went backwards", proof.regressed, proof.regressed_count)
    _log_each("Would be a dead letter", letters, len(letters) + found.bad_left_out)
    bad = len(letters) + found.bad_left_out + sum(report.bad_values for report in proof.reports)
    log.info(
        f"Dry run, nothing was written: {proof.failing_count:,} counter(s) would be stored, {proof.regressed_count:,} "
        f"went backwards{stay if proof.regressed_count else ''}, {bad:,} key(s) cannot be counted",
        would_store=proof.failing_count,
        regressed=proof.regressed_count,
        dead_letters=bad,
    )


def _named(raw: bytes) -> str:
    return shown(raw.decode(errors="backslashreplace"))


def _log_each(what: str, found: Sequence[object], count: int) -> None:
    """A line each, and how many more there are."""
    for each in found:
        log.info(f"{what}: {each}")
    if count > len(found):
        log.info(f"{what}: and {count - len(found):,} more")


def compare(client: RedisClient, conn: Connection, run: Run, settings: Settings) -> Proof:
    """Compare Redis with PostgreSQL as they are now, each date judged by whether it is settled, and write nothing."""
    require_primary(conn)
    schema.check(conn, grants.COMPARE)
    # With clean-up on a scan would take in dates past the retention, which nobody asked for here.
    asked = replace(settings, delete_stale_keys=False)
    found = scan_keys(client, run.scopes(settings), run, asked)
    require_usage(client, conn, settings.key_prefix, found.scanned)
    log_absent_merchants(found, run)
    scopes = [found.scopes[date] for date in sorted(found.scopes)]
    batches = found.census.batches((), settings.max_mapped_tasks)
    return verify(client, conn, Claim(scopes, batches), settings, run.now)
