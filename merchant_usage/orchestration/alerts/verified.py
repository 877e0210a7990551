"""What the end of a verification tells: numbers for the message about a run that fails, and other bad news at once."""

from __future__ import annotations

from dataclasses import replace
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
from merchant_usage.orchestration.remedies import rerun_command
from merchant_usage.orchestration.seal_export import alert_of_export, export_seals
from merchant_usage.settings import Settings
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
        if unsent := delivery.send(map(with_command, pending.notifications)):
            mark_unsent(conn, pending, unsent)
    except Exception as error:  # noqa: BLE001 - an alert never hurts the work
        log.warning(f"Bad news could not be told: {type(error).__name__}")


def with_command(notification: Notification) -> Notification:
    """With what to type, if it is about a date that has to be aggregated again."""
    alert = notification.alert
    if alert.kind is not AlertKind.ABOUT_TO_EXPIRE:
        return notification
    return replace(notification, alert=replace(alert, command=rerun_command(alert.dates)))
