"""What Airflow calls when a run has ended or is late. None of these raises: the run's own result stands."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec

from merchant_usage import clock
from merchant_usage.alerts.alert import Alert
from merchant_usage.alerts.register import Told, Unsent
from merchant_usage.log import Log
from merchant_usage.orchestration.alerts import delivery, runs, store
from merchant_usage.orchestration.alerts.runs import DagRunFacts
from merchant_usage.orchestration.alerts.slack_webhook import NotSent
from merchant_usage.orchestration.compat import runs_ended_at, set_up_logging
from merchant_usage.orchestration.connections import PAGERDUTY_CONN_ID, has_connection
from merchant_usage.settings import Settings, load_settings

set_up_logging()
log = Log(__name__)

Given = ParamSpec("Given")


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
    with store.memory([alert.key], now) as memory:
        told = memory.register.raise_alert(alert, now)
        call = memory.register.is_failing() and not memory.register.has_incident()
    _send(told, now)
    if call and has_connection(PAGERDUTY_CONN_ID):
        _open_incident(alert, now)


@_never_raises
def notify_success(context: Any) -> None:
    """Tell that runs are verified again, if there was an alert. Called once a successful run, in the DAG processor."""
    now = clock.now()
    run_id = str(context.get("run_id") or context["dag_run"].run_id)
    told = None
    with store.memory([], now) as memory:
        register, conn = memory.register, memory.conn
        if conn is None or not (dates := runs.proven_dates(conn, run_id)):
            return
        entries = register.recover(now)
        if any(entry.told for entry in entries):
            told = register.raise_alert(runs.recovered(run_id, dates, entries, conn), now)
        incident = register.has_incident()
    _send(told, now)
    if incident and has_connection(PAGERDUTY_CONN_ID):
        _close_incident(run_id, now)


@_never_raises
def notify_late(dag_run: Mapping[str, Any]) -> None:
    """Tell that a run is late (Airflow 3.3: its deadline has passed). Called in a thread of the triggerer.

    Args:
        dag_run: as the API shows it.
    """

    def moment(name: str) -> dt.datetime | None:
        value = dag_run.get(name)
        return dt.datetime.fromisoformat(value) if isinstance(value, str) else value

    _tell_late(
        DagRunFacts(
            dag_run["dag_run_id"] if "dag_run_id" in dag_run else dag_run["run_id"],
            str(dag_run["run_type"]),
            dag_run.get("conf") or {},
            moment("data_interval_start"),
            moment("data_interval_end"),
            str(dag_run["state"]),
            moment("run_after"),
        ),
        load_settings(),
        clock.now(),
    )


@_never_raises
def notify_sla_miss(dag: Any, _tasks: str, _blocking: str, slas: list[Any], *_: Any) -> None:
    """Tell that runs are late (Airflow 2.11, in its DAG processor).

    An SLA miss bears the logical date of the run *after* the one that is missed: the end of the missed run's interval.
    """
    settings, now = load_settings(), clock.now()
    for ended_at in sorted({sla.execution_date for sla in slas}):
        unknown = DagRunFacts(None, runs.SCHEDULED, {}, ended_at - settings.interval, ended_at)
        if unknown.is_old(settings, now):
            continue
        known = [
            DagRunFacts(
                run.run_id, str(run.run_type), run.conf or {}, run.data_interval_start, ended_at, str(run.state)
            )
            for run in runs_ended_at(dag.dag_id, ended_at)
        ]
        for run in known or [unknown]:
            _tell_late(run, settings, now)


def _tell_late(run: DagRunFacts, settings: Settings, now: dt.datetime) -> None:
    if run.is_old(settings, now) or run.state in {"success", "failed"}:
        log.info(f"Run {run.run_id} is late, but nobody waits for it: {run.run_type}, {run.state}")
        return
    log.warning(f"Run {run.run_id} is late")
    key = runs.late(run, settings, now).key
    with store.memory([key], now) as memory:
        told = memory.register.raise_alert(runs.late(run, settings, now, memory.conn), now)
    _send(told, now)


def _send(told: Told | None, now: dt.datetime) -> None:
    """Send one message; if that fails, note that nobody was told."""
    if told is None:
        log.info("Slack was told before, or often enough")
    elif unsent := delivery.send([told]) if delivery.has_slack() else [Unsent(told.alert.key)]:
        with store.memory([told.alert.key], now) as memory:
            memory.register.unsent(unsent, now)


def _open_incident(alert: Alert, now: dt.datetime) -> None:
    from merchant_usage.orchestration.alerts import pagerduty  # takes a second to import, and is seldom needed

    details = {"what": alert.what, "run": alert.run_id}
    try:
        pagerduty.trigger(f"Usage runs keep failing: {alert.error}", details, alert.link)
    except NotSent as error:
        log.warning(f"PagerDuty could not be told that runs keep failing: {error}")
        return
    log.info("Told PagerDuty that runs keep failing")
    with store.memory([], now) as memory:
        memory.register.set_incident(now, is_open=True)


def _close_incident(run_id: str, now: dt.datetime) -> None:
    from merchant_usage.orchestration.alerts import pagerduty

    try:
        pagerduty.resolve(f"Run {run_id} is verified")
    except NotSent as error:
        log.warning(f"PagerDuty could not be told that runs are verified again: {error}")
        return
    log.info("Told PagerDuty that runs are verified again")
    with store.memory([], now) as memory:
        memory.register.set_incident(now, is_open=False)
