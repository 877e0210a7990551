"""Opens and closes one incident by the connection `usage_pagerduty` (Events API v2). Never tells its key."""

from __future__ import annotations

from typing import Any, Final

import pagerduty
from airflow.providers.common.compat.sdk import BaseHook
from airflow.providers.pagerduty.hooks.pagerduty_events import PagerdutyEventsHook, prepare_event_data

from merchant_usage.orchestration.alerts.circuit_breaker import CircuitOpen, TimedOut, circuit_breaker, with_timeout
from merchant_usage.orchestration.alerts.slack_webhook import NotSent
from merchant_usage.orchestration.connections import PAGERDUTY_CONN_ID
from merchant_usage.settings import DAG_ID

#: One incident, however many runs fail: PagerDuty takes events of the same key for the same.
DEDUP_KEY: Final = f"{DAG_ID} still failing"
BUDGET_SECONDS: Final = 5.0
ATTEMPT_SECONDS: Final = 3
# PagerDuty takes no more.
MAX_SUMMARY: Final = 1024


def trigger(summary: str, details: dict[str, Any], link: tuple[str, str] | None) -> None:
    """Open the incident, or add to it.

    Raises:
        NotSent: PagerDuty was not told.
    """
    links = [{"href": link[1], "text": link[0]}] if link else None
    _send("trigger", summary[:MAX_SUMMARY], details, links)


def resolve(summary: str) -> None:
    """Close the incident.

    Raises:
        NotSent: PagerDuty was not told.
    """
    _send("resolve", summary[:MAX_SUMMARY], None, None)


def _send(action: str, summary: str, details: dict[str, Any] | None, links: list[Any] | None) -> None:
    event = prepare_event_data(
        summary, "critical", DAG_ID, custom_details=details, action=action, dedup_key=DEDUP_KEY, links=links
    )
    try:
        client = _client()
        with circuit_breaker(client.url):
            with_timeout(BUDGET_SECONDS, lambda: client.send_event(**event))
    except CircuitOpen:
        raise NotSent("PagerDuty did not answer a moment ago, and is left alone for a while") from None
    except TimedOut:
        raise NotSent(f"PagerDuty did not answer within {BUDGET_SECONDS:.0f} s") from None
    except Exception as error:  # noqa: BLE001 - whatever the client raises
        # The type alone: the text may hold what was sent, the key too.
        raise NotSent(f"{type(error).__name__} on the way to PagerDuty") from None


def _client() -> pagerduty.EventsApiV2Client:
    """The provider's client, which the hook lets nobody configure: another region, and less patience."""
    key = PagerdutyEventsHook(pagerduty_events_conn_id=PAGERDUTY_CONN_ID).integration_key
    conn: Any = BaseHook.get_connection(PAGERDUTY_CONN_ID)
    base_url = None
    if conn.host:
        host = conn.host if "://" in conn.host else f"{conn.schema or 'https'}://{conn.host}"
        base_url = f"{host}:{conn.port}" if conn.port else host
    client = pagerduty.EventsApiV2Client(key, base_url=base_url)
    client.timeout = ATTEMPT_SECONDS
    client.max_network_attempts = 0
    client.sleep_timer = 0.5
    client.retry = {429: 1, 500: 1, 502: 1, 503: 1, 504: 1}
    return client
