"""Where the tests of the DAG depend on Airflow's version."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

AIRFLOW_3: bool = AIRFLOW_V_3_0_PLUS

if AIRFLOW_3:
    from airflow.sdk.exceptions import ParamValidationError as ParamValidationError
else:
    from airflow.exceptions import ParamValidationError as ParamValidationError


def dag_bag(folder: str | Path) -> Any:
    """All DAGs of a folder."""
    if AIRFLOW_3:
        from airflow.dag_processing.dagbag import DagBag

        return DagBag(folder, bundle_path=Path(folder))
    from airflow.models.dagbag import DagBag as DagBagOf2

    return DagBagOf2(folder, include_examples=False)


def triggered(at: str | None) -> dict[str, dt.datetime]:
    """What makes dag.test() run what was triggered at this moment, instead of now."""
    return {"run_after" if AIRFLOW_3 else "execution_date": dt.datetime.fromisoformat(at)} if at else {}


@contextmanager
def made_scheduled(start: str) -> Iterator[None]:
    """What dag.test() makes meanwhile is a run of the scheduler, of the hour from this moment on."""
    place, name = ("dagrun", "get_or_create_dagrun") if AIRFLOW_3 else ("dag", "_get_or_create_dagrun")
    module = import_module(f"airflow.models.{place}")
    create = getattr(module, name)

    def create_scheduled(*, session: Any, **arguments: Any) -> Any:
        begin = dt.datetime.fromisoformat(start)
        created = create(session=session, **arguments)
        created.run_type = "scheduled"
        created.data_interval_start, created.data_interval_end = begin, begin + dt.timedelta(hours=1)
        session.commit()
        return created

    with patch.object(module, name, create_scheduled):
        yield


@contextmanager
def named_last(task_id: str) -> Iterator[None]:
    """The database names this task last of a run's. It may: nothing orders them."""
    from airflow.models.dagrun import DagRun

    fetch = DagRun.fetch_task_instances

    def fetch_in_order(*args: Any, **kwargs: Any) -> list[Any]:
        return sorted(fetch(*args, **kwargs), key=lambda ti: ti.task_id == task_id)

    with patch.object(DagRun, "fetch_task_instances", fetch_in_order):
        yield


def start_metrics() -> None:
    """Make Airflow read its [metrics] settings anew, as each process of a task does when it starts."""
    if AIRFLOW_3:
        from airflow.sdk import configuration
        from airflow.sdk.observability import stats
        from airflow.sdk.observability.metrics import stats_utils

        legacy = configuration.conf.getboolean("metrics", "legacy_names_on")
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=legacy)
        return
    stats_of_2: Any = import_module("airflow.stats").Stats
    stats_of_2.instance = None
    del type(stats_of_2).factory
    type(stats_of_2).__init__(stats_of_2)


def end_metrics() -> None:
    """What Airflow 3 does when a task's process ends. On 2.11 that is left to us."""
    from opentelemetry.metrics import get_meter_provider

    if AIRFLOW_3 and (flush := getattr(get_meter_provider(), "force_flush", None)):
        flush()
