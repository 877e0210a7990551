"""The three steps of a run, the same for Airflow's tasks and for the command line: scan, store, verify."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from psycopg import Connection

from merchant_usage import clock
from merchant_usage.errors import (
    PROGRAM,
    BatchesNotStored,
    DatesNotStored,
    RunIncomplete,
    UpsertFailed,
    UsageMismatch,
    UsageVanished,
)
from merchant_usage.log import Log
from merchant_usage.model.batches import Batch
from merchant_usage.model.dates import local_date, oldest_kept
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.run import Plan, Run
from merchant_usage.model.verdict import Difference, Proof
from merchant_usage.settings import Settings
from merchant_usage.sink import dead_letters, ledger
from merchant_usage.sink.ledger import record_failure
from merchant_usage.sink.queries import query
from merchant_usage.sink.source import remember_servers
from merchant_usage.sink.transactions import transaction
from merchant_usage.source.server import require_whole_source
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.audit import audit_daily
from merchant_usage.steps.reader import Reader, ReaderAhead
from merchant_usage.steps.scan import scan
from merchant_usage.steps.seal import seal_dates
from merchant_usage.steps.signature import signer
from merchant_usage.steps.store import BatchResult, store_batch, totals_by_date
from merchant_usage.steps.verify import Claim, verify

log = Log(__name__)

#: Counters that a line of the log names.
MAX_NAMED: Final = 5


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
        DatesNotStored: some dates could not be stored; all others were.
    """
    require_whole_source(client, settings.key_prefix)
    result = store_batch(client, conn, batch, run_id, settings, reader)
    raise_failures(result)
    return result


def raise_failures(result: BatchResult) -> None:
    """Raise what kept a part of a batch from being stored, if anything did.

    Raises:
        UpsertFailed: some merchants could not be stored; all others were.
        DatesNotStored: some dates could not be stored; all others were.
    """
    if result.failures:
        raise UpsertFailed(result.failures)
    if result.date_failures:
        raise DatesNotStored(result.date_failures)


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
        NotSealed: what is verified could not be sealed.
        SettingsError: the key that seals are signed with cannot be used.
    """
    result = totals_by_date(results)
    for date, count in plan.dead_letters.items():
        result.counts[date].dead_letters += count
    by_number = {result.number: result for result in results}
    unstored = [batch for batch in batches if not (batch.number in by_number and by_number[batch.number].is_whole)]
    failure = f"{len(unstored)} of {len(batches)} batches were not stored" if unstored else None
    causes: dict[dt.date, str] = {}
    for batch in unstored:
        partial = by_number.get(batch.number)
        causes.update(dict.fromkeys(partial.failed_dates if partial else batch.dates, failure or ""))
        causes.update(partial.date_failures if partial else {})
    with record_failure(conn, plan.attempt):
        sign = signer(settings.seal_key_file)
        require_whole_source(client, settings.key_prefix)
        proof = verify(client, conn, Claim(plan.scopes, batches, result, plan.attempt), settings, plan.now)
        _add_failures(proof, causes)
        for report in proof.reports:
            report.lowered = plan.lowered.get(report.date)
        ledger.finish(conn, plan.attempt, proof.reports, clock.now())
        if plan.source is not None:
            remember_servers(conn, plan.source.servers, plan.now)
    try:
        proof.seals = seal_dates(conn, proof.reports, plan.run_id, _sealed_since(plan, settings), sign)
        if plan.is_sweep:
            proof.audit = audit_daily(conn, plan.now, settings)
    finally:
        # The verdicts stand, whatever becomes of the seals.
        if on_proof is not None:
            on_proof(proof)
        _log_verdicts(proof)
    if proof.regressed_count:
        log.warning(
            f"{proof.regressed_count:,} counter(s) are lower in Redis than in PostgreSQL, or were: "
            f"{_named(proof.regressed, proof.regressed_count)}. The stored values stay; each is an open "
            "counter_regressed in usage_dead_letter and waits for a decision. "
            f"To see them: {PROGRAM} dead-letters --reason {Reason.COUNTER_REGRESSED}",
            regressed=proof.regressed_count,
        )
    _log_end(proof, len(unstored))
    if proof.failing_count:
        has_vanished = any(found.stored is None and found.now is None for found in proof.failing)
        kind = UsageVanished if has_vanished else UsageMismatch
        raise kind([str(difference) for difference in proof.failing], proof.failing_count)
    if unstored:
        raise BatchesNotStored(len(unstored), len(batches))
    with transaction(conn):
        conn.execute(query("delete_readings"), {"run_id": plan.run_id, "attempt": plan.attempt_number})
    return proof


def _sealed_since(plan: Plan, settings: Settings) -> dt.date:
    """From which date on a run looks for what an earlier one verified and did not seal. Once a day further back."""
    today = local_date(plan.now, settings)
    oldest = oldest_kept(today, settings)
    return min(oldest, today - dt.timedelta(days=settings.audit_days)) if plan.is_sweep else oldest


def _add_failures(proof: Proof, causes: Mapping[dt.date, str]) -> None:
    """Enter into the reports why dates are not proven: their own keys, or a part of the run that failed."""
    for report in proof.reports:
        lines = [str(difference) for difference in proof.failing if difference.key.date == report.date]
        report.error = "\n".join(lines[: UsageMismatch.SHOWN]) or report.remark
        if report.date in causes:
            report.error = report.error or causes[report.date]
            if report.verdict.is_good:
                report.verdict, report.complete = DateVerdict.NOT_PROVEN, False


def _log_verdicts(proof: Proof) -> None:
    for report in proof.reports:
        remark = "" if report.remark is None else f"; {report.remark}"
        write = log.info if report.verdict.is_good else log.warning
        write(
            f"{report.name}: {report.verdict}, {report.totals}{remark}",
            # Airflow's log view shows nothing in place of True and False.
            **report.to_json() | {"settled": "yes" if report.settled else "no"},
        )


def _named(some: Sequence[Difference], count: int) -> str:
    """A few counters by name, and how many more there are."""
    named = "; ".join(map(str, some[:MAX_NAMED]))
    return named if count <= MAX_NAMED else f"{named}; and {count - MAX_NAMED:,} more"


def _log_end(proof: Proof, missing: int) -> None:
    """The last line of a run. An error is a counter, or a bad key, that was not brought over as it should be."""
    records = sum(report.counts.read for report in proof.reports)
    dead = sum(max(report.counts.dead_letters, report.turned_bad) for report in proof.reports)
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


@dataclass(frozen=True, slots=True)
class Failures:
    """Why which merchants, and which dates whoever the merchant, could not be stored."""

    merchants: dict[str, str] = field(default_factory=dict)
    dates: dict[dt.date, str] = field(default_factory=dict)


def store_all(
    client: RedisClient,
    conn: Connection,
    plan: Plan,
    batches: Sequence[Batch],
    settings: Settings,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[list[BatchResult], Failures]:
    """Store batches one after the other, each read from Redis while the one before it is being stored.

    Returns their results, and what went wrong with some of them.
    """
    results: list[BatchResult] = []
    failures = Failures()
    open_keys = dead_letters.open_keys(conn, [scope.date for scope in plan.scopes])
    with ReaderAhead(client, settings.key_prefix, batches, open_keys) as reader:
        for done, batch in enumerate(batches, start=1):
            result = store_batch(client, conn, batch, plan.run_id, settings, reader)
            results.append(result)
            failures.merchants.update(result.failures)
            failures.dates.update(result.date_failures)
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
    plan, batches = scan(client, conn, run, settings, in_process=True)
    with record_failure(conn, plan.attempt):
        results, failures = store_all(client, conn, plan, batches, settings, on_batch)
    try:
        return prove(client, conn, plan, batches, results, settings)
    except (RunIncomplete, UsageMismatch):
        if failures.merchants:
            raise UpsertFailed(failures.merchants) from None
        if failures.dates:
            raise DatesNotStored(failures.dates) from None
        raise
