"""The three steps of a run, the same for Airflow's tasks and for the command line: scan, store, verify."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from psycopg import Connection

from merchant_usage import clock
from merchant_usage.errors import RunIncomplete, UpsertFailed, UsageMismatch
from merchant_usage.log import Log
from merchant_usage.model.batches import Batch
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.run import Plan, Run
from merchant_usage.model.verdict import Proof
from merchant_usage.settings import Settings
from merchant_usage.sink import dead_letters, ledger
from merchant_usage.sink.ledger import _failure_noted
from merchant_usage.sink.queries import query
from merchant_usage.source.counters import RedisClient
from merchant_usage.steps.reader import Reader, ReaderAhead
from merchant_usage.steps.scan import scan
from merchant_usage.steps.store import BatchResult, store_batch, totals_by_date
from merchant_usage.steps.verify import verify

log = Log(__name__)


def store(
    client: RedisClient,
    conn: Connection,
    batch: Batch,
    run_id: str,
    settings: Settings,
    reader: Reader | None = None,
) -> BatchResult:
    """Store one batch.

    Raises:
        UpsertFailed: some merchants could not be stored; all others were.
    """
    result = store_batch(client, conn, batch, run_id, settings, reader)
    if result.failures:
        raise UpsertFailed(result.failures)
    return result


def prove(
    client: RedisClient,
    conn: Connection,
    plan: Plan,
    batches: Sequence[Batch],
    results: Sequence[BatchResult],
    settings: Settings,
    on_proof: Callable[[Proof], None] | None = None,
) -> Proof:
    """Verify a run and write its end into the ledger, whatever it is.

    Args:
        on_proof: told what was found, good or bad, once it is in the ledger.

    Raises:
        RunIncomplete: a batch has no result, so the run cannot be proven.
        UsageMismatch: Redis and PostgreSQL do not agree; the ledger says so.
    """
    result = totals_by_date(results)
    for date, count in plan.dead_letters.items():
        result.counts[date].dead_letters += count
    missing = len(batches) - len(results)
    unstored = f"{missing} of {len(batches)} batches were not stored" if missing else None
    with _failure_noted(conn, plan.run_id):
        proof = verify(
            client,
            conn,
            plan.scopes,
            batches,
            result,
            plan.run_id,
            settings.key_prefix,
            proven_before=ledger.is_proven(conn, plan.run_id),
        )
        for report in proof.reports:
            lines = [str(difference) for difference in proof.failing if difference.key.date == report.date]
            report.error = "\n".join(lines[: UsageMismatch.SHOWN]) or unstored
            if missing:
                report.verdict = DateVerdict.MISMATCH
        ledger.finish(conn, plan.run_id, proof.reports, clock.now())
    if on_proof is not None:
        on_proof(proof)
    _tell(proof)
    if proof.regressed_count:
        log.warning(
            f"{proof.regressed_count} counters are lower in Redis than in PostgreSQL. The stored values stay; each "
            "is an open counter_regressed in usage_dead_letter and waits for a decision.",
            regressed=proof.regressed_count,
        )
    _tell_end(proof, missing)
    if proof.failing_count:
        raise UsageMismatch([str(difference) for difference in proof.failing], proof.failing_count)
    if missing:
        raise RunIncomplete(
            f"{unstored}, so this run is not proven. See the red upsert_merchant_usage tasks; once their cause is "
            "mended, clear them with their downstream tasks."
        )
    conn.execute(query("delete_readings"), {"run_id": plan.run_id})
    return proof


def _tell(proof: Proof) -> None:
    for report in proof.reports:
        log.info(
            f"{report.date} is {report.verdict}: Redis {report.redis_total:,}, PostgreSQL {report.postgres_total:,}",
            # Airflow's log view shows nothing in place of True and False.
            **report.as_metadata() | {"settled": "yes" if report.settled else "no"},
        )


def _tell_end(proof: Proof, missing: int) -> None:
    """The last line of a run. An error is a counter, or a bad key, that was not brought over as it should be."""
    records = sum(report.counts.read for report in proof.reports)
    dead = sum(report.counts.dead_letters for report in proof.reports)
    # A batch that was not stored holds one counter at least, though on a live date none of them need be failing.
    failing = max(proof.failing_count, missing)
    errors = failing + proof.regressed_count + dead
    log.info(
        f"Completed. Records aggregated: {records:,}, errors: {errors:,}",
        records=records,
        errors=errors,
        failing=failing,
        regressed=proof.regressed_count,
        dead_letters=dead,
    )


def store_all(
    client: RedisClient,
    conn: Connection,
    plan: Plan,
    batches: Sequence[Batch],
    settings: Settings,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[list[BatchResult], dict[str, str]]:
    """Store batches one after the other, each read from Redis while the one before it is being stored.

    Returns the results of those that were stored whole, and why which merchants of the others could not be stored.
    """
    results: list[BatchResult] = []
    failures: dict[str, str] = {}
    open_keys = dead_letters.open_keys(conn, [scope.date for scope in plan.scopes])
    with ReaderAhead(client, settings.key_prefix, batches, open_keys) as reader:
        for done, batch in enumerate(batches, start=1):
            try:
                results.append(store(client, conn, batch, plan.run_id, settings, reader))
            except UpsertFailed as error:
                failures.update(error.failures)
            if on_batch is not None:
                on_batch(done, len(batches))
    return results, failures


def aggregate(
    client: RedisClient,
    conn: Connection,
    run: Run,
    settings: Settings,
    on_batch: Callable[[int, int], None] | None = None,
) -> Proof:
    """A whole run in this process: scan, store every batch, verify.

    Args:
        on_batch: told (batches done, batches in all) after each batch.

    Raises:
        UpsertFailed: some merchants could not be stored; all others were, and the ledger says so.
        UsageMismatch: Redis and PostgreSQL do not agree.
    """
    plan, batches = scan(client, conn, run, settings, here=True)
    with _failure_noted(conn, run.run_id):
        results, failures = store_all(client, conn, plan, batches, settings, on_batch)
    try:
        return prove(client, conn, plan, batches, results, settings)
    except (RunIncomplete, UsageMismatch):
        if failures:
            raise UpsertFailed(failures) from None
        raise
