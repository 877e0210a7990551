"""One real Airflow for all tests of this folder."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

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
from tests.scheduler.versions import AIRFLOW_3, INSTALLED
from tests.scheduler.world import (
    DEADLINE_SECONDS,
    MERCHANTS,
    METRICS,
    PAGERDUTY_KEY,
    QUIET,
    RUN_SECONDS,
    SLACK_TOKEN,
    PagerDuty,
    Slack,
    World,
)
from tests.scheduler.xcom_elsewhere import kept_elsewhere
from tests.support import PROJECT
from tests.webhooks import make_certificate

# Workers on several machines, and people who are asked, are tried on the default lane only.
collect_ignore = [] if AIRFLOW_3 else ["test_celery.py", "test_decisions.py", "test_pods.py"]

# Bad keys of each kind, what they hold, and what becomes of them. TODAY stands for today.
POISON = {
    b"usage:no date": (b"1", "malformed_key"),
    b"usage:\xff\xfe:TODAY:queries": (b"1", "malformed_key"),
    b"usage:acme:2026-02-30:leap_day": (b"1", "bad_date"),
    b"usage:acme:2099-01-01:tomorrow": (b"1", "future_date"),
    b"usage:acme:TODAY:half": (b"1.5", "not_an_integer"),
    b"usage:acme:TODAY:underscored": (b"1_000", "not_an_integer"),
    b"usage:acme:TODAY:refunds": (b"-1", "negative"),
    b"usage:acme:TODAY:overflow": (b"9223372036854775808", "out_of_range"),
    b"usage:acme:TODAY:hash": (None, "wrong_type"),
}


@pytest.fixture(scope="session")
def poison() -> dict[bytes, tuple[bytes | None, str]]:
    """Bad keys, what they hold (None: something that is no string), and the reason of their dead letter."""
    today = dt.datetime.now(dt.UTC).date().isoformat().encode()
    return {key.replace(b"TODAY", today): told for key, told in POISON.items()}


@pytest.fixture(scope="session")
def world(poison: dict[bytes, tuple[bytes | None, str]]) -> Iterator[World]:
    """Airflow just started, two intervals due, and Redis full of odd merchants and poison."""
    now = dt.datetime.now(dt.UTC)
    # The first is old, so that nobody waits for its run: just after the hour a third one is due.
    start = (now - QUIET).replace(minute=0, second=0, microsecond=0) - dt.timedelta(hours=2)
    choices = {"USAGE_START_DATE": start.isoformat(), "USAGE_DEADLINE_SECONDS": str(DEADLINE_SECONDS)}
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(TemporaryDirectory(prefix="usage-scheduler-", dir=folder_in_memory()))
        ).resolve()
        folder.chmod(0o711)  # PostgreSQL runs as another user than root
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        postgres = stack.enter_context(Postgres(folder / "postgres", settings={"fsync": "off"}))
        conn = prepare(stack.enter_context(psycopg.connect(postgres.url, autocommit=True)))
        schema.migrate(conn)
        slack = stack.enter_context(Slack().running())
        monitor = stack.enter_context(OpenTelemetry().running())
        certificate = make_certificate(folder / "pagerduty.pem")
        answer = b'{"dedup_key": "told"}'
        pagerduty = stack.enter_context(PagerDuty(202, answer, certificate).running())
        airflow = INSTALLED(
            folder / "airflow",
            postgres.create_database("airflow"),
            {
                **choices,
                **monitor.environ,
                # One lane has a backend of its own for XComs; so have the workers of the other.
                **({} if AIRFLOW_3 else kept_elsewhere(folder)),
                "AIRFLOW_CONN_USAGE_REDIS": redis_connection(valkey.url),
                "AIRFLOW_CONN_USAGE_POSTGRES": postgres_connection(postgres.url),
                "AIRFLOW_CONN_USAGE_SLACK": json.dumps(
                    {
                        "conn_type": "slackwebhook",
                        "host": f"127.0.0.1:{slack.port}/services",
                        "schema": "http",
                        "password": SLACK_TOKEN,
                    }
                ),
                "AIRFLOW_CONN_USAGE_PAGERDUTY": json.dumps(
                    {
                        "conn_type": "pagerduty_events",
                        "host": "127.0.0.1",
                        "port": pagerduty.port,
                        "password": PAGERDUTY_KEY,
                    }
                ),
                # PagerDuty's client takes nothing but TLS.
                "SSL_CERT_FILE": str(certificate),
                # Where alerts are kept while PostgreSQL is down: not where another test's are.
                "TMPDIR": str(folder),
            },
            dags_folder=_dags_folder(folder / "dags"),
        )
        world = World(
            airflow=airflow,
            redis=stack.enter_context(redis.Redis.from_url(valkey.url)),
            conn=conn,
            slack=slack,
            monitor=monitor,
            pagerduty=pagerduty,
            settings=load_settings(choices),
            yesterday=now.date() - dt.timedelta(days=1),
            today=now.date(),
            secrets={
                "Redis": valkey.password,
                "PostgreSQL": postgres.password,
                "Slack": SLACK_TOKEN,
                "PagerDuty": PAGERDUTY_KEY,
            },
            addresses={"USAGE_REDIS_URL": valkey.url, "USAGE_POSTGRES_URL": postgres.url},
            logs=[airflow.logs, valkey.log, postgres.log],
        )
        _fill(world, poison)
        stack.enter_context(world.observed())
        stack.enter_context(airflow)
        yield world


def _dags_folder(folder: Path) -> Path:
    """Our DAGs, and one that waits for them."""
    shutil.copytree(PROJECT / "dags", folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(__file__).parent / "billing.py", folder)
    return folder


def _fill(world: World, poison: dict[bytes, tuple[bytes | None, str]]) -> None:
    for number, merchant in enumerate(MERCHANTS, start=1):
        for day in (world.yesterday, world.today):
            for metric in METRICS:
                world.count(CounterKey(merchant, day, metric), 1000 * number)
    for key, (value, _) in poison.items():
        if value is None:
            world.redis.hset(key.decode(), "not", "a counter")
        else:
            world.redis.set(key, value)
        world.redis.expire(key, dt.timedelta(days=7))


@pytest.fixture(scope="session")
def scheduled_runs(world: World) -> list[DagRun]:
    """The runs that the scheduler made by itself and finished, while the API was counting on."""

    def ended() -> list[DagRun] | None:
        runs = world.airflow.api.runs(DAG_ID) if world.airflow.api.has_dag(DAG_ID) else []
        return runs if len(runs) >= 2 and all(run.finished for run in runs) else None

    with world.busy():
        return world.airflow.wait_until(ended, "the scheduler has caught up", 2 * RUN_SECONDS)


@pytest.fixture
def between_runs(world: World, scheduled_runs: list[DagRun]) -> World:
    """The world while no scheduled run is under way or about to come: on the hour one takes all that is owed."""
    assert scheduled_runs
    world.pass_the_hour()
    return world


@pytest.fixture(scope="session")
def run_by_hand(world: World, scheduled_runs: list[DagRun]) -> DagRun:
    """A run of yesterday and today, after the API went quiet, by the command of the docs."""
    assert scheduled_runs
    conf = {"from_date": str(world.yesterday), "to_date": str(world.today)}
    world.airflow.cli("dags", "trigger", DAG_ID, "--run-id", "by-hand", "-c", json.dumps(conf))
    return world.ended("by-hand")
