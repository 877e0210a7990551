"""Reads and compares without writing: dry runs, and comparisons on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from psycopg import Connection

from merchant_usage.log import Log
from merchant_usage.model.run import Run
from merchant_usage.model.verdict import Proof, would_do
from merchant_usage.settings import OnRegression, Settings
from merchant_usage.sink import schema
from merchant_usage.source.counters import RedisClient
from merchant_usage.steps.scan import Survey, _tell_absent, _told, take_survey
from merchant_usage.steps.store import BatchResult
from merchant_usage.steps.verify import verify

log = Log(__name__)


def preview(client: RedisClient, conn: Connection, run: Run, settings: Settings) -> Proof:
    """A dry run: read and compare, log what would change, write nothing."""
    schema.check(conn)
    log.info(f"Dry run for date {_told(run.dates)}: nothing is written", run_id=run.run_id)
    survey = take_survey(client, run.scopes(settings), run, settings)
    _tell_absent(survey, run)
    # Judged as if settled: whatever is not stored yet is what a run would store.
    scopes = [replace(survey.scopes[date], settled=True) for date in sorted(survey.scopes)]
    batches = survey.census.batches((), settings.max_mapped_tasks)
    proof = verify(
        client, conn, scopes, batches, BatchResult(), run.run_id, settings.key_prefix, flag_regressions=False
    )
    _tell_preview(proof, survey, carry=settings.on_regression is OnRegression.CARRY)
    return proof


def _tell_preview(proof: Proof, survey: Survey, *, carry: bool) -> None:
    """What a run would do. It passes no verdict: what is not stored yet is no mismatch."""
    for report in proof.reports:
        numbers = would_do(report)
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
    letters = [f"{letter.redis_key!r} ({letter.reason}: {letter.detail})" for letter in survey.bad.values()]
    _tell_each("Would store", proof.failing, proof.failing_count)
    _tell_each("Went backwards", proof.regressed, proof.regressed_count)
    _tell_each("Would be a dead letter", letters, len(letters) + survey.bad_left_out)
    bad = len(letters) + survey.bad_left_out + sum(report.bad_values for report in proof.reports)
    log.info(
        f"Dry run, nothing was written: {proof.failing_count:,} counter(s) would be stored, {proof.regressed_count:,} "
        f"went backwards{stay if proof.regressed_count else ''}, {bad:,} key(s) cannot be counted",
        would_store=proof.failing_count,
        regressed=proof.regressed_count,
        dead_letters=bad,
    )


def _tell_each(what: str, found: Sequence[object], count: int) -> None:
    """A line each, and how many more there are."""
    for each in found:
        log.info(f"{what}: {each}")
    if count > len(found):
        log.info(f"{what}: and {count - len(found):,} more")


def compare(client: RedisClient, conn: Connection, run: Run, settings: Settings) -> Proof:
    """Compare Redis with PostgreSQL as they are now, each date judged by whether it is settled, and write nothing."""
    schema.check(conn)
    # With clean-up on a survey would take in dates past the retention, which nobody asked for here.
    asked = replace(settings, delete_stale_keys=False)
    survey = take_survey(client, run.scopes(settings), run, asked)
    _tell_absent(survey, run)
    scopes = [survey.scopes[date] for date in sorted(survey.scopes)]
    batches = survey.census.batches((), settings.max_mapped_tasks)
    return verify(client, conn, scopes, batches, BatchResult(), run.run_id, settings.key_prefix, flag_regressions=False)
