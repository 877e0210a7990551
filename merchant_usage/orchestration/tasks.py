"""The body of each task: open the connections, call one function of `merchant_usage`, return a small value."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from airflow.providers.common.compat.sdk import AirflowSkipException, Asset, Context

from merchant_usage import clock, pipeline
from merchant_usage.errors import RunIncomplete, SettingsError
from merchant_usage.log import Log
from merchant_usage.model.batches import Batch
from merchant_usage.model.dates import dates_of_interval, dates_of_range, is_settled, local_date, oldest_kept
from merchant_usage.model.keys import CounterKey, shown, why_no_merchant_id
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.run import Plan, Run
from merchant_usage.model.verdict import Proof
from merchant_usage.orchestration import metrics
from merchant_usage.orchestration.alerts.failure_notes import failure_noted
from merchant_usage.orchestration.compat import asked_at, set_up_logging
from merchant_usage.orchestration.connections import airflow_errors, usage_postgres, usage_redis
from merchant_usage.orchestration.run_notes import NOTE_KEY, describe_dates, told_verdict
from merchant_usage.settings import Settings
from merchant_usage.sink import ledger, schema
from merchant_usage.steps import preview
from merchant_usage.steps import scan as scan_step
from merchant_usage.steps.cleanup import Cleaned, TimeToLive, delete_stale, inspect_ttl
from merchant_usage.steps.store import BatchResult
from merchant_usage.tables import describe, describe_preview

set_up_logging()
log = Log(__name__)

SCHEDULED: Final = "scheduled"
BACKFILL: Final = "backfill"
ONE_DAY: Final = dt.timedelta(days=1)
#: Where scan_usage leaves its plan for the tasks after it.
SCAN_TASK_ID: Final = "scan_usage"
PLAN_KEY: Final = "plan"
#: Names a batch, and the scan that dealt it, to the result of storing it.
BATCH_ID: Final = "id"
#: Where in XCom scan_usage leaves what a batch names. Airflow hands each mapped task the whole list that it is mapped
#: over, so the list has only what tells the batches apart.
BATCH_KEY: Final = "key"
PARAM_NAMES: Final = ("from_date", "to_date", "merchant_ids", "dry_run")


def requested_run(context: Context, settings: Settings, now: dt.datetime) -> Run:
    """What this DAG run is asked to do: its Params if they name dates, else its data interval, else the day before it.

    Raises:
        SettingsError: a Param that cannot be used.
    """
    dag_run: Any = context["dag_run"]
    params: Any = context["params"]
    if unknown := sorted(set(params) - set(PARAM_NAMES)):
        # Passing over a misspelt merchant_ids or dry_run would do more than was asked for.
        raise SettingsError(f"There is no Param {', '.join(map(repr, unknown))}; a run takes {', '.join(PARAM_NAMES)}.")
    run_type = str(getattr(dag_run.run_type, "value", dag_run.run_type))
    from_date, to_date = params.get("from_date") or None, params.get("to_date") or None
    start = context.get("data_interval_start")
    by_interval = run_type in {SCHEDULED, BACKFILL} and start is not None and not (from_date or to_date)
    if by_interval and start is not None:
        dates = dates_of_interval(start, now, settings)
    else:
        dates = dates_of_range(from_date, to_date, now, settings, asked_at=asked_at(dag_run))
    return Run(dag_run.run_id, run_type, tuple(dates), now, _merchants(params.get("merchant_ids")))


def _merchants(given: Any) -> tuple[str, ...] | None:
    if given is None or given == []:
        return None
    takes = 'it takes a list of merchant ids, e.g. ["acme"], or [] for all'
    if not isinstance(given, list | tuple) or not all(isinstance(merchant, str) for merchant in given):
        raise SettingsError(f"merchant_ids={given!r} cannot be used; {takes}.")
    # A blank line in the trigger form is an empty id here.
    merchants = sorted({merchant for merchant in given if merchant})
    if not merchants:
        raise SettingsError(f"merchant_ids={given!r} names no merchant; {takes}.")
    for merchant in merchants:
        if problem := why_no_merchant_id(merchant):
            raise SettingsError(f"merchant_ids: {shown(merchant)} {problem}; {takes}.")
    return tuple(merchants)


@metrics.delivered()
def scan(context: Context, settings: Settings) -> list[dict[str, Any]]:
    """Find the keys of this run's dates; returns a line a batch to store, leaves the plan and each batch in XCom."""
    with failure_noted(context), airflow_errors():
        run = requested_run(context, settings, clock.now())
        plan: dict[str, Any]
        batches: list[Batch]
        with usage_redis() as client, usage_postgres() as conn:
            schema.check(conn)
            metrics.lag(conn, settings)
            if run.run_type == SCHEDULED and set(run.dates) <= ledger.sealed_dates(conn, run.run_id, run.dates):
                told = ", ".join(map(str, run.dates))
                plan, batches = {"nothing_to_do": f"{told}: verified by an earlier run, over and settled"}, []
                log.info(f"Nothing to do for {told}: sealed", dates=told)
            elif context["params"].get("dry_run"):
                proof = preview.preview(client, conn, run, settings)
                log.info(describe_preview(proof))
                told = f"this was a dry run; {proof.failing_count:,} counter(s) would be stored"
                if proof.regressed_count:
                    told += f", {proof.regressed_count:,} went backwards"
                plan, batches = {"nothing_to_do": told}, []
            else:
                with metrics.phase("scan"):
                    scanned, batches = scan_step.scan(client, conn, run, settings)
                metrics.scanned(batches)
                plan = scanned.to_xcom()
    context["ti"].xcom_push(key=PLAN_KEY, value=plan)
    return [_leave(batch, n, context, f"{run.now.isoformat()} {n}") for n, batch in enumerate(batches)]


def _leave(batch: Batch, number: int, context: Context, batch_id: str) -> dict[str, Any]:
    """Leave a batch in XCom for the task that stores it; returns what the others need to know of it."""
    key = f"batch_{number}"
    context["ti"].xcom_push(key=key, value=batch.to_xcom())
    dates = [date.isoformat() for date in batch.dates]
    return {"name": batch.name, "dates": dates, "counters": batch.key_count, BATCH_ID: batch_id, BATCH_KEY: key}


def _take(batch: dict[str, Any], context: Context) -> Batch:
    """The batch that scan_usage left.

    Raises:
        RunIncomplete: it is not there any more.
    """
    left = context["ti"].xcom_pull(task_ids=SCAN_TASK_ID, key=batch[BATCH_KEY])
    if left is None:
        raise RunIncomplete("What scan_usage found is no longer in XCom: clear scan_usage with its downstream tasks.")
    return Batch.from_xcom(left)


@metrics.delivered()
def store(batch: dict[str, Any], context: Context, settings: Settings) -> dict[str, Any]:
    """Store one batch; returns what it did, in numbers."""
    with (
        failure_noted(context),
        airflow_errors(),
        metrics.phase("upsert"),
        usage_redis() as client,
        usage_postgres() as conn,
    ):
        result = pipeline.store(client, conn, _take(batch, context), context["dag_run"].run_id or "", settings)
    metrics.stored(result)
    return {**result.to_xcom(), BATCH_ID: batch[BATCH_ID]}


def results_of(batches: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]]) -> list[BatchResult]:
    """The results of these batches, one each at most.

    A run that is cleared may be dealt into fewer batches than before. Airflow then keeps the results of mapped tasks
    that are no more, and they would stand in for those of batches that were not stored.
    """
    wanted = {batch[BATCH_ID] for batch in batches}
    found = {result[BATCH_ID]: result for result in results if result[BATCH_ID] in wanted}
    return [BatchResult.from_xcom(result) for result in found.values()]


def made_exact(plan: Plan, now: dt.datetime, settings: Settings) -> Plan:
    """The plan of a verification that is cleared days later: a date that was live then has long been over.

    A day late, so that a run over the moment at which a date settles is not held to what it could not read yet.
    """
    scopes = (
        replace(scope, settled=scope.settled or is_settled(scope.date, now - ONE_DAY, settings))
        for scope in plan.scopes
    )
    return replace(plan, scopes=tuple(scopes))


@metrics.delivered()
def verify(
    batches: Sequence[dict[str, Any]] | None,
    results: Sequence[dict[str, Any]] | None,
    context: Context,
    settings: Settings,
    asset: Asset,
) -> list[dict[str, Any]]:
    """Prove the run; returns a report for each date, which is also the asset event's metadata.

    Raises:
        AirflowSkipException: there was nothing to do or nothing in Redis: nothing was proven, no asset event is due.
        AirflowFailException: the run is refuted, or cannot be proven because a part of it failed.
    """
    # Slack's client takes its time to import, and the other tasks do without it.
    from merchant_usage.orchestration.alerts.verified import tell_proof

    with failure_noted(context), airflow_errors():
        # Pulled here: as an argument of the task a missing plan would be an error of Airflow's, retried for minutes.
        plan: dict[str, Any] | None = context["ti"].xcom_pull(task_ids=SCAN_TASK_ID, key=PLAN_KEY)
        if plan is None:
            raise RunIncomplete("scan_usage did not finish, so there is nothing to verify: see its log.")
        if "nothing_to_do" in plan:
            context["ti"].xcom_push(key=NOTE_KEY, value=f"Nothing to verify: {plan['nothing_to_do']}.")
            raise AirflowSkipException(f"Nothing to verify: {plan['nothing_to_do']}.")
        # One request for all; iterating asks for one at a time, and logs an error at the end.
        stored = results_of(batches or (), (results or ())[:])
        now = clock.now()
        prepared = made_exact(Plan.from_xcom(plan), now, settings)
        oldest = oldest_kept(local_date(now, settings), settings)
        with metrics.phase("verify"), usage_redis() as client, usage_postgres() as conn:

            def tell(proof: Proof) -> None:
                log.info(describe(proof))
                context["ti"].xcom_push(key=NOTE_KEY, value=describe_dates(proof.reports, oldest))
                metrics.proved(conn, proof, settings)
                tell_proof(client, conn, proof, prepared, context, settings)

            proof = pipeline.prove(
                client,
                conn,
                prepared,
                [_take(batch, context) for batch in batches or ()],
                stored,
                settings,
                on_proof=tell,
            )
    reports: list[Any] = [report.as_metadata() for report in proof.reports]
    if all(report.verdict in {DateVerdict.EMPTY, DateVerdict.SOURCE_EXPIRED} for report in proof.reports):
        told = ", ".join(f"{report.date} is {told_verdict(report, oldest)}" for report in proof.reports)
        raise AirflowSkipException(f"There was nothing in Redis to verify: {told}. Rows stay as they are.")
    context["outlet_events"][asset].extra.update({"run_id": plan["run_id"], "dates": reports})
    return reports


@metrics.delivered()
def delete(
    batches: Sequence[dict[str, Any]], reports: Sequence[dict[str, Any]], context: Context, settings: Settings
) -> dict[str, int]:
    """Delete keys past the retention whose date this run verified, if that is switched on.

    In any case look at the keys that should expire soon: some may have no TTL, and some may not be stored.
    """
    today = local_date(clock.now(), settings)
    oldest = oldest_kept(today, settings)
    verified = {
        dt.date.fromisoformat(report["date"]) for report in reports if report["verdict"] == DateVerdict.VERIFIED
    }
    last = oldest + ONE_DAY
    stale = [date for date in verified if date < oldest]
    old = [batch for batch in batches if dt.date.fromisoformat(min(batch["dates"])) <= last]
    cleaned, ttl = Cleaned(), TimeToLive()

    def keys() -> Iterator[CounterKey]:
        """Batch by batch, so that no more than one is held: there may be a million."""
        return (key for batch in old for key in _take(batch, context).counter_keys() if key.date <= last)

    if old:
        with (
            failure_noted(context),
            airflow_errors(),
            metrics.phase("delete"),
            usage_redis() as client,
            usage_postgres() as conn,
        ):
            if settings.delete_stale_keys:
                cleaned = delete_stale(client, conn, keys(), stale, settings.key_prefix)
            ttl = inspect_ttl(client, conn, keys(), settings.key_prefix)
    log.info(
        f"Deleted {cleaned.deleted} stale keys, left {cleaned.kept}"
        if settings.delete_stale_keys
        else "Clean-up is off (USAGE_DELETE_STALE_KEYS=false): nothing is deleted from Redis",
        deleted=cleaned.deleted,
        kept=cleaned.kept,
    )
    if ttl.without:
        log.warning(f"{ttl.without} keys have no TTL: {', '.join(ttl.examples_without)}", without_ttl=ttl.without)
    if ttl.expiring:
        log.warning(
            f"{ttl.expiring} keys expire within a day and are not stored: {', '.join(ttl.examples_expiring)}",
            expiring=ttl.expiring,
        )
    return {"deleted": cleaned.deleted, "kept": cleaned.kept, "without_ttl": ttl.without, "expiring": ttl.expiring}
