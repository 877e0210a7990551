"""Alerts about whole runs: failed, late, recovered."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import Connection

from merchant_usage.alerts.alert import Alert, Damage, Kind, told_dates
from merchant_usage.alerts.collect import rerun_command
from merchant_usage.alerts.register import Entry
from merchant_usage.errors import SettingsError
from merchant_usage.model.dates import dates_of_interval, dates_of_range
from merchant_usage.model.report import DateVerdict
from merchant_usage.orchestration.alerts import failure_notes
from merchant_usage.orchestration.compat import asked_at, run_url
from merchant_usage.settings import DAG_ID, Settings
from merchant_usage.sink import ledger
from merchant_usage.sink.queries import query

SCHEDULED: Final = "scheduled"
BACKFILL: Final = "backfill"
#: A callback comes this much after its moment at most, if all is well.
SLACK_TIME: Final = dt.timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class DagRunFacts:
    """What the two versions of Airflow both know of a run. `run_id` is None for one that has not begun."""

    run_id: str | None
    run_type: str
    conf: Mapping[str, Any]
    interval_start: dt.datetime | None
    interval_end: dt.datetime | None
    state: str = ""
    asked_at: dt.datetime | None = None

    @classmethod
    def of(cls, dag_run: Any, run_id: str) -> DagRunFacts:
        """Of Airflow's object; of None, what little is known."""
        run_type = getattr(dag_run, "run_type", "")
        return cls(
            run_id,
            str(getattr(run_type, "value", run_type)),
            getattr(dag_run, "conf", None) or {},
            getattr(dag_run, "data_interval_start", None),
            getattr(dag_run, "data_interval_end", None),
            asked_at=asked_at(dag_run),
        )

    def dates(self, settings: Settings, now: dt.datetime) -> tuple[dt.date, ...]:
        """The dates that it handles; none if its conf is the very error."""
        from_date, to_date = self.conf.get("from_date"), self.conf.get("to_date")
        if self.run_type in {SCHEDULED, BACKFILL} and self.interval_start and not (from_date or to_date):
            return tuple(dates_of_interval(self.interval_start, now, settings))
        try:
            return tuple(dates_of_range(from_date, to_date, now, settings, asked_at=self.asked_at))
        except (SettingsError, TypeError):
            return ()

    def rerun_command(self, dates: Sequence[dt.date]) -> str | None:
        """What to type to do the same again for dates: for its merchants only, and dry if it was."""
        merchants, dry = self.conf.get("merchant_ids"), {"dry_run": True} if self.conf.get("dry_run") is True else {}
        if not merchants or not isinstance(merchants, list) or not all(isinstance(each, str) for each in merchants):
            return rerun_command(dates, **dry)
        return rerun_command(dates, merchant_ids=merchants, **dry)

    def is_old(self, settings: Settings, now: dt.datetime) -> bool:
        """Whether it catches up with the past, so that nobody waits for it."""
        if self.run_type == BACKFILL:
            return True
        if self.run_type != SCHEDULED or self.interval_end is None:
            return False
        deadline = dt.timedelta(seconds=settings.deadline_seconds)
        return now - self.interval_end > settings.interval + deadline + SLACK_TIME


def failed(context: Mapping[str, Any], settings: Settings, now: dt.datetime) -> Alert:
    """A run that failed, from the context of the DAG's failure callback."""
    dag_run, ti = context.get("dag_run"), context.get("ti") or context.get("task_instance")
    run_id = str(context.get("run_id") or getattr(dag_run, "run_id", "unknown run"))
    failures: list[failure_notes.Failure] = []
    damage = Damage()
    dates: tuple[dt.date, ...] = ()
    if ti is not None:
        with suppress(Exception):  # without them it is a poorer message, but a message
            failures = failure_notes.failures_of(ti)
            damage, dates = failure_notes.damage_of(ti)
    run = DagRunFacts.of(dag_run, run_id)
    # Of a sweep of many dates those that are wrong; all, if it did not come so far.
    dates = dates or run.dates(settings, now)
    is_mismatch = bool(failures) and failures[0].task_id == failure_notes.VERIFY_TASK_ID and damage.counters > 0
    named = told_dates(dates) or run_id
    cause = failures[0] if failures else None
    where = f" in {_tasks(failures)}" if failures else ""
    return Alert(
        Kind.MISMATCH if is_mismatch else Kind.FAILED,
        f"run {run_id}",
        f"PostgreSQL does not hold what Redis holds: {named}" if is_mismatch else f"Usage run failed: {named}",
        f"Run {run_id} failed{where}. Nothing was lowered or counted twice, and it can be repeated at any time.",
        dates,
        damage,
        error=cause.error if cause else str(context.get("reason") or "no task says why"),
        advice=(
            "Find out who else writes merchant_usage. Then clear upsert_merchant_usage with its downstream tasks, or "
            "aggregate again:"
            if is_mismatch
            else "Mend what the error names. Then clear the red task with its downstream tasks (a click behind the "
            "link), or aggregate again:"
        ),
        command=run.rerun_command(dates),
        link=(f"Log of {cause.task_id}", cause.log_url) if cause else ("The run in Airflow", run_url(DAG_ID, run_id)),
        run_id=run_id,
    )


def late(run: DagRunFacts, settings: Settings, now: dt.datetime, conn: Connection | None = None) -> Alert:
    """A run that takes too long."""
    dates = run.dates(settings, now)
    name = (
        f"Run {run.run_id}" if run.run_id else f"The run for the interval that ended {run.interval_end:%Y-%m-%d %H:%M}"
    )
    so_far = f"is still {run.state or 'not over'}" if run.run_id else "has not even begun"
    return Alert(
        Kind.LATE,
        f"late {run.run_id or run.interval_end}",
        f"Usage run is late: {told_dates(dates)}",
        f"{name} {so_far} after more than {settings.deadline_seconds:,} s.{_last_verified(conn, settings, now)}",
        dates,
        advice="See what it waits for: a task that is retried (its log says why), or a scheduler without free slots. "
        "The counters wait in Redis meanwhile.",
        link=("The run in Airflow", run_url(DAG_ID, run.run_id)) if run.run_id else None,
        run_id=run.run_id,
    )


def recovered(run_id: str, dates: Sequence[dt.date], entries: Sequence[Entry], conn: Connection) -> Alert:
    """The first verified run after an alert."""
    runs = [entry.run_id for entry in entries if entry.kind.is_failure and entry.run_id]
    since = min(entry.raised_at for entry in entries)
    rows = conn.execute(query("select_unproven_dates"), {"run_ids": runs}).fetchall()
    unproven = [date for (date,) in rows]
    late_count = sum(entry.kind is Kind.LATE for entry in entries)
    counts = [f"{len(runs):,} failed" if runs else "", f"{late_count:,} late" if late_count else ""]
    left = f" Not proven since: {told_dates(unproven)}." if unproven else ""
    return Alert(
        Kind.RECOVERED,
        f"recovered {since.isoformat()}",
        f"Usage runs are verified again: {told_dates(dates)}",
        f"Run {run_id} is verified, the first since {since:%Y-%m-%d %H:%M} UTC; runs meanwhile: "
        f"{', '.join(filter(None, counts))}.{left}",
        tuple(dates),
        advice="Aggregate what is not proven:" if unproven else "",
        command=rerun_command(unproven),
        link=("The run in Airflow", run_url(DAG_ID, run_id)),
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
            minutes = int((now - until).total_seconds()) // 60
            return f" Usage is verified up to {until:%Y-%m-%d %H:%M} UTC, {minutes:,} minutes ago."
        return " No run was verified yet."
    return ""


def _tasks(failures: Sequence[failure_notes.Failure]) -> str:
    """The red tasks; a mapped one counts."""
    counts = {task_id: sum(f.task_id == task_id for f in failures) for task_id in failure_notes.TASK_IDS}
    return ", ".join(f"{task_id} ({n} tasks)" if n > 1 else task_id for task_id, n in counts.items() if n)
