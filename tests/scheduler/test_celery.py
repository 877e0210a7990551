"""The same DAG on CeleryExecutor with two workers, one of which is lost in the middle of a batch."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
import pytest
import redis

from local.airflow_api import DagRun
from local.connections import postgres_connection, redis_connection
from local.servers import Postgres, Valkey
from merchant_usage.connections import prepare
from merchant_usage.model.keys import CounterKey
from merchant_usage.settings import DAG_ID, load_settings
from merchant_usage.sink import schema
from tests.places import folder_in_memory
from tests.receivers import OpenTelemetry
from tests.scheduler.workers import NAMES, CeleryAirflow
from tests.scheduler.world import MERCHANTS, METRICS, PagerDuty, Slack, World
from tests.scheduler.xcom_elsewhere import kept_elsewhere
from tests.webhooks import make_certificate

BATCHES = 3
# Heartbeats are missed for 10 s, the DAG waits 30 s before it tries again, and a busy machine is slow.
SURVIVAL_SECONDS = 240


@pytest.fixture
def world() -> Iterator[World]:
    """Two workers, and counters of yesterday. Nothing runs by itself."""
    now = dt.datetime.now(dt.UTC)
    choices = {"ENABLE_USAGE_AGGREGATION": "false", "USAGE_MAX_MAPPED_TASKS": str(BATCHES), "USAGE_BATCH_COUNTERS": "1"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="usage-celery-", dir=folder_in_memory()))).resolve()
        folder.chmod(0o711)  # PostgreSQL runs as another user than root
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        broker = stack.enter_context(Valkey(folder / "broker"))
        postgres = stack.enter_context(Postgres(folder / "postgres", settings={"fsync": "off"}))
        conn = prepare(stack.enter_context(psycopg.connect(postgres.url, autocommit=True)))
        schema.migrate(conn)
        connections = {
            "AIRFLOW_CONN_USAGE_REDIS": redis_connection(valkey.url),
            "AIRFLOW_CONN_USAGE_POSTGRES": postgres_connection(postgres.url),
        }
        # On several machines XComs often lie in a bucket.
        airflow = CeleryAirflow(
            folder / "airflow",
            postgres.create_database("airflow"),
            broker,
            {**choices, **connections, **kept_elsewhere(folder)},
        )
        world = World(
            airflow=airflow,
            redis=stack.enter_context(redis.Redis.from_url(valkey.url)),
            conn=conn,
            slack=stack.enter_context(Slack().running()),
            monitor=stack.enter_context(OpenTelemetry().running()),
            pagerduty=stack.enter_context(PagerDuty(202, b"{}", make_certificate(folder / "pagerduty.pem")).running()),
            settings=load_settings(choices),
            yesterday=now.date() - dt.timedelta(days=1),
            today=now.date(),
            secrets={},
        )
        for number, merchant in enumerate(MERCHANTS, start=1):
            for metric in METRICS:
                world.count(CounterKey(merchant, world.yesterday, metric), 1000 * number)
        stack.enter_context(airflow)
        yield world


def waiting_workers(world: World, airflow: CeleryAirflow) -> set[str]:
    """The workers one of whose tasks waits for a lock in the table."""
    ports = {
        row[0]
        for row in world.conn.execute(
            "SELECT client_port FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND query LIKE '%%merchant_usage%%'"
        )
    }
    found = set()
    for connection in psutil.net_connections("tcp"):
        if connection.pid is not None and connection.laddr and connection.laddr.port in ports and connection.raddr:
            found.add(airflow.worker_of(connection.pid))
    return found


def connections(world: World) -> int:
    """How many connections to the database there are besides the test's own two."""
    row = world.conn.execute(
        "SELECT count(*) - 2 FROM pg_stat_activity"
        " WHERE datname = current_database() AND backend_type = 'client backend'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def test_a_worker_is_lost_in_the_middle_of_a_batch(world: World) -> None:
    airflow = world.airflow
    assert isinstance(airflow, CeleryAirflow)
    airflow.wait_until(lambda: airflow.api.has_dag(DAG_ID), "the DAG is loaded", SURVIVAL_SECONDS)
    with psycopg.connect(world.conn.info.dsn, password=world.conn.info.password) as locker:
        # Readers pass, writers wait: each worker gets as far as the upsert of its batch.
        locker.execute("LOCK TABLE merchant_usage IN EXCLUSIVE MODE")
        day = str(world.yesterday)
        run = airflow.api.trigger(DAG_ID, {"from_date": day, "to_date": day})
        airflow.wait_until(
            lambda: waiting_workers(world, airflow) == set(NAMES), "both workers are in a batch", SURVIVAL_SECONDS
        )
        assert len(NAMES) <= connections(world) <= len(NAMES) + 1, "a task has one connection"
        airflow.kill(NAMES[0])

    def look() -> DagRun | None:
        found = airflow.api.run(DAG_ID, run.run_id)
        return found if found.finished else None

    ended = airflow.wait_until(look, "the run has ended", SURVIVAL_SECONDS)
    assert ended.state == "success"
    upserts = world.tasks(run, "upsert_merchant_usage")
    assert sorted(task.try_number for task in upserts) == [1, 1, 2]
    assert {task.state for task in upserts} == {"success"}
    assert world.ledger(run) == {world.yesterday: "verified"}
    assert ended.note is not None
    assert ended.note.startswith(f"{world.yesterday}: verified, Redis ")
    assert world.rows() == world.counters()
    assert len(world.rows()) == len(MERCHANTS) * len(METRICS)
