"""Where the tests of the DAG depend on Airflow's version."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any
from unittest.mock import patch

from merchant_usage.orchestration.compat import FLUSHES_METRICS, HAS_TASK_SDK
from merchant_usage.settings import DAG_ID, DECISIONS_DAG_ID

AIRFLOW_3: bool = HAS_TASK_SDK
#: Whether a process can read its settings of metrics again. On 3.1 and 3.2 it cannot; what is sent there is not tested.
METRICS_BEGIN_ANEW: bool = not HAS_TASK_SDK or (
    FLUSHES_METRICS and hasattr(import_module("airflow.sdk.observability.stats"), "initialize")
)

#: Our DAGs: the second one asks people, which began with 3.1.
DAGS: set[str] = {DAG_ID, DECISIONS_DAG_ID} if HAS_TASK_SDK else {DAG_ID}

try:
    from airflow.sdk.exceptions import ParamValidationError as ParamValidationError
except ImportError:
    from airflow.exceptions import ParamValidationError as ParamValidationError


def dag_bag(folder: str | Path) -> Any:
    """All DAGs of a folder."""
    try:
        module = import_module("airflow.dag_processing.dagbag")
    except ImportError:
        module = import_module("airflow.models.dagbag")
    choices = {"include_examples": False, "bundle_path": Path(folder)}
    taken = signature(module.DagBag).parameters
    return module.DagBag(folder, **{name: value for name, value in choices.items() if name in taken})


def keep_api_server() -> None:
    """Let all tasks of dag.test() ask one API server in this process, as on 3.3; before that each made its own."""
    if AIRFLOW_3:
        module = import_module("airflow.sdk.execution_time.supervisor")
        module.in_process_api_server = cache(module.in_process_api_server)  # type: ignore[attr-defined]


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


def asset_events(session: Any, dag_run: Any) -> list[dict[str, Any]]:
    """The asset events of a run: of which asset, of which partition, and what they hold."""
    module = import_module(f"airflow.models.{'asset' if AIRFLOW_3 else 'dataset'}")
    model = module.AssetEvent if AIRFLOW_3 else module.DatasetEvent
    found = session.query(model).filter_by(source_dag_id=dag_run.dag_id, source_run_id=dag_run.run_id)
    assets = {asset.id: asset.name for asset in session.query(module.AssetModel)} if AIRFLOW_3 else {}
    return [
        {
            "asset": assets.get(event.asset_id) if AIRFLOW_3 else None,
            "partition": getattr(event, "partition_key", None),
            "extra": event.extra,
        }
        for event in found.order_by(model.id)
    ]


def start_metrics() -> None:
    """Make Airflow read its [metrics] settings anew, as each process of a task does when it starts."""
    if METRICS_BEGIN_ANEW and HAS_TASK_SDK:
        from airflow.sdk import configuration
        from airflow.sdk.observability import stats
        from airflow.sdk.observability.metrics import stats_utils

        legacy = configuration.conf.getboolean("metrics", "legacy_names_on")
        stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=legacy)
        return
    if HAS_TASK_SDK:
        return
    stats_of_2: Any = import_module("airflow.stats").Stats
    stats_of_2.instance = None
    del type(stats_of_2).factory
    type(stats_of_2).__init__(stats_of_2)


def end_metrics() -> None:
    """What Airflow 3 does when a task's process ends. On 2.11 that is left to us."""
    from opentelemetry.metrics import get_meter_provider

    if FLUSHES_METRICS and (flush := getattr(get_meter_provider(), "force_flush", None)):
        flush()
