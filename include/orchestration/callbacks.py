"""Bad news: one Slack message a failed run."""

from __future__ import annotations

from typing import Any

import structlog
from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook

from include.orchestration.compat import set_up_logging
from include.orchestration.connections import SLACK_CONN_ID, has_connection

set_up_logging()
log = structlog.get_logger(__name__)

# Slack answers in well under a second; an alert must never hold up the DAG processor.
SLACK_TIMEOUT_SECONDS = 5


def notify_failure(context: Any) -> None:
    """Tell Slack that a run failed, if the connection `usage_slack` exists. Never raises.

    Called by Airflow once a failed run (a callback of the DAG, not of its tasks), in the DAG processor.
    """
    dag_run = context.get("dag_run")
    run_id = getattr(dag_run, "run_id", "unknown run")
    try:
        if not has_connection(SLACK_CONN_ID):
            log.warning(f"Run {run_id} failed; no message was sent: there is no connection {SLACK_CONN_ID}")
            return
        hook = SlackWebhookHook(slack_webhook_conn_id=SLACK_CONN_ID, timeout=SLACK_TIMEOUT_SECONDS)
        hook.send(
            text=(
                f"usage_aggregation failed: run {run_id} ({context.get('reason') or 'a task failed'}). No counter was "
                "lowered or counted twice; open the run's red task for the cause."
            )
        )
        log.info(f"Told Slack that run {run_id} failed")
    except Exception as error:  # noqa: BLE001 - whatever Slack does, the run's own result stands
        # The type alone: the text of an HTTP error may hold the webhook's address, which is its secret.
        log.warning(f"Run {run_id} failed, and Slack could not be told: {type(error).__name__}")


def notify_sla_miss(*missed: Any) -> None:
    """Tell that runs are late (Airflow 2.11 calls this in its scheduler). Never raises."""
    log.warning(f"Late: {missed[1]}")
