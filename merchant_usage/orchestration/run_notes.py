"""The note of a run in the UI: its verdicts and totals at a glance, without opening a log.

verify_usage leaves the text in XCom, also when it fails; the scheduler, which alone may write notes, makes it the
run's note when the run ends. Of a run that did not come so far the note is its first error.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.orm import Session, object_session

from merchant_usage.model.report import DateReport, DateVerdict
from merchant_usage.orchestration.alerts.failure_notes import FAILURE_KEY, TASK_IDS
from merchant_usage.orchestration.compat import pushed

log = logging.getLogger(__name__)

TASK_ID: Final = "verify_usage"
NOTE_KEY: Final = "note"
#: More is no glance any more. With the largest numbers there are, Airflow's 1000 characters hold five lines.
DATES_SHOWN: Final = 5


def told_verdict(report: DateReport, oldest: dt.date) -> str:
    """The verdict of a date. Of one older than what Redis keeps nobody knows any more whether it was empty."""
    if report.verdict is DateVerdict.EMPTY and report.date < oldest:
        return f"{report.verdict} (older than what Redis keeps: its usage, if any, expired before it was stored)"
    return str(report.verdict)


def describe_dates(reports: Sequence[DateReport], oldest: dt.date) -> str:
    """A line a date.

    Args:
        oldest: whose keys Redis may still have.
    """
    lines = [
        f"{report.date} {told_verdict(report, oldest)}: "
        f"Redis {report.redis_total:,}, PostgreSQL {report.postgres_total:,} "
        f"({counts.inserted:,} new, {counts.updated:,} raised, {counts.dead_letters:,} dead letters)"
        for report, counts in ((report, report.counts) for report in reports)
    ]
    if len(lines) > DATES_SHOWN:
        lines[DATES_SHOWN:] = [f"and {len(lines) - DATES_SHOWN} more dates"]
    # A blank line between: the UI shows Markdown.
    return "\n\n".join(lines)


def note_of(session: Session, dag_run: Any) -> str:
    """What verify_usage left; else the error of the first task that left one. A process that was killed leaves none."""
    if said := pushed(session, dag_run, TASK_ID, NOTE_KEY):
        return str(said)
    for task_id in TASK_IDS:
        if failure := pushed(session, dag_run, task_id, FAILURE_KEY):
            return f"Not verified, {task_id} failed: {failure['error']}"
    return "Not verified: verify_usage came to no verdict."


def leave_note(dag_run: Any) -> None:
    """Write what verify_usage left as the note of its run, in the scheduler's transaction. Never raises.

    What a person has written there stays.
    """
    try:
        session = object_session(dag_run)
        # `airflow dags backfill` on 2.11 ends runs that it has detached; those get no note.
        if session is None or (dag_run.dag_run_note is not None and dag_run.dag_run_note.user_id is not None):
            return
        dag_run.note = note_of(session, dag_run)
    except Exception:
        # In the scheduler: a note is not worth one of its loops.
        log.exception("The run %s has no note", dag_run.run_id)
