"""Gives runs their note in the UI when the scheduler ends them, and mends backfills and callbacks of Airflow 2.11."""

from __future__ import annotations

import sys
from typing import Any

from airflow.listeners import hookimpl
from airflow.providers.common.compat.sdk import AirflowPlugin

from merchant_usage.orchestration.compat import mend_backfill, mend_callbacks
from merchant_usage.settings import DAG_ID


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """Say what was proven."""
    del msg
    _leave_note(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """Say what was refuted, or that nothing was proven."""
    del msg
    _leave_note(dag_run)


def _leave_note(dag_run: Any) -> None:
    if dag_run.dag_id == DAG_ID:
        from merchant_usage.orchestration.run_notes import leave_note

        leave_note(dag_run)


mend_backfill()
mend_callbacks(DAG_ID, "scan_usage")


class UsagePlugin(AirflowPlugin):
    """Registers the functions above."""

    name = "usage"
    listeners: list[object] = [sys.modules[__name__]]  # noqa: RUF012 - Airflow declares it so
