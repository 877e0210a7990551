"""What Airflow calls when a run has ended or is late. None of these raises: the run's own result stands."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from typing import Any, Final, ParamSpec

from merchant_usage import clock
from merchant_usage.alerts.alert import Alert
from merchant_usage.alerts.register import FailedDelivery, Notification
from merchant_usage.log import Log
from merchant_usage.model.run import SCHEDULED
from merchant_usage.orchestration.alerts import delivery, runs, store
from merchant_usage.orchestration.alerts.slack_webhook import NotSent
from merchant_usage.orchestration.compat import runs_ended_at, set_up_logging, states_of_run
from merchant_usage.orchestration.connections import PAGERDUTY_CONN_ID, has_connection
from merchant_usage.orchestration.dag_runs import DagRunFacts
from merchant_usage.settings import DAG_ID, Settings, load_settings

set_up_logging()
log = Log(__name__)

Given = ParamSpec("Given")

#: Of a run.
ENDED: Final = frozenset({"success", "failed"})
#: Of a task whose attempt failed: a retry follows, or the end of its run.
FAILED_SO_FAR: Final = frozenset({"up_for_retry", "failed", "upstream_failed"})


def _never_raises(callback: Callable[Given, None]) -> Callable[Given, None]:
    @wraps(callback)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> None:
        try:
            callback(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - an alert never hurts the work
            # The type alone: the text of an error may hold an address that is a secret.
            log.warning(f"Bad news could not be told: {type(error).__name__}", callback=callback.__name__)

    return called


@_never_raises
def notify_failure(context: Any) -> None:
    """Tell that a run failed. Called once a failed run, in the DAG processor."""
    now = clock.now()
    alert = runs.failed(context, load_settings(), now)
    log.info(f"Run {alert.run_id} failed: {alert.error}")
    with store.alert_store([alert.key], now) as alerts:
        notification = alerts.register.raise_alert(alert, now)
        call = alerts.register.is_failing() and not alerts.register.has_incident()
    _send(notification, now)
    if call and has_connection(PAGERDUTY_CONN_ID):
        _open_incident(alert, now)


@_never_raises
def notify_success(context: Any) -> None:
    """Tell that runs are verified again, if there was an alert. Called once a successful run, in the DAG processor."""
    now = clock.now()
    run_id = str(context.get("run_id") or context["dag_run"].run_id)
    notification = None
    with store.alert_store([], now) as alerts:
        register, conn = alerts.register, alerts.conn
        if conn is None or not (dates := runs.proven_dates(conn, run_id)):
            return
        entries = register.recover(now)
        if any(entry.sent for entry in entries):
            notification = register.raise_alert(runs.recovered(run_id, dates, entries, conn), now)
        incident = register.has_incident()
    _send(notification, now)
    if incident and has_connection(PAGERDUTY_CONN_ID):
        _close_incident(run_id, now)


@_never_raises
def notify_late(dag_run: Mapping[str, Any]) -> None:
    """Tell that a run is late (Airflow 3.3: its deadline has passed). Called in a thread of the triggerer.

    Args:
        dag_run: as the API shows it.
    """
    run = DagRunFacts.from_api(dag_run)
    state, _ = _states(run)
    _notify_late(replace(run, state=state or run.state), load_settings(), clock.now())


def is_told_at_its_end(dag_run: Mapping[str, Any]) -> bool:
    """Whether a run that is late needs no telling yet: it waits for a retry, or is about to fail, which is told.

    Args:
        dag_run: as the API shows it.
    """
    with suppress(Exception):
        return _has_failed_so_far(DagRunFacts.from_api(dag_run))
    return False


@_never_raises
def notify_sla_miss(dag: Any, _tasks: str, _blocking: str, slas: list[Any], *_: Any) -> None:
    """Tell that runs are late (Airflow 2.11, in its DAG processor).

    An SLA miss bears the logical date of the run *after* the one that is missed: the end of the missed run's interval.
    """
    settings, now = load_settings(), clock.now()
    for ended_at in sorted({sla.execution_date for sla in slas}):
        unknown = DagRunFacts(None, SCHEDULED, {}, ended_at - settings.interval, ended_at)
        if unknown.is_old(settings, now):
            continue
        known = [DagRunFacts.of(dag_run) for dag_run in runs_ended_at(dag.dag_id, ended_at)]
        for run in known or [unknown]:
            if _has_failed_so_far(run):
                log.info(f"Run {run.run_id} is late, and something of it has failed: its end is told")
            else:
                _notify_late(run, settings, now)


def _states(run: DagRunFacts) -> tuple[str, set[str]]:
    """The states of a run and of its tasks by now; nothing where Airflow cannot be asked."""
    with suppress(Exception):
        if run.run_id is not None:
            return states_of_run(DAG_ID, run.run_id)
    return "", set()


def _has_failed_so_far(run: DagRunFacts) -> bool:
    state, of_tasks = _states(run)
    return state not in ENDED and not of_tasks.isdisjoint(FAILED_SO_FAR)


def _notify_late(run: DagRunFacts, settings: Settings, now: dt.datetime) -> None:
    if run.is_old(settings, now) or run.state in ENDED:
        log.info(f"Run {run.run_id} is late, but nobody waits for it: {run.run_type}, {run.state}")
        return
    log.warning(f"Run {run.run_id} is late: {run.state or 'not begun'}")
    key = runs.late(run, settings, now).key
    with store.alert_store([key], now) as alerts:
        notification = alerts.register.raise_alert(runs.late(run, settings, now, alerts.conn), now)
    _send(notification, now)


def _send(notification: Notification | None, now: dt.datetime) -> None:
    """Send one message; if that fails, note that nobody was told."""
    if notification is None:
        log.info("Slack was told before, or often enough")
    elif unsent := delivery.send([notification]) if delivery.has_slack() else [FailedDelivery(notification.alert.key)]:
        with store.alert_store([notification.alert.key], now) as alerts:
            alerts.register.unsent(unsent, now)


def _open_incident(alert: Alert, now: dt.datetime) -> None:
    from merchant_usage.orchestration.alerts import pagerduty  # takes a second to import, and is seldom needed

    details = {"what": alert.what, "run": alert.run_id}
    summary = f"Usage runs keep failing: {alert.error}"
    _page(lambda: pagerduty.trigger(summary, details, alert.link), "runs keep failing", now, is_open=True)


def _close_incident(run_id: str, now: dt.datetime) -> None:
    from merchant_usage.orchestration.alerts import pagerduty

    _page(lambda: pagerduty.resolve(f"Run {run_id} is verified"), "runs are verified again", now, is_open=False)


def _page(send: Callable[[], None], news: str, now: dt.datetime, *, is_open: bool) -> None:
    """Tell PagerDuty, and remember whether its incident is open; if it cannot be told, the next run tries again."""
    try:
        send()
    except NotSent as error:
        log.warning(f"PagerDuty could not be told that {news}: {error}")
        return
    log.info(f"Notified PagerDuty that {news}")
    with store.alert_store([], now) as alerts:
        alerts.register.set_incident(now, is_open=is_open)
