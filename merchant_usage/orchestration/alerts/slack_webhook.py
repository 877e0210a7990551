"""Posts to Slack by the connection `usage_slack`, within a few seconds or not at all, and never tells its address."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from http.client import IncompleteRead
from typing import Any, Final

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook

from merchant_usage.orchestration.alerts.circuit_breaker import CircuitOpen, TimedOut, circuit_breaker, with_timeout
from merchant_usage.orchestration.connections import SLACK_CONN_ID

#: What all attempts at one message may take together. The DAG processor and the tasks have other work.
BUDGET_SECONDS: Final = 5.0
# Slack answers in well under a second.
ATTEMPT_SECONDS: Final = 3.0
#: Of the time that is left, what an answer is awaited for. So who runs out of all of it never had a connection: the
#: name could not be looked up, or several addresses were tried.
ANSWER_SHARE: Final = 0.6
#: Waited before the second attempt, if Slack does not say how long.
PAUSE_SECONDS: Final = 0.5
TOO_MANY: Final = 429
SERVER_ERROR: Final = 500

# The client tells failures by itself, and some of them with the address, which is the webhook's secret.
_silent = logging.Logger("slack, silenced", level=logging.CRITICAL + 1)  # noqa: LOG001 - in no hierarchy, on purpose


class NotSent(Exception):
    """A message could not be sent. The text says why and holds no secret."""


class Unanswered(NotSent):
    """A message was sent whole, and got no answer: it may have arrived."""


def post(body: Mapping[str, Any], budget: float = BUDGET_SECONDS) -> None:
    """Post one message.

    A 429 is obeyed and a 5xx tried once more, if the budget allows.

    Args:
        body: as `merchant_usage.alerts.slack_message.render` makes it.
        budget: seconds that it may take in all.

    Raises:
        NotSent: it was not.
        Unanswered: it may have been.
    """
    ends = time.monotonic() + budget
    try:
        client = SlackWebhookHook(slack_webhook_conn_id=SLACK_CONN_ID, retry_handlers=[], logger=_silent).client
        with circuit_breaker(client.url):
            _attempts(client, body, ends)
    except NotSent:
        raise
    except CircuitOpen:
        raise NotSent("Slack did not answer a moment ago, and is left alone for a while") from None
    except TimedOut:
        raise NotSent(f"Slack did not answer within {budget:.0f} s") from None
    except AirflowNotFoundException:
        raise NotSent(f"there is no usable connection {SLACK_CONN_ID}") from None
    except Exception as error:  # noqa: BLE001 - whatever the client raises
        # The type alone: the text of an error may hold the webhook's address, which is its secret.
        raise NotSent(f"{type(error).__name__} on the way to Slack") from None


def _attempts(client: Any, body: Mapping[str, Any], ends: float) -> None:
    for last in (False, True):
        if (left := ends - time.monotonic()) <= 0:
            raise NotSent("there was no time left for it")
        answer = _attempt(client, body, left)
        if answer.status_code == 200:
            return
        pause = _pause(answer.status_code, answer.headers)
        if last or pause is None:
            raise NotSent(f"Slack answered {answer.status_code}")
        if time.monotonic() + pause >= ends:
            raise NotSent(f"Slack answered {answer.status_code} and asks for {pause:.0f} s of patience")
        time.sleep(pause)


def _attempt(client: Any, body: Mapping[str, Any], seconds: float) -> Any:
    """Slack's answer. What goes wrong before the request is out is a URLError, says urllib, and nothing else is."""
    client.timeout = min(ATTEMPT_SECONDS, seconds * ANSWER_SHARE)
    try:
        return with_timeout(seconds, lambda: client.send_dict(dict(body)))
    except TimeoutError:
        raise Unanswered(f"Slack did not answer within {client.timeout:.1f} s, but may have the message") from None
    except (ConnectionError, IncompleteRead) as error:
        raise Unanswered(f"Slack did not answer ({type(error).__name__}), but may have the message") from None


def _pause(status: int, headers: Mapping[str, Any]) -> float | None:
    """Seconds before another attempt makes sense; None if none does."""
    if status == TOO_MANY:
        try:
            return max(0.0, float(headers.get("Retry-After", PAUSE_SECONDS)))
        except ValueError:
            return None
    return PAUSE_SECONDS if status >= SERVER_ERROR else None
