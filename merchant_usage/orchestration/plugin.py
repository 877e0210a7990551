"""What registers with Airflow: a run's note when the scheduler ends it, the usage page, and what 2.11 needs patched.

An installed package registers it by its entry point, a checkout by plugins/usage.py.
"""

from __future__ import annotations

import asyncio
import sys
from importlib import metadata
from threading import Lock
from typing import Any, Final

from airflow.listeners import hookimpl

from merchant_usage.orchestration.compat import SHOWS_PAGES, patch_backfill, patch_callbacks
from merchant_usage.orchestration.names import PAGE_NAME, PAGE_PATH, SCAN_TASK_ID
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


class UsagePage:
    """The usage page as Airflow mounts it. It is made when somebody first asks for it.

    Every process that works on a task loads plugins, and none of them needs what the page is made of.
    """

    def __init__(self) -> None:
        self._app: Any = None
        self._lock = Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        app = self._app or await asyncio.to_thread(self._made)
        await app(scope, receive, send)

    def _made(self) -> Any:
        with self._lock:
            if self._app is None:
                from merchant_usage.orchestration.page import make_app

                self._app = make_app()
            return self._app


_VIEW: Final[dict[str, Any]] = {
    "name": PAGE_NAME,
    # Relative, as Airflow's own addresses are, so that a proxy may put a path before them.
    "href": f"{PAGE_PATH}/",
    "icon": f"{PAGE_PATH}/static/usage.svg",
    "nav_top_level": True,
}


class UsagePlugin(AirflowPlugin):
    """Registers the functions above, and the page where Airflow's UI shows any."""

    name = "usage"
    listeners: list[object] = [sys.modules[__name__]]  # noqa: RUF012 - Airflow declares them so
    fastapi_apps: list[dict[str, Any]] = (
        [{"name": PAGE_NAME, "app": UsagePage(), "url_prefix": f"/{PAGE_PATH}"}] if SHOWS_PAGES else []
    )
    external_views: list[dict[str, Any]] = (
        [
            {**_VIEW, "destination": "nav", "url_route": PAGE_PATH},
            # Up to 3.3 a view of DAGs is shown with each of them. Later ones read to which it applies.
            {**_VIEW, "destination": "dag", "url_route": f"{PAGE_PATH}-dag", "applies_to": {"dag_id": [DAG_ID]}},
        ]
        if SHOWS_PAGES
        else []
    )

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
