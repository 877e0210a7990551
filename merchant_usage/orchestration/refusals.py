"""Runs that Airflow would take and never work on: they are red at once, and their note says why."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any, Final

from merchant_usage import clock

log = logging.getLogger(__name__)

#: The clock of somebody's browser, which fills in the form, may be so far ahead.
TOLERANCE: Final = dt.timedelta(minutes=10)
TO_DO: Final = "leave the logical date as it is, it chooses nothing here, and name the days by from_date and to_date"


def refuse(dag_run: Any) -> None:
    """Fail a run by hand whose logical date keeps its tasks from being run, in the scheduler's transaction.

    Before the DAG's start it would have no task, and be green; in the future it would wait until then. Never raises.
    """
    try:
        if why := _why_refused(dag_run):
            dag_run.set_state("failed")
            dag_run.note = f"Refused: {why}. Nothing was read or stored; {TO_DO}."
            log.warning("The run %s is refused: %s", dag_run.run_id, why)
    except Exception:
        # In the scheduler: this is not worth one of its loops.
        log.exception("It is not known whether the run %s has to be refused", dag_run.run_id)


def _why_refused(dag_run: Any) -> str | None:
    date: dt.datetime | None = dag_run.logical_date
    if str(getattr(dag_run.run_type, "value", dag_run.run_type)) != "manual" or date is None:
        return None
    start: dt.datetime | None = dag_run.get_dag().start_date
    if start is not None and date < start:
        return f"its logical date {date:%Y-%m-%d %H:%M} lies before {start:%Y-%m-%d %H:%M}, the start of this DAG"
    if date > clock.now() + TOLERANCE:
        return f"its logical date {date:%Y-%m-%d %H:%M} is still to come"
    return None
