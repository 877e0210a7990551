"""examples/invoice_month.py, on each Airflow: when it starts, what it writes, and what it refuses."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
from calendar import monthrange
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from airflow.timetables.interval import CronDataIntervalTimetable

from local.servers import Valkey
from merchant_usage import clock
from merchant_usage.orchestration.compat import HAS_PARTITIONS, HAS_ROLL_UP
from tests.dags.conftest import running
from tests.dags.support import Dag, Runner, airflow_environment
from tests.dags.versions import dag_bag
from tests.support import PROJECT, Usage, key

EXAMPLE = PROJECT / "examples" / "invoice_month.py"
FIRST = (clock.now().date().replace(day=1) - dt.timedelta(days=1)).replace(day=1)
MONTH = f"{FIRST:%Y-%m}"
DAYS = [FIRST.replace(day=day) for day in range(1, monthrange(FIRST.year, FIRST.month)[1] + 1)]
#: Usage for which Redis keeps its keys.
RETENTION_DAYS = 70


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DAGs folder into which somebody has copied the example."""
    folder = tmp_path_factory.mktemp("dags")
    shutil.copy(EXAMPLE, folder)
    return folder


@pytest.fixture(scope="module")
def billing_airflow(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Runner]:
    """An Airflow of that folder."""
    home = tmp_path_factory.mktemp("billing")
    with running(home, {**airflow_environment(home), "AIRFLOW__CORE__DAGS_FOLDER": str(folder)}) as started:
        yield started


@pytest.fixture
def invoices(billing_airflow: Runner, valkey: Valkey, database_url: str, temporary_folder: Path) -> Dag:
    """The example, connected to the servers of `usage`."""
    to_redis = {"conn_type": "redis", "host": "127.0.0.1", "port": valkey.port, "password": valkey.password}
    connections = {"AIRFLOW_CONN_USAGE_REDIS": json.dumps(to_redis), "AIRFLOW_CONN_USAGE_POSTGRES": database_url}
    return Dag(billing_airflow, connections, temporary_folder, "invoice_month")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The file's functions."""
    spec = spec_from_file_location("invoice_month", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seal(usage: Usage, *dates: dt.date) -> None:
    """One run over these dates of the last month, each of which has usage."""
    usage.write({key(merchant, date): units for date in dates for merchant, units in (("acme", 1), ("zeta", 10))})
    proof = usage.aggregate(*dates, now=clock.now(), retention_days=RETENTION_DAYS)
    assert {*usage.verdicts(proof).values()} == {"verified"}


def context(**params: Any) -> dict[str, Any]:
    """What the example asks of a run."""
    asked = {"month": None, "unsealed_days": [], **params}
    return {"params": asked, "dag_run": SimpleNamespace(partition_key=MONTH)}


def lines(log: str) -> list[str]:
    return re.findall(r"Invoice line: ([^\n]*?)(?= *(?:\x1b|\[|$))", log, re.MULTILINE)


def test_it_is_one_dag_without_an_error(folder: Path) -> None:
    bag = dag_bag(folder)
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()
    assert Path(dag.fileloc).stem == dag.dag_id == "invoice_month"
    assert dag.catchup is False
    assert "When it is red" in dag.doc_md


def test_days_that_are_rolled_up_start_it_or_else_each_month_does(folder: Path) -> None:
    dag = dag_bag(folder).dags["invoice_month"]
    tasks = [task.task_id for task in dag.tasks]
    if not HAS_ROLL_UP:
        assert type(dag.timetable).__name__ == CronDataIntervalTimetable.__name__
        assert dag.timetable.summary == "0 0 1 * *"
        assert sorted(tasks) == ["month_is_sealed", "write_invoice_lines"]
        assert dag.task_dict["month_is_sealed"].mode == "reschedule", "it holds no slot while it waits"
        return
    assert HAS_PARTITIONS
    assert type(dag.timetable).__name__ == "PartitionedAssetTimetable"
    assert tasks == ["write_invoice_lines"]


def test_a_sealed_month_is_written_line_by_line(invoices: Dag, usage: Usage) -> None:
    seal(usage, *DAYS)
    ended = invoices.run({"month": MONTH})
    assert ended.state == "success"
    days = len(DAYS)
    assert lines(ended.log) == [f"{MONTH}, 'acme', {days} queries", f"{MONTH}, 'zeta', {10 * days} queries"]


@pytest.mark.skipif(not HAS_ROLL_UP, reason="there it would wait")
def test_a_month_with_a_day_that_is_not_sealed_is_refused(invoices: Dag, usage: Usage) -> None:
    seal(usage, *DAYS[:-1])
    refused = invoices.run({"month": MONTH})
    assert (refused.state, lines(refused.log)) == ("failed", [])
    assert f"No invoice for {MONTH}, not sealed: {DAYS[-1]}" in refused.log

    asked = invoices.run({"month": MONTH, "unsealed_days": [str(DAYS[-1])]})
    assert (asked.state, len(lines(asked.log))) == ("success", 2)


@pytest.mark.skipif(not HAS_ROLL_UP, reason="before, each run has an interval")
def test_a_run_by_hand_has_to_name_its_month(invoices: Dag, usage: Usage) -> None:
    assert usage.rows() == {}
    ended = invoices.run(no_retries=True)
    assert ended.state == "failed"
    assert 'Say which month: {"month": "2026-11"}' in ended.log


def test_the_days_in_doubt_are_those_that_are_not_sealed_or_were_changed(example: ModuleType, usage: Usage) -> None:
    """What the sensor waits for, and what is refused."""
    assert example.days_in_doubt(usage.conn, context()) == [str(day) for day in DAYS]
    seal(usage, *DAYS[1:])
    assert example.days_in_doubt(usage.conn, context()) == [str(DAYS[0])]
    assert example.days_in_doubt(usage.conn, context(unsealed_days=[str(DAYS[0])])) == []
    assert example.days_in_doubt(usage.conn, context(unsealed_days=None)) == [str(DAYS[0])]

    usage.conn.execute("UPDATE merchant_usage SET metric_value = 99 WHERE date = %s", [DAYS[2]])
    assert example.days_in_doubt(usage.conn, context()) == [str(DAYS[0]), str(DAYS[2])]


def test_the_month_is_that_of_the_param_the_partition_or_the_interval(example: ModuleType) -> None:
    february = [dt.date(2028, 2, 1) + dt.timedelta(days=n) for n in range(29)]
    assert example.days_of_month(context(month="2028-02")) == february
    assert example.days_of_month(context()) == DAYS
    if HAS_ROLL_UP:
        return
    interval = SimpleNamespace(data_interval_start=dt.datetime(2028, 2, 1, tzinfo=dt.UTC))
    assert example.days_of_month({"params": {"month": None}, "dag_run": interval}) == february
