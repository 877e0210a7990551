"""What registers with Airflow: a run's note in the UI when the scheduler ends it, and what 2.11 needs patched.

An installed package registers it by its entry point, a checkout by plugins/usage.py.
"""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Any

from airflow.listeners import hookimpl

from merchant_usage.orchestration.compat import patch_backfill, patch_callbacks
from merchant_usage.orchestration.names import SCAN_TASK_ID
from merchant_usage.orchestration.sdk import AirflowPlugin
from merchant_usage.settings import DAG_ID


@hookimpl
def on_dag_run_running(dag_run: Any, msg: str) -> None:
    """Refuse what would never work."""
    del msg
    if dag_run.dag_id == DAG_ID:
        from merchant_usage.orchestration.refusals import refuse

        refuse(dag_run)


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """Say what was proven."""
    _leave_note(dag_run, msg)


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """Say what was refuted, or that nothing was proven."""
    _leave_note(dag_run, msg)


def _leave_note(dag_run: Any, msg: str) -> None:
    if dag_run.dag_id == DAG_ID:
        from merchant_usage.orchestration.run_notes import leave_note

        # What Airflow says where a person, and not the scheduler, has ended the run.
        leave_note(dag_run, by_hand="manually" in msg)


class UsagePlugin(AirflowPlugin):
    """Registers the functions above."""

    name = "usage"
    listeners: list[object] = [sys.modules[__name__]]  # noqa: RUF012 - Airflow declares it so

    @classmethod
    def on_load(cls, *_: Any, **__: Any) -> None:
        """Patch 2.11. Airflow calls this in each process that uses plugins; importing the module changes nothing."""
        patch_backfill()
        patch_callbacks(DAG_ID, SCAN_TASK_ID)


def folder_plugin() -> type[UsagePlugin] | None:
    """The plugin for a plugins folder; None where the entry point of an installed package registers it.

    Airflow 3 takes the second plugin of a name for an import error, and shows that in the UI.
    """
    try:
        metadata.distribution("merchant-usage")
    except metadata.PackageNotFoundError:
        return UsagePlugin
    return None
