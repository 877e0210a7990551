"""The body of each task: open the connections, call one function of the engine, return a small value."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from airflow.providers.common.compat.sdk import AirflowSkipException, Asset, Context
from psycopg import Connection

from merchant_usage import clock, pipeline
from merchant_usage.log import Log
from merchant_usage.model.batches import Batch
from merchant_usage.model.dates import format_dates, local_date, oldest_kept
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.run import Plan, Run
from merchant_usage.model.verdict import Proof
from merchant_usage.orchestration import handover, metrics
from merchant_usage.orchestration.alerts.failure_notes import failure_noted, without_frames
from merchant_usage.orchestration.compat import set_up_logging
from merchant_usage.orchestration.connections import airflow_errors, usage_postgres, usage_redis
from merchant_usage.orchestration.handover import NothingToDo
from merchant_usage.orchestration.names import SCAN_TASK_ID
from merchant_usage.orchestration.requests import requested_run
from merchant_usage.orchestration.run_notes import describe_dates, format_verdict, push_note, with_seals
from merchant_usage.orchestration.sealed_days import SealedDays, tell_days
from merchant_usage.settings import Settings
from merchant_usage.sink import schema
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.cleanup import CleanUp, OldDates, clean_up, log_clean_up
from merchant_usage.steps.clocks import require_right_clock
from merchant_usage.steps.due import due_dates
from merchant_usage.steps.preview import preview
from merchant_usage.steps.scan import scan
from merchant_usage.steps.seal import sealed_anew
from merchant_usage.steps.signature import signer
from merchant_usage.steps.store import store_batch
from merchant_usage.tables import describe, describe_preview

set_up_logging()
log = Log(__name__)

#: Where a dry run's answer is.
ANSWER: Final = f"The log of {SCAN_TASK_ID} has them."


@without_frames
@metrics.delivered()
def scan_usage(context: Context, settings: Settings) -> list[dict[str, Any]]:
    """Find the keys of this run's dates; returns a line a batch to store, leaves the plan and each batch in XCom."""
    with failure_noted(context), airflow_errors():
        run = requested_run(context, settings, clock.now())
        with usage_redis() as client, usage_postgres() as conn:
            require_right_clock(client, conn)
            schema.check(conn)
            metrics.lag(conn, settings)
            plan, batches = _begin(client, conn, run, settings, dry_run=bool(context["params"].get("dry_run")))
    handover.push_plan(context, plan)
    return handover.push_batches(context, batches, run.now)


def _begin(
    client: RedisClient, conn: Connection, run: Run, settings: Settings, *, dry_run: bool
) -> tuple[Plan | NothingToDo, list[Batch]]:
    """Scan, if there is anything to do."""
    dates = due_dates(conn, run, settings)
    if not dates:
        done = format_dates(run.dates)
        log.info(f"Nothing to do for {done}: sealed, or verified past this interval", dates=done)
        return NothingToDo(f"{done}: verified by an earlier run"), []
    run = replace(run, dates=dates)
    if dry_run:
        proof = preview(client, conn, run, settings)
        log.info(describe_preview(proof))
        lower = f", {proof.regressed_count:,} went backwards" if proof.regressed_count else ""
        return NothingToDo(
            f"this was a dry run; {proof.failing_count:,} counter(s) would be stored{lower}. {ANSWER}"
        ), []
    with metrics.phase("scan"):
        plan, batches = scan(client, conn, run, settings)
    metrics.scanned(batches)
    return plan, batches


@without_frames
@metrics.delivered()
def upsert_merchant_usage(batch: dict[str, Any], context: Context, settings: Settings) -> dict[str, Any]:
    """Store one batch; returns what it did, in numbers."""
    with (
        failure_noted(context),
        airflow_errors(),
        metrics.phase("upsert"),
        usage_redis() as client,
        usage_postgres() as conn,
    ):
        named = handover.pull_batch(context, batch)
        result = store_batch(client, conn, named, context["dag_run"].run_id or "", settings)
        if not result.is_whole:
            handover.push_partial_result(context, batch, result)
        pipeline.raise_failures(result)
    metrics.stored(result)
    return handover.result_to_json(batch, result)


@without_frames
@metrics.delivered()
def verify_usage(
    batches: Sequence[dict[str, Any]] | None,
    results: Sequence[dict[str, Any]] | None,
    context: Context,
    settings: Settings,
    assets: Sequence[Asset],
) -> list[dict[str, Any]]:
    """Prove the run; returns a report for each date. Those of proven dates are the asset event's metadata, too.

    Args:
        assets: the one of all runs; where Airflow has partitions, after it the one that gets them.

    Raises:
        AirflowSkipException: there was nothing to do or nothing in Redis: nothing was proven, no asset event is due.
        AirflowFailException: the run is refuted, or cannot be proven because a part of it failed.
    """
    with failure_noted(context), airflow_errors():
        left = handover.pull_plan(context)
        if isinstance(left, NothingToDo):
            said = f"Nothing to verify: {left.why.removesuffix('.')}."
            push_note(context["ti"], said)
            raise AirflowSkipException(said)
        plan = left.resettled(clock.now(), settings)
        # One request for all; iterating asks for one at a time, and logs an error at the end.
        whole = (results or ())[:]
        stored = handover.results_of(batches or (), [*handover.pull_partial_results(context), *whole])
        with metrics.phase("verify"), usage_redis() as client, usage_postgres() as conn:
            require_right_clock(client, conn)
            sealed = SealedDays(conn, [scope.date for scope in plan.scopes], settings) if assets[1:] else None
            proof = pipeline.prove(
                client,
                conn,
                plan,
                [handover.pull_batch(context, batch) for batch in batches or ()],
                stored,
                settings,
                on_proof=lambda proof: _announce(client, conn, proof, plan, context, settings),
            )
            untold = sealed.untold(assets[1]) if sealed is not None else {}
    if proof.is_void:
        oldest = _oldest_kept(settings)
        found = ", ".join(f"{report.name}: {format_verdict(report, oldest)}" for report in proof.reports)
        raise AirflowSkipException(f"There was nothing in Redis to verify: {found}. Rows stay as they are.")
    _offer(context, assets[0], proof, plan.run_id)
    for asset in assets[1:]:
        _offer_days(context, asset, untold)
    return [report.to_json() for report in proof.reports]


def _offer(context: Context, asset: Asset, proof: Proof, run_id: str) -> None:
    """Let the event of the asset hold the dates that are proven for all merchants; without any, none is sent.

    Whoever waits for the asset takes its event for the proof.
    """
    proven: list[Any] = [report.to_json() for report in proof.reports if report.is_proven_whole]
    if proven:
        checkpoints: list[Any] = [seal.to_json() for seal in proof.seals]
        context["outlet_events"][asset].extra.update({"run_id": run_id, "dates": proven, "seals": checkpoints})
        return
    log.info("No date is verified over all merchants: no asset event is sent")
    _withdraw(context, asset)


def _offer_days(context: Context, asset: Asset, sealed: Mapping[dt.date, int]) -> None:
    """Let the asset have a partition for each of the dates; without any, no event is sent."""
    if sealed:
        tell_days(context["outlet_events"][asset], sealed)
    else:
        _withdraw(context, asset)


def _withdraw(context: Context, asset: Asset) -> None:
    """Send no event of an asset. Airflow sends one for each that stands here when the task ends, come what may."""
    task: Any = context["ti"].task
    task.outlets = [outlet for outlet in task.outlets if outlet != asset]


def _announce(
    client: RedisClient, conn: Connection, proof: Proof, plan: Plan, context: Context, settings: Settings
) -> None:
    """Let log, note, metrics and Slack have what a verification found, good or bad."""
    # Slack's client takes its time to import, and the other tasks do without it.
    from merchant_usage.orchestration.alerts.verified import notify_proof

    log.info(describe(proof))
    push_note(context["ti"], with_seals(describe_dates(proof.reports, _oldest_kept(settings)), proof.seals))
    metrics.proved(conn, proof, settings)
    notify_proof(client, conn, proof, plan, context, settings)


def _oldest_kept(settings: Settings) -> dt.date:
    return oldest_kept(local_date(clock.now(), settings), settings)


@without_frames
@metrics.delivered()
def delete_stale_keys(
    batches: Sequence[dict[str, Any]], reports: Sequence[dict[str, Any]], context: Context, settings: Settings
) -> dict[str, int]:
    """Delete keys past the retention whose date this run verified, if that is switched on.

    In any case look at the keys that should expire soon: some may have no TTL, and some may not be stored.
    """
    verified = [dt.date.fromisoformat(each["date"]) for each in reports if each["verdict"] == DateVerdict.VERIFIED]
    dates = OldDates.of(verified, clock.now(), settings)
    old = [batch for batch in batches if dates.are_among(handover.dates_of(batch))]

    def keys() -> Iterator[CounterKey]:
        """Batch by batch, so that no more than one is held: there may be a million."""
        return (key for batch in old for key in handover.pull_batch(context, batch).counter_keys())

    done = CleanUp()
    if old:
        with (
            failure_noted(context),
            airflow_errors(),
            metrics.phase("delete"),
            usage_redis() as client,
            usage_postgres() as conn,
        ):
            stale = dates.stale if settings.delete_stale_keys else ()
            with sealed_anew(conn, stale, context["dag_run"].run_id or "", signer(settings.seal_key_file)):
                done = clean_up(client, conn, keys, dates, settings)
    log_clean_up(done, settings)
    if not settings.delete_stale_keys:
        raise AirflowSkipException("Clean-up is off: nothing is deleted unless USAGE_DELETE_STALE_KEYS is true.")
    return done.to_json()
