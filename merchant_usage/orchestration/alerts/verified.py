"""What the end of a verification tells: numbers for the message about a run that fails, and other bad news at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import Context
from psycopg import Connection

from merchant_usage import clock
from merchant_usage.alerts.alert import AlertKind
from merchant_usage.alerts.collect import discrepancy_of_proof, failing_dates, gather, gather_risks, mark_unsent
from merchant_usage.alerts.register import Notification
from merchant_usage.alerts.seals import gather_seals
from merchant_usage.log import Log
from merchant_usage.model.run import Plan
from merchant_usage.model.verdict import Proof
from merchant_usage.orchestration.alerts import delivery, failure_notes
from merchant_usage.orchestration.compat import ASKS_PEOPLE, dag_url
from merchant_usage.orchestration.remedies import rerun_command
from merchant_usage.orchestration.seal_export import alert_of_export, export_seals
from merchant_usage.settings import DECISIONS_DAG_ID, Settings
from merchant_usage.source.shards import RedisClient

log = Log(__name__)


def notify_proof(
    client: RedisClient, conn: Connection[Any], proof: Proof, plan: Plan, context: Context, settings: Settings
) -> None:
    """Tell what a verification found. Never raises: the run's own result stands."""
    try:
        unwritten = export_seals(conn, proof.seals, plan, settings)
        if dates := failing_dates(proof):
            failure_notes.leave_discrepancy(context, discrepancy_of_proof(proof), dates)
        if not delivery.has_slack():
            return
        pending = gather(client, conn, proof, plan.scopes, plan.run_id, settings, clock.now())
        pending.notifications += gather_risks(conn, plan.source, plan.run_id, pending.taken_at)
        pending.notifications += gather_seals(conn, proof.audit, plan.run_id, pending.taken_at)
        if settings.seal_export:
            pending.notifications += alert_of_export(conn, unwritten, plan.run_id, pending.taken_at)
        place = place_of_answers(context)
        told = [with_link(with_command(each), place) for each in pending.notifications]
        if unsent := delivery.send(told):
            mark_unsent(conn, pending, unsent)
    except Exception as error:  # noqa: BLE001 - an alert never hurts the work
        log.warning(f"Bad news could not be told: {type(error).__name__}")


def place_of_answers(context: Context) -> str | None:
    """Where in Airflow people can answer, if the DAG that asks them lies beside this one."""
    here = getattr(context.get("dag"), "fileloc", None)
    if not ASKS_PEOPLE or here is None or not Path(here).with_name(f"{DECISIONS_DAG_ID}.py").is_file():
        return None
    return dag_url(DECISIONS_DAG_ID)


def with_link(notification: Notification, place: str | None) -> Notification:
    """With where to answer, if it is about counters that wait for a decision."""
    if place is None or notification.alert.kind is not AlertKind.COUNTER_REGRESSED:
        return notification
    return replace(notification, alert=replace(notification.alert, link=("Decide in Airflow", place)))


def with_command(notification: Notification) -> Notification:
    """With what to type, if it is about a date that has to be aggregated again."""
    alert = notification.alert
    if alert.kind is not AlertKind.ABOUT_TO_EXPIRE:
        return notification
    return replace(notification, alert=replace(alert, command=rerun_command(alert.dates)))
