"""Sends what is to be told, and says in the log what could not be."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from merchant_usage.alerts.register import FailedDelivery, Notification
from merchant_usage.alerts.slack_message import render
from merchant_usage.log import Log
from merchant_usage.orchestration.alerts import slack_webhook
from merchant_usage.orchestration.connections import SLACK_CONN_ID, has_connection

log = Log(__name__)

#: All messages of one occasion together: nothing waits longer than this for Slack.
BUDGET_SECONDS: Final = slack_webhook.BUDGET_SECONDS


def has_slack() -> bool:
    """Whether there is a connection to tell Slack by; says so if not."""
    if has_connection(SLACK_CONN_ID):
        return True
    log.info(f"Slack is told nothing: there is no connection {SLACK_CONN_ID}")
    return False


def send(messages: Iterable[Notification]) -> list[FailedDelivery]:
    """Post messages. Returns those that could not be sent, or perhaps not; never raises."""
    ends = time.monotonic() + BUDGET_SECONDS
    unsent = []
    for notification in messages:
        try:
            slack_webhook.post(render(notification), ends - time.monotonic())
        except Exception as error:  # noqa: BLE001 - whatever Slack does, the run's own result stands
            why = str(error) if isinstance(error, slack_webhook.NotSent) else type(error).__name__
            log.warning(
                f"Slack could not be told: {why}. It was: {notification.alert.title}", kind=str(notification.alert.kind)
            )
            unsent.append(FailedDelivery(notification.alert.key, perhaps=isinstance(error, slack_webhook.Unanswered)))
        else:
            log.info(f"Notified Slack: {notification.alert.title}", kind=str(notification.alert.kind))
    return unsent
