"""What must hold of the DAG whatever it does: its owner, its alerts, its wiring, and what parsing may not do."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.timetables.interval import CronDataIntervalTimetable

from merchant_usage.orchestration import lateness
from merchant_usage.settings import VARIABLES
from tests.dags.support import airflow_environment
from tests.dags.versions import AIRFLOW_3, ParamValidationError, dag_bag
from tests.dags.versions import DAGS as OUR_DAGS
from tests.support import PROJECT

DAGS = PROJECT / "dags"


def parse(monkeypatch: pytest.MonkeyPatch, **environ: str) -> Any:
    """All of dags/, parsed anew with these settings."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return dag_bag(DAGS)


@pytest.fixture
def dag(monkeypatch: pytest.MonkeyPatch) -> Any:
    return parse(monkeypatch).dags["usage_aggregation"]


def test_these_are_all_dags(monkeypatch: pytest.MonkeyPatch) -> None:
    bag = parse(monkeypatch)
    assert bag.import_errors == {}
    assert set(bag.dags) == OUR_DAGS


def test_file_dag_and_function_have_one_name(dag: Any) -> None:
    assert Path(dag.fileloc).stem == dag.dag_id


def test_somebody_owns_it_and_it_can_be_found(dag: Any) -> None:
    assert set(dag.tags) == {"billing", "usage"}
    assert {task.owner for task in dag.tasks} == {"usage"}
    assert dag.description


def test_docs_tell_what_to_do_when_it_is_red(dag: Any) -> None:
    for told in ("When it is red", "usage_redis", "usage_postgres", "usage_slack", "usage_pagerduty", *dag.task_ids):
        assert told in dag.doc_md


def test_one_message_a_failed_run(dag: Any) -> None:
    """The run tells; a task would tell once for each merchant."""
    for callbacks in (dag.on_failure_callback, dag.on_success_callback):
        assert callbacks
        assert len(callbacks if isinstance(callbacks, list) else [callbacks]) == 1
    for task in dag.tasks:
        assert not task.on_failure_callback
        assert not task.on_retry_callback
        assert not task.on_success_callback


def test_tasks_are_tried_again_and_never_at_once(dag: Any) -> None:
    for task in dag.tasks:
        assert task.retries == 3
        assert task.retry_delay == dt.timedelta(seconds=30)
        assert task.retry_exponential_backoff
        assert task.max_retry_delay == dt.timedelta(minutes=5)


def test_no_task_waits_without_end(dag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {task.execution_timeout for task in dag.tasks} == {dt.timedelta(hours=1)}
    tasks = parse(monkeypatch, USAGE_TASK_TIMEOUT_SECONDS="120").dags["usage_aggregation"].tasks
    assert {task.execution_timeout for task in tasks} == {dt.timedelta(minutes=2)}


def test_lateness_is_told(dag: Any) -> None:
    """By a deadline on 3.x; by SLAs on 2.11, of each task that is not mapped, as a mapped one may have none there."""
    if AIRFLOW_3:
        (deadline,) = dag.deadline
        assert deadline.reference.reference_name == "DagRunQueuedAtDeadline"
        # A timedelta would keep 3.3.2 from clearing runs, and those before 3.3 know nothing else.
        takes_numbers = hasattr(import_module("airflow.sdk.definitions.deadline"), "VariableInterval")
        assert deadline.interval == (300 if takes_numbers else dt.timedelta(seconds=300))
        assert deadline.callback.path == "merchant_usage.orchestration.lateness.notify_late"
        pauses = [min(30 * 2**number, 300) for number in range(dag.default_args["retries"])]
        assert sum(pauses) < lateness.LOOKS * lateness.PAUSE_SECONDS, "by then all retries of a task are over"
        return
    assert dag.sla_miss_callback
    slas = {task.task_id: getattr(task, "sla", None) for task in dag.tasks}
    due = dt.timedelta(seconds=300)
    assert slas == {
        "scan_usage": due,
        "upsert_merchant_usage": None,
        "verify_usage": due,
        "delete_stale_keys": due,
    }


def test_schedule_has_real_intervals_and_catches_up(dag: Any) -> None:
    # A plain "@hourly" would have intervals of no width on Airflow 3.
    assert type(dag.timetable).__name__ == CronDataIntervalTimetable.__name__
    assert dag.timetable.summary == "0 * * * *"
    assert dag.catchup is True
    assert dag.start_date.isoformat() == "2026-11-01T00:00:00+00:00"
    assert 1 < dag.max_active_runs <= 16


def test_tasks_are_one_chain(dag: Any) -> None:
    chain = ["scan_usage", "upsert_merchant_usage", "verify_usage", "delete_stale_keys"]
    assert {task.task_id for task in dag.tasks} == set(chain)
    for before, after in pairwise(chain):
        assert after in dag.task_dict[before].downstream_task_ids
    assert [task.task_id for task in dag.roots] == chain[:1]
    # The leaf decides the run's state, so a red task before it must reach it.
    assert [task.task_id for task in dag.leaves] == chain[-1:]
    rules = {task.task_id: str(getattr(task.trigger_rule, "value", task.trigger_rule)) for task in dag.tasks}
    assert rules == {
        "scan_usage": "all_success",
        "upsert_merchant_usage": "all_success",
        "verify_usage": "all_done",
        "delete_stale_keys": "all_success",
    }
    assert "Mapped" in type(dag.task_dict["upsert_merchant_usage"]).__name__


@pytest.mark.parametrize(
    "conf",
    [
        {},
        {"from_date": "2026-11-01"},
        {"from_date": "2026-11-01", "to_date": "2026-11-30"},
        {"from_date": None, "to_date": None, "merchant_ids": None},
        {"merchant_ids": ["acme", "a:b:c"]},
        {"dry_run": True},
    ],
    ids=str,
)
def test_params_that_are_taken(dag: Any, conf: dict[str, Any]) -> None:
    for name, value in {**dag.params.dump(), **conf}.items():
        assert dag.params.get_param(name).resolve(value) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("from_date", "yesterday"),
        ("from_date", 20261101),
        ("to_date", "2026-11"),
        ("merchant_ids", "acme"),
        ("merchant_ids", [1]),
        ("merchant_ids", {"acme": 1}),
        ("from_date", "2026-02-30"),
        ("dry_run", "yes"),
        ("dry_run", None),
    ],
    ids=str,
)
def test_params_that_are_refused(dag: Any, name: str, value: object) -> None:
    with pytest.raises(ParamValidationError):
        dag.params.get_param(name).resolve(value)


def test_these_are_all_params(dag: Any) -> None:
    assert dag.params.dump() == {"from_date": None, "to_date": None, "merchant_ids": [], "dry_run": False}
    for name in dag.params:
        assert dag.params.get_param(name).schema["title"]
        # The form has the logical date now above, now below them.
        assert not {"above", "below"} & set(dag.params.get_param(name).description.split())


def test_switched_off_leaves_manual_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    bag = parse(monkeypatch, ENABLE_USAGE_AGGREGATION="false")
    assert bag.import_errors == {}
    assert type(bag.dags["usage_aggregation"].timetable).__name__ == "NullTimetable"


def test_settings_reach_the_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    bag = parse(
        monkeypatch,
        USAGE_AGGREGATION_INTERVAL="1800000",
        USAGE_START_DATE="2027-01-01",
        USAGE_TIMEZONE="Europe/Berlin",
    )
    dag = bag.dags["usage_aggregation"]
    assert dag.timetable.summary == "*/30 * * * *"
    assert dag.start_date.isoformat() == "2026-12-31T23:00:00+00:00"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("USAGE_AGGREGATION_INTERVAL", "1h"),
        ("USAGE_SETTLE_HOURS", "two"),
        ("USAGE_TIMEZONE", "Mars/Olympus"),
        ("USAGE_MAX_MAPPED_TASKS", "1025"),
        ("USAGE_START_DATE", "soon"),
        ("USAGE_TASK_TIMEOUT_SECONDS", "1h"),
    ],
)
def test_bad_setting_is_one_import_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    bag = parse(monkeypatch, **{variable: value})
    assert not bag.dags
    (error,) = bag.import_errors.values()
    last = error.strip().splitlines()[-1]
    assert f"SettingsError: Bad setting: {variable}={value!r} (takes " in last


# Runs in a process of its own, in which neither a network nor Airflow's database can be had.
PARSE_WITHOUT_ANYTHING = """
import json, socket, sys

def refuse(*arguments, **options):
    raise AssertionError(f"parsing uses the network: {arguments}")

for name in ("connect", "connect_ex", "sendto", "bind"):
    setattr(socket.socket, name, refuse)
socket.getaddrinfo = socket.create_connection = refuse

from airflow.providers.common.compat.sdk import BaseHook, Variable
import airflow.settings

try:
    from airflow.dag_processing.dagbag import DagBag
    options = {"bundle_path": sys.argv[1]}
except ImportError:  # 2.11
    from airflow.models.dagbag import DagBag
    options = {"include_examples": False}

Variable.get = BaseHook.get_connection = BaseHook.get_hook = refuse
airflow.settings.Session = airflow.settings.engine = None

before = set(sys.modules)
bag = DagBag(sys.argv[1], **options)
heavy = {"redis", "psycopg", "psycopg2", "pydantic_settings", "pandas", "rich"}
print(json.dumps({
    "errors": bag.import_errors,
    "dags": sorted(bag.dags),
    "heavy": sorted(heavy & (set(sys.modules) - before)),
    "rooms": sorted(m for m in sys.modules if m.split(".")[0] in {"local", "tests", "bench"}),
}))
"""


def test_parsing_needs_no_network_no_database_and_no_driver(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARSE_WITHOUT_ANYTHING, str(DAGS)],
        env={
            **airflow_environment(tmp_path),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:////{tmp_path}/nowhere/airflow.db",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"errors": {}, "dags": sorted(OUR_DAGS), "heavy": [], "rooms": []}
