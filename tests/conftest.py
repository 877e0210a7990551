"""One real Redis and one real PostgreSQL for all tests; for each test an empty Redis and a database of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from psycopg import Connection, sql

from local.servers import Postgres, Valkey
from merchant_usage.connections import prepare
from merchant_usage.log import Log, find_by, send_to
from merchant_usage.sink import schema
from tests.support import PROJECT, Usage
from tests.support import Connect as Connect

# Fixtures that a test's examples share are emptied by the test itself; servers on a busy machine have slow moments.
_common = hypothesis_settings(
    deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
hypothesis_settings.register_profile("ci", _common, max_examples=100, derandomize=True)
hypothesis_settings.register_profile("thorough", _common, max_examples=2000)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

# Airflow makes this folder as soon as it is imported; without this it would be ~/airflow.
os.environ.setdefault("AIRFLOW_HOME", str(PROJECT / ".local" / "test" / "airflow"))

_numbers = count(1)


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that any user can pass through, unlike `tmp_path`: PostgreSQL runs as another user than root."""
    with TemporaryDirectory(prefix="usage-tests-") as path:
        Path(path).chmod(0o711)
        yield Path(path)


@pytest.fixture(scope="session")
def valkey(server_folder: Path) -> Iterator[Valkey]:
    """The Redis of all tests."""
    with Valkey(server_folder / "session-valkey", extra_config=["appendonly no"]) as server:
        yield server


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[Postgres]:
    """The PostgreSQL of all tests; the database `migrated` in it is what theirs are copied from."""
    fast = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
    with Postgres(server_folder / "session-postgres", settings=fast) as server:
        with psycopg.connect(server.create_database("migrated"), autocommit=True) as conn:
            schema.migrate(conn)
        yield server


@pytest.fixture
def redis_client(valkey: Valkey) -> Iterator[redis.Redis]:
    """A client of an empty Redis."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
        yield client


def _new_database(postgres: Postgres, template: str) -> Iterator[str]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as admin:
        identifiers = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
        admin.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**identifiers))
        yield postgres.url_of(name)
        admin.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**identifiers))


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """A migrated database that no other test uses."""
    yield from _new_database(postgres, "migrated")


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """A database without tables that no other test uses."""
    yield from _new_database(postgres, "template0")


@pytest.fixture
def connect(database_url: str) -> Iterator[Connect]:
    """Open one more connection to this test's database, as the command line would."""
    with ExitStack() as stack:
        yield lambda: prepare(stack.enter_context(psycopg.connect(database_url, autocommit=True)))


@pytest.fixture
def database(connect: Connect) -> Connection:
    """A connection to a migrated database that no other test uses."""
    return connect()


@pytest.fixture
def empty_database(empty_database_url: str) -> Iterator[Connection]:
    """A connection to a database without tables."""
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        yield prepare(conn)


@pytest.fixture
def usage(redis_client: redis.Redis, database: Connection) -> Usage:
    """An empty Redis and a migrated database, and verbs for them."""
    return Usage(redis_client, database, count(1))


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """The sentences that the engine logs meanwhile, wherever earlier tests have sent them."""
    before, sentences = Log.find, list[str]()
    send_to(lambda _, __, sentence, ___: sentences.append(sentence))
    yield sentences
    find_by(before)
