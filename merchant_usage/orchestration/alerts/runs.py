"""Alerts about whole runs: failed, late, recovered."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import Connection

from merchant_usage.alerts.alert import Alert, AlertKind
from merchant_usage.alerts.register import Entry
from merchant_usage.clock import format_duration
from merchant_usage.errors import SettingsError
from merchant_usage.model.dates import format_dates
from merchant_usage.model.report import DateVerdict
from merchant_usage.orchestration.alerts import failure_notes
from merchant_usage.orchestration.alerts.failure_notes import Failure
from merchant_usage.orchestration.compat import run_url
from merchant_usage.orchestration.dag_runs import DagRunFacts
from merchant_usage.orchestration.names import TASK_IDS, UPSERT_TASK_ID
from merchant_usage.orchestration.remedies import rerun_command
from merchant_usage.settings import DAG_ID, Settings
from merchant_usage.sink import ledger
from merchant_usage.sink.queries import query

# Of each way to fail: kind, title, and what to do.
_FAILED: Final = (
    AlertKind.FAILED,
    "Usage run failed",
    "Mend what the error names. Then clear the red task with its downstream tasks (a click behind the link), or "
    "aggregate again:",
)
_MISMATCH: Final = (
    AlertKind.MISMATCH,
    "PostgreSQL does not hold what Redis holds",
    f"Find out who else writes merchant_usage. Then clear {UPSERT_TASK_ID} with its downstream tasks, or aggregate "
    "again:",
)
_REFUSED: Final = (
    AlertKind.REFUSED,
    "A usage run was refused",
    "Ask again with other arguments; nothing has to be mended.",
)


def failed(context: Mapping[str, Any], settings: Settings, now: dt.datetime) -> Alert:
    """A run that failed, from the context of the DAG's failure callback."""
    run = DagRunFacts.of(context.get("dag_run"))
    run_id = str(context.get("run_id") or run.run_id or "unknown run")
    notes = failure_notes.notes_of(context.get("ti") or context.get("task_instance"))
    # Of a sweep of many dates those that are wrong; all, if it did not come so far.
    dates = notes.dates or _dates_if_known(run, settings, now)
    if notes.cause and notes.cause.refused:
        kind, title, to_do = _REFUSED
        what = f"Run {run_id} was asked for what there is not; nothing was read or stored."
    else:
        what = (
            f"Run {run_id} failed{_where(notes.failures)}. Nothing was lowered or counted twice, and it can be "
            "repeated at any time."
        )
        kind, title, to_do = _MISMATCH if notes.is_mismatch else _FAILED
    return Alert(
        kind,
        f"run {run_id}",
        f"{title}: {format_dates(dates) or run_id}",
        what,
        dates,
        notes.discrepancy,
        error=notes.cause.error if notes.cause else str(context.get("reason") or "no task says why"),
        advice=to_do,
        command=None if kind is AlertKind.REFUSED else run.rerun_command(dates),
        link=(f"Log of {notes.cause.task_id}", notes.cause.log_url) if notes.cause else _link(run_id),
        run_id=run_id,
    )


def late(run: DagRunFacts, settings: Settings, now: dt.datetime, conn: Connection | None = None) -> Alert:
    """A run that takes too long."""
    dates = _dates_if_known(run, settings, now)
    name = (
        f"Run {run.run_id}" if run.run_id else f"The run for the interval that ended {run.interval_end:%Y-%m-%d %H:%M}"
    )
    so_far = f"is still {run.state or 'not over'}" if run.run_id else "has not even begun"
    return Alert(
        AlertKind.LATE,
        f"late {run.run_id or run.interval_end}",
        f"Usage run is late: {format_dates(dates)}",
        f"{name} {so_far} after more than {settings.deadline_seconds:,} s.{_last_verified(conn, settings, now)}",
        dates,
        advice="See what it waits for: a task that hangs (its log says where), or a scheduler without free slots. "
        "The counters wait in Redis meanwhile.",
        link=_link(run.run_id) if run.run_id else None,
        run_id=run.run_id,
    )


def recovered(run_id: str, dates: Sequence[dt.date], entries: Sequence[Entry], conn: Connection) -> Alert:
    """The first verified run after an alert."""
    runs = [entry.run_id for entry in entries if entry.kind.is_failure and entry.run_id]
    since = min(entry.raised_at for entry in entries)
    rows = conn.execute(query("select_unproven_dates"), {"run_ids": runs}).fetchall()
    unproven = [date for (date,) in rows]
    late_count = sum(entry.kind is AlertKind.LATE for entry in entries)
    counts = [f"{len(runs):,} failed" if runs else "", f"{late_count:,} late" if late_count else ""]
    left = f" Not proven since: {format_dates(unproven)}." if unproven else ""
    return Alert(
        AlertKind.RECOVERED,
        f"recovered {since.isoformat()}",
        f"Usage runs are verified again: {format_dates(dates)}",
        f"Run {run_id} is verified, the first since {since:%Y-%m-%d %H:%M} UTC; runs meanwhile: "
        f"{', '.join(filter(None, counts))}.{left}",
        tuple(dates),
        advice="Aggregate what is not proven:" if unproven else "",
        command=rerun_command(unproven),
        link=_link(run_id),
        run_id=run_id,
    )


def proven_dates(conn: Connection, run_id: str) -> list[dt.date]:
    """The dates that a run over all merchants verified; none if it had nothing to verify."""
    rows = ledger.run(conn, run_id)
    return [row["usage_date"] for row in rows if row["verdict"] == DateVerdict.VERIFIED and row["merchant_ids"] is None]


def _last_verified(conn: Connection | None, settings: Settings, now: dt.datetime) -> str:
    if conn is None:
        return ""
    with suppress(psycopg.Error), conn.transaction():
        if newest := ledger.newest_verified(conn):
            until = newest.verified_until(settings)
            return f" Usage is verified up to {until:%Y-%m-%d %H:%M} UTC, {format_duration(now - until)} ago."
        return " No run was verified yet."
    return ""


def _dates_if_known(run: DagRunFacts, settings: Settings, now: dt.datetime) -> tuple[dt.date, ...]:
    """The dates that a run handles; none if its Params are the very error."""
    try:
        return run.dates(settings, now)
    except (SettingsError, TypeError):
        return ()


def _link(run_id: str) -> tuple[str, str]:
    return "The run in Airflow", run_url(DAG_ID, run_id)


def _where(failures: Sequence[Failure]) -> str:
    """The red tasks; a mapped one counts."""
    counts = {task_id: sum(failure.task_id == task_id for failure in failures) for task_id in TASK_IDS}
    named = ", ".join(f"{task_id} ({n} tasks)" if n > 1 else task_id for task_id, n in counts.items() if n)
    return f" in {named}" if named else ""
