"""What the end of a verification tells: numbers for the message about a run that fails, and other bad news at once."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import Context
from psycopg import Connection

from merchant_usage import clock
from merchant_usage.alerts.collect import damage_of_proof, failing_dates, gather, take_back
from merchant_usage.log import Log
from merchant_usage.model.run import Plan
from merchant_usage.model.verdict import Proof
from merchant_usage.orchestration.alerts import delivery, failure_notes
from merchant_usage.settings import Settings
from merchant_usage.source.counters import RedisClient

log = Log(__name__)


def tell_proof(
    client: RedisClient, conn: Connection[Any], proof: Proof, plan: Plan, context: Context, settings: Settings
) -> None:
    """Tell what a verification found. Never raises: the run's own result stands."""
    try:
        if dates := failing_dates(proof):
            failure_notes.leave_damage(context, damage_of_proof(proof), dates)
        if not delivery.has_slack():
            return
        news = gather(client, conn, proof, plan.scopes, plan.run_id, settings, clock.now())
        if unsent := delivery.send(news.told):
            take_back(conn, news, unsent)
    except Exception as error:  # noqa: BLE001 - an alert never hurts the work
        log.warning(f"Bad news could not be told: {type(error).__name__}")
