"""The month that closes itself, by a real scheduler: examples/invoice_month.py, beside a DAG that waits for runs."""

from __future__ import annotations

import datetime as dt
import re
import shlex
import shutil
from calendar import monthrange
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
import redis

from local.airflow_api import DagRun
from local.connections import postgres_connection, redis_connection
from local.servers import Postgres, Valkey
from merchant_usage.connections import prepare
from merchant_usage.model.keys import CounterKey, build_key
from merchant_usage.orchestration.compat import HAS_ROLL_UP
from merchant_usage.settings import load_settings
from merchant_usage.sink import schema
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests import docs
from tests.receivers import OpenTelemetry
from tests.scheduler.versions import INSTALLED
from tests.scheduler.world import RUN_SECONDS, PagerDuty, Slack, World
from tests.support import PROJECT
from tests.webhooks import make_certificate

pytestmark = pytest.mark.skipif(not HAS_ROLL_UP, reason="no partitions are rolled up; tests/dags tries the sensor")

FIRST = (dt.datetime.now(dt.UTC).date().replace(day=1) - dt.timedelta(days=1)).replace(day=1)
DAYS = [FIRST.replace(day=day) for day in range(1, monthrange(FIRST.year, FIRST.month)[1] + 1)]
#: Of each day but the last, and of that.
UNITS, UNITS_OF_LAST = 10, 5
RETENTION_DAYS = 70
START_SECONDS = 90


@pytest.fixture
def world() -> Iterator[World]:
    """A Redis that keeps its keys for more than a month, and one merchant. No run comes by itself."""
    now = dt.datetime.now(dt.UTC)
    choices = {"ENABLE_USAGE_AGGREGATION": "false", "USAGE_RETENTION_DAYS": str(RETENTION_DAYS)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="usage-month-"))).resolve()
        folder.chmod(0o711)  # PostgreSQL runs as another user than root
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        postgres = stack.enter_context(Postgres(folder / "postgres", settings={"fsync": "off"}))
        conn = prepare(stack.enter_context(psycopg.connect(postgres.url, autocommit=True)))
        schema.migrate(conn)
        dags = folder / "dags"
        shutil.copytree(PROJECT / "dags", dags, ignore=shutil.ignore_patterns("__pycache__"))
        for file in (Path(__file__).parent / "billing.py", PROJECT / "examples" / "invoice_month.py"):
            shutil.copy(file, dags)
        connections = {
            "AIRFLOW_CONN_USAGE_REDIS": redis_connection(valkey.url),
            "AIRFLOW_CONN_USAGE_POSTGRES": postgres_connection(postgres.url),
        }
        airflow = INSTALLED(
            folder / "airflow", postgres.create_database("airflow"), {**choices, **connections}, dags_folder=dags
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
        stack.enter_context(airflow)
        airflow.wait_until(lambda: airflow.api.has_dag("invoice_month"), "the example was loaded", START_SECONDS)
        yield world


def counter(day: dt.date) -> bytes:
    return build_key("usage", CounterKey("acme", day, "queries"))


def count(world: World, day: dt.date, units: int) -> None:
    """What the API has counted then, with the life that it gave to the key."""
    end = dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(days=RETENTION_DAYS)
    world.redis.set(counter(day), units, exat=end)


def runs_of(world: World, dag_id: str) -> list[DagRun]:
    return world.airflow.api.runs(dag_id)


def aggregate(world: World, *days: dt.date, **conf: Any) -> DagRun:
    """A run by hand over some days."""
    run = world.trigger(from_date=str(days[0]), to_date=str(days[-1]), **conf)
    assert run.state == "success"
    return run


def aggregate_and_bill(world: World, *days: dt.date) -> DagRun:
    """The same; the scheduler has taken up all that the run told: it looks at partitions before it starts others."""
    before = len(runs_of(world, "billing"))
    run = aggregate(world, *days)
    world.airflow.wait_until(lambda: len(runs_of(world, "billing")) > before, "billing has started", RUN_SECONDS)
    return run


def partitions(world: World, run: DagRun) -> list[str]:
    """The days that a run told to be sealed."""
    return sorted(event["partition_key"] for event in world.events(run) if event["name"] == "merchant_usage_day")


def test_a_month_is_invoiced_once_when_its_last_day_is_sealed(world: World) -> None:
    assert world.airflow.api.import_errors() == []
    *others, last = DAYS
    for day in others:
        count(world, day, UNITS)
    count(world, last, UNITS_OF_LAST)

    most = aggregate_and_bill(world, *others)
    assert partitions(world, most) == [str(day) for day in others]
    assert runs_of(world, "invoice_month") == [], "a day is missing"

    aggregate(world, last, merchant_ids=["acme"])
    world.redis.decr(counter(last))
    lower = aggregate_and_bill(world, *DAYS)
    assert world.ledger(lower)[last] == "mismatch"
    assert partitions(world, lower) == [], "no day is told again, and the last waits for a decision"
    assert runs_of(world, "invoice_month") == []

    decide(world.redis, world.conn, Ruling(Decision.KEEP, "tester"), "usage", date=last)
    released = aggregate_and_bill(world, *DAYS)
    assert partitions(world, released) == [str(last)]

    def invoiced() -> DagRun | None:
        runs = runs_of(world, "invoice_month")
        return runs[0] if runs and runs[0].finished else None

    run = world.airflow.wait_until(invoiced, "the month is invoiced", RUN_SECONDS)
    assert run.state == "success"
    told = world.airflow.api.xcom("invoice_month", run.run_id, "write_invoice_lines")
    assert told == {"month": f"{FIRST:%Y-%m}", "lines": 1, "units": UNITS * len(others) + UNITS_OF_LAST}

    again = aggregate_and_bill(world, *DAYS)
    assert partitions(world, again) == []
    assert [each.run_id for each in runs_of(world, "invoice_month")] == [run.run_id]

    by_command(world)


def by_command(world: World) -> None:
    """What the how-to says for a month of which some days cannot be sealed; here without any usage of its last."""
    (command,) = [command for command in docs.commands_of("airflow") if "invoice_month" in command]
    (named,) = re.findall(r'"month": "([\d-]+)"', command)
    (unsealed,) = re.findall(r'"unsealed_days": \["([\d-]+)"\]', command)
    world.conn.execute("DELETE FROM usage_run WHERE usage_date = %s", [DAYS[-1]])
    of_last_month = re.sub(f'{unsealed}|{named}(?=")', lambda date: str(DAYS[-1])[: len(date[0])], command)

    world.airflow.cli(*shlex.split(of_last_month)[1:])

    def ended() -> DagRun | None:
        runs = [run for run in runs_of(world, "invoice_month") if run.run_type == "manual"]
        return runs[0] if runs and runs[0].finished else None

    assert world.airflow.wait_until(ended, "the month is invoiced by hand", RUN_SECONDS).state == "success"
