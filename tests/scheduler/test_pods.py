"""The same DAG with a process a task and no shared disk, as on KubernetesExecutor, and XComs in object storage."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
import redis
from psycopg import Connection

from local.airflow_api import DagRun
from local.connections import postgres_connection, redis_connection
from local.servers import Postgres, Valkey
from merchant_usage.connections import prepare
from merchant_usage.model.keys import CounterKey, build_key
from merchant_usage.settings import DAG_ID
from merchant_usage.sink import ledger, schema
from tests.places import folder_in_memory
from tests.scheduler.pods import PodsAirflow

BATCHES = 3
MERCHANTS = 40
# A pod takes some seconds to import Airflow, and a busy machine is slow.
RUN_SECONDS = 240


@dataclass
class Pods:
    """An Airflow that has run nothing yet, and counters of yesterday."""

    airflow: PodsAirflow
    conn: Connection
    counters: dict[CounterKey, int]
    yesterday: dt.date


@pytest.fixture(scope="module")
def pods() -> Iterator[Pods]:
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    choices = {"ENABLE_USAGE_AGGREGATION": "false", "USAGE_MAX_MAPPED_TASKS": str(BATCHES), "USAGE_BATCH_COUNTERS": "1"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="usage-pods-", dir=folder_in_memory()))).resolve()
        folder.chmod(0o711)  # PostgreSQL runs as another user than root
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        postgres = stack.enter_context(Postgres(folder / "postgres", settings={"fsync": "off"}))
        conn = prepare(stack.enter_context(psycopg.connect(postgres.url, autocommit=True)))
        schema.migrate(conn)
        counters = {CounterKey(f"m{n}", yesterday, "queries"): n + 1 for n in range(MERCHANTS)}
        with redis.Redis.from_url(valkey.url) as client:
            client.mset({build_key("usage", key): value for key, value in counters.items()})
        connections = {
            "AIRFLOW_CONN_USAGE_REDIS": redis_connection(valkey.url),
            "AIRFLOW_CONN_USAGE_POSTGRES": postgres_connection(postgres.url),
        }
        airflow = PodsAirflow(folder / "airflow", postgres.create_database("airflow"), {**choices, **connections})
        stack.enter_context(airflow)
        yield Pods(airflow, conn, counters, yesterday)


@pytest.fixture(scope="module")
def ended(pods: Pods) -> DagRun:
    """A run of yesterday."""
    airflow = pods.airflow
    airflow.wait_until(lambda: airflow.api.has_dag(DAG_ID), "the DAG is loaded", RUN_SECONDS)
    run = airflow.api.trigger(DAG_ID, {"from_date": str(pods.yesterday), "to_date": str(pods.yesterday)})

    def look() -> DagRun | None:
        found = airflow.api.run(DAG_ID, run.run_id)
        return found if found.finished else None

    return airflow.wait_until(look, "the run has ended", RUN_SECONDS)


def test_a_run_of_processes_that_share_no_disk_is_verified(pods: Pods, ended: DagRun) -> None:
    assert ended.state == "success", [(pod / "log").read_text()[-2000:] for pod in pods.airflow.pods.iterdir()]
    found = pods.conn.execute("SELECT merchant_id, date, metric_type, metric_value FROM merchant_usage")
    assert {CounterKey(*row[:3]): row[3] for row in found} == pods.counters
    verdicts = [(row["usage_date"], row["verdict"]) for row in ledger.run(pods.conn, ended.run_id)]
    assert verdicts == [(pods.yesterday, "verified")]


def test_each_task_had_a_home_of_its_own(pods: Pods, ended: DagRun) -> None:
    tasks = pods.airflow.api.tasks(DAG_ID, ended.run_id)
    assert len([task for task in tasks if task.task_id == "upsert_merchant_usage"]) == BATCHES
    # One that is tried again is in another pod.
    assert len(list(pods.airflow.pods.iterdir())) >= len(tasks)


def test_what_tasks_hand_over_lies_in_object_storage(pods: Pods, ended: DagRun) -> None:
    kept = [path for path in pods.airflow.bucket.rglob("*") if path.is_file()]
    assert len(kept) >= 2 + BATCHES
    assert all(ended.run_id in str(path) for path in kept)


def test_the_note_is_there_all_the_same(pods: Pods, ended: DagRun) -> None:
    """The scheduler writes it, from what lies in the storage."""
    assert ended.note is not None
    total = sum(pods.counters.values())
    assert ended.note.startswith(f"{pods.yesterday}: verified, Redis {total:,}, PostgreSQL {total:,} (")
