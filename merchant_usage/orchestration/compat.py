"""What differs between versions of Airflow, asked for by what they can do. All else comes from `common.compat.sdk`.

Read when the DAG is parsed: nothing here imports a driver or a hook before it is needed.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, TypedDict
from urllib.parse import quote

from merchant_usage.log import Level, Say, find_by
from merchant_usage.model.run import SCHEDULED
from merchant_usage.orchestration.sdk import AirflowPlugin, Asset, BaseOperator
from merchant_usage.settings import Settings

if TYPE_CHECKING:
    from airflow.providers.postgres.hooks.postgres import PostgresHook
    from sqlalchemy.orm import Session

#: Whether tasks live in processes of a kind of their own that reach Airflow's database by an API alone (3.0+).
HAS_TASK_SDK: Final = find_spec("airflow.sdk") is not None


def _has(module: str) -> bool:
    """Whether the task SDK has a module."""
    return HAS_TASK_SDK and find_spec(f"airflow.sdk.{module}") is not None


def _exports(*names: str) -> bool:
    """Whether the task SDK has all of these; without importing what they name."""
    return HAS_TASK_SDK and {*names} <= {*import_module("airflow.sdk").__all__}


#: Whether a run that is late calls back (3.1+); else there are SLAs.
HAS_DEADLINES: Final = _has("definitions.deadline")
#: Whether a task's process sends its last metrics by itself (3.2+).
FLUSHES_METRICS: Final = _has("observability")
#: Whether a task may add partitions to an asset of its own accord (3.3+).
HAS_PARTITIONS: Final = _exports("PartitionedAtRuntime")
#: Whether a DAG may wait until all days of a month have a partition (3.3+).
HAS_ROLL_UP: Final = _exports("PartitionedAssetTimetable", "RollupMapper", "StartOfMonthMapper", "MonthWindow")
#: Whether a task can ask people and wait for what they answer (3.1+).
ASKS_PEOPLE: Final = _has("execution_time.hitl") and find_spec("airflow.providers.standard") is not None
#: Whether the UI shows pages that a plugin brings along (3.1+).
SHOWS_PAGES: Final = hasattr(AirflowPlugin, "external_views")
#: Whether OpenTelemetry is sent every tag: 2.11 keeps the first gauge of a name, and forgets those with other tags.
OTEL_KEEPS_TAGS: Final = HAS_TASK_SDK


def _backs_off_by_a_factor() -> bool:
    """Whether the wait between retries grows by a number (3.2+), for which True would be one; else by a switch."""
    named = signature(BaseOperator.__init__).parameters["retry_exponential_backoff"]
    return not isinstance(named.default, bool)


#: Doubles the wait with each retry.
RETRY_BACKOFF: Final[float] = 2.0 if _backs_off_by_a_factor() else True

# A collector nearby answers in milliseconds; one that does not must not keep a task.
METRICS_FLUSH_SECONDS: Final = 2


def once_a_month(days: Asset) -> Any:
    """A schedule with a run for each month, of whose days all have a partition. Where there is a roll-up."""
    sdk: Any = import_module("airflow.sdk")
    months = sdk.RollupMapper(upstream_mapper=sdk.StartOfMonthMapper(input_format="%Y-%m-%d"), window=sdk.MonthWindow())
    return sdk.PartitionedAssetTimetable(assets=days, default_partition_mapper=months)


def events_since(asset: Asset, since: dt.datetime) -> Iterable[Any]:
    """The events of an asset since a moment, the oldest first; asked for by a task. Where there are partitions."""
    # By its class: of the context a task gets those of its inlets alone, and this asset is an outlet.
    accessor = import_module("airflow.sdk.execution_time.context").InletEventsAccessor
    found: Iterable[Any] = accessor(asset_name=asset.name, asset_uri=asset.uri).after(since.isoformat())
    return found


class TaskLateness(TypedDict, total=False):
    """Arguments of a task that get it told when it is late."""

    sla: dt.timedelta


def dag_lateness(settings: Settings, on_sla_miss: Callable[..., None]) -> dict[str, Any]:
    """Arguments of the DAG that get a late run told: a deadline where there are any, else the callback of missed SLAs.

    The deadline counts from when the run was queued. Its callback is named, not handed over: the triggerer imports it.
    Where intervals may be more than a timedelta (3.3+), a bare number is taken for seconds by every part of Airflow;
    with a timedelta 3.3.2 refuses to clear a run before the deadline is over (apache/airflow issue 70368).
    """
    if not HAS_DEADLINES:
        return {"sla_miss_callback": on_sla_miss}
    # With a deadline that command crashes at its end in 3.3.2, where nobody is there to call back anyway.
    if sys.argv[1:3] == ["dags", "test"]:
        return {}

    deadlines: Any = import_module("airflow.sdk.definitions.deadline")
    seconds = settings.deadline_seconds
    takes_numbers = hasattr(deadlines, "VariableInterval")
    alert = deadlines.DeadlineAlert(
        reference=deadlines.DeadlineReference.DAGRUN_QUEUED_AT,
        interval=seconds if takes_numbers else dt.timedelta(seconds=seconds),
        callback=deadlines.AsyncCallback("merchant_usage.orchestration.lateness.notify_late"),
    )
    return {"deadline": [alert]}


def task_lateness(settings: Settings) -> TaskLateness:
    """Arguments of each task that is not mapped: without deadlines an SLA, from the end of the run's interval on."""
    return {} if HAS_DEADLINES else {"sla": dt.timedelta(seconds=settings.deadline_seconds)}


def question(task_id: str, *, answer_within: dt.timedelta, **asked: Any) -> Any:
    """A task that asks a person, where there are such.

    Args:
        answer_within: after this the default is taken for the answer.
        asked: what the operator takes.
    """
    operator = import_module("airflow.providers.standard.operators.hitl").HITLOperator
    # Before it had a limit of its own, the task's was the answer's.
    limit = "response_timeout" if "response_timeout" in signature(operator.__init__).parameters else "execution_timeout"
    return operator(task_id=task_id, **{limit: answer_within}, **asked)


def asked_at(dag_run: Any) -> dt.datetime | None:
    """When a run by hand was asked for, however often it has been cleared since; None if that is not known."""
    return getattr(dag_run, "run_after" if HAS_TASK_SDK else "logical_date", None)


def run_url(dag_id: str, run_id: str) -> str:
    """The address of a run in the UI."""
    from airflow.providers.common.compat.sdk import conf

    name = quote(run_id, safe="")
    if HAS_TASK_SDK:
        return f"{conf.get('api', 'base_url', fallback='http://localhost:8080').rstrip('/')}/dags/{dag_id}/runs/{name}"
    return f"{conf.get('webserver', 'base_url').rstrip('/')}/dags/{dag_id}/grid?dag_run_id={name}"


def dag_url(dag_id: str) -> str:
    """The address of a DAG in the UI, where there is a task SDK."""
    from airflow.providers.common.compat.sdk import conf

    return f"{conf.get('api', 'base_url', fallback='http://localhost:8080').rstrip('/')}/dags/{dag_id}"


def runs_ended_at(dag_id: str, moment: dt.datetime) -> list[Any]:
    """The scheduled runs whose data interval ends at a moment (on 2.11, where callbacks see Airflow's database)."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(DagRun).filter(
            DagRun.dag_id == dag_id, DagRun.run_type == SCHEDULED, DagRun.data_interval_end == moment
        )
        return list(found)


def plain(value: Any) -> str:
    """The text of one of Airflow's enumerations, or of what is text already."""
    return str(getattr(value, "value", value) or "")


def states_of_run(dag_id: str, run_id: str) -> tuple[str, set[str]]:
    """The states of a run and of its tasks, for what is called when it is late.

    Raises:
        Exception: whatever Airflow raises where it cannot be asked.
    """
    if HAS_TASK_SDK:
        ti = import_module("airflow.sdk.execution_time.task_runner").RuntimeTaskInstance
        tasks = ti.get_task_states(dag_id=dag_id, run_ids=[run_id]).get(run_id, {})
        return plain(ti.get_dagrun_state(dag_id, run_id)), {*map(plain, tasks.values())}

    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        dag_run = session.query(DagRun).filter(DagRun.dag_id == dag_id, DagRun.run_id == run_id).one()
        return plain(dag_run.state), {plain(ti.state) for ti in dag_run.get_task_instances(session=session)}


def postgres_hook(conn_id: str) -> PostgresHook:
    """The provider's hook, whose connections are psycopg 3.

    With SQLAlchemy 1.4, which 2.11 is tied to, the provider takes psycopg2, which knows no COPY by rows.
    """
    from airflow.providers.postgres.hooks.postgres import USE_PSYCOPG3, PostgresHook

    if USE_PSYCOPG3:
        return PostgresHook(postgres_conn_id=conn_id)

    import psycopg

    class Psycopg3Hook(PostgresHook):
        def _create_connection(self, conn_args: dict[str, Any]) -> Any:
            return psycopg.connect(**conn_args)

    return Psycopg3Hook(postgres_conn_id=conn_id)


def flush_metrics() -> None:
    """Let OpenTelemetry's metrics leave a task's process, where Airflow just ends it."""
    if FLUSHES_METRICS:
        return
    from opentelemetry.metrics import get_meter_provider

    if flush := getattr(get_meter_provider(), "force_flush", None):
        # In a thread, because a collector that is down keeps its exporter trying for long.
        thread = Thread(target=flush, daemon=True)
        thread.start()
        thread.join(METRICS_FLUSH_SECONDS)


def set_up_logging() -> None:
    """Let lines reach the log of the task with their fields: 3.x takes them by structlog, 2.11 knows `logging` only."""
    if HAS_TASK_SDK:
        import structlog

        def by_structlog(name: str, level: Level) -> Say:
            say: Say = getattr(structlog.get_logger(name), level)
            return say

        find_by(by_structlog)


def push_for_scheduler(ti: Any, key: str, text: str) -> None:
    """Leave a text where the scheduler finds it: in Airflow's own database, whatever backend keeps all other XComs.

    A backend of the site's own leaves there an address of a file or a bucket, which the scheduler must not wait for.
    """
    module = import_module("airflow.sdk.bases.xcom" if HAS_TASK_SDK else "airflow.models.xcom")
    module.BaseXCom.set(
        key=key, value=text, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index
    )


def pushed(session: Session, dag_run: Any, task_id: str, key: str) -> Any:
    """What stands in Airflow's own database of what a task pushed, or its first instance that did; None if nothing."""
    from airflow.models import xcom
    from sqlalchemy import select

    model: Any = xcom.XComModel if HAS_TASK_SDK else xcom.BaseXCom
    of_this_run = {"dag_id": dag_run.dag_id, "run_id": dag_run.run_id, "task_id": task_id, "key": key}
    found = session.scalars(select(model).filter_by(**of_this_run).order_by(model.map_index)).first()
    return found.value if found else None


@cache
def patch_backfill() -> None:
    """Keep `airflow dags backfill` of 2.11 from losing its way among mapped tasks. On 3.3 the scheduler backfills.

    That command makes mapped tasks when the executor reports the end of the task before them. When it sees that end in
    the database first, it forgets the task and passes over the report; when the run's state is looked at first, the
    mapped tasks are made there, and it never hears of them. Either is called a deadlock. And mapped tasks that a
    repeated run no longer has are waited for without end.

    The processes that it forks for its tasks begin by closing the connections to Airflow's database that they have
    inherited, and thereby end the one that the command is just working with.
    """
    if HAS_TASK_SDK:
        return

    from airflow.models import TaskInstance
    from airflow.utils.state import TaskInstanceState
    from sqlalchemy import select

    # By name: 3.3, which types are checked against, has no such module. And no public place to mend it.
    runner = import_module("airflow.jobs.backfill_job_runner").BackfillJobRunner
    update_counters = runner._update_counters  # noqa: SLF001
    manage_executor_state = runner._manage_executor_state  # noqa: SLF001

    def update_reported_counters(self: Any, ti_status: Any, session: Session) -> None:
        """Leave to the executor what it has still to report, and wait for nothing that was removed."""
        running = ti_status.running
        unreported = {k: ti for k, ti in running.items() if any(one.has_task(ti) for one in self.job.executors)}
        for key in unreported:
            del running[key]
        update_counters(self, ti_status=ti_status, session=session)
        for key, ti in list(running.items()):
            ti.refresh_from_db(session=session)
            if ti.state == TaskInstanceState.REMOVED:
                del running[key]
        running.update(unreported)

    def manage_all_mapped(self: Any, running: Any, executor: Any, session: Session) -> Iterator[Any]:
        """Take up every mapped task that waits, whoever made it."""
        for node, run_id, _, highest_index in manage_executor_state(self, running, executor, session):
            waiting = select(TaskInstance).where(
                TaskInstance.dag_id == node.dag_id,
                TaskInstance.task_id == node.task_id,
                TaskInstance.run_id == run_id,
                TaskInstance.map_index.between(0, highest_index),
                TaskInstance.state.is_(None),
            )
            yield node, run_id, session.scalars(waiting).all(), highest_index

    runner._update_counters = update_reported_counters  # noqa: SLF001
    runner._manage_executor_state = manage_all_mapped  # noqa: SLF001

    settings = import_module("airflow.settings")
    worker = import_module("airflow.executors.local_executor").LocalWorkerBase
    run = worker.run

    def run_apart(self: Any) -> None:
        """Forget the parent's connections instead of closing them."""
        settings.engine.dispose(close=False)
        run(self)

    worker.run = run_apart


@cache
def patch_callbacks(dag_id: str, task_id: str) -> None:
    """Keep 2.11 from losing the callback of a run that failed. 3.3 calls it in any case.

    Its context is that of the task instance which the database happens to name last. A mapped task that was never
    expanded, because the task before it failed, has none: an error in a log, and nobody is told.

    Args:
        task_id: a task of the DAG that is not mapped, to be named last.
    """
    if HAS_TASK_SDK:
        return

    from airflow.models.dagrun import DagRun

    get_task_instances = DagRun.get_task_instances

    def get_unmapped_last(self: Any, *args: Any, **kwargs: Any) -> list[Any]:
        found = get_task_instances(self, *args, **kwargs)
        return sorted(found, key=lambda ti: ti.task_id == task_id) if self.dag_id == dag_id else found

    DagRun.get_task_instances = get_unmapped_last  # type: ignore[method-assign]  # there is no public place to mend it
