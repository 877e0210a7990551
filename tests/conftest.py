"""One real Redis and one real PostgreSQL for all tests; for each test an empty Redis and a database of its own.

Tests of what other servers do take `postgres15`, `pgbouncer` or `sentinel`.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
import redis
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from psycopg import Connection, sql

from local.servers import Pgbouncer, Postgres, Sentinel, Valkey
from local.servers.programs import chosen_version
from merchant_usage.connections import prepare
from merchant_usage.log import Log, find_by, send_to
from merchant_usage.sink import schema
from tests.left_out import NEEDED, LeftOut
from tests.places import folder_in_memory
from tests.support import PROJECT, StartPgbouncer, Usage
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


def pytest_addoption(parser: pytest.Parser) -> None:
    """What to do where servers are missing is the caller's choice."""
    parser.addoption("--all-servers", action="store_true", help="fail if a server that a test needs is not installed")


def pytest_configure(config: pytest.Config) -> None:
    """Leave out what cannot run here."""
    config.pluginmanager.register(LeftOut(NEEDED, config.getoption("all_servers")))


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """What a test does with our log lines, the command line's way for one, concerns no other test."""
    before = Log.find
    yield
    find_by(before)


@pytest.fixture(autouse=True)
def as_long_as_it_takes() -> None:
    """Thousands of examples are many minutes' work: then none is taken for stuck."""
    if not hypothesis_settings().derandomize:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """A folder that any user can pass through, unlike `tmp_path`: PostgreSQL runs as another user than root."""
    with TemporaryDirectory(prefix="usage-tests-", dir=folder_in_memory()) as path:
        Path(path).chmod(0o711)
        yield Path(path)


@pytest.fixture(scope="session")
def valkey(server_folder: Path) -> Iterator[Valkey]:
    """The Redis of all tests."""
    with Valkey(server_folder / "session-valkey", extra_config=["appendonly no"]) as server:
        yield server


@contextmanager
def _postgres_of_tests(folder: Path, version: int | None = None) -> Iterator[Postgres]:
    fast = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "autovacuum": "off"}
    with Postgres(folder, settings=fast, version=version) as server:
        with psycopg.connect(server.create_database("migrated"), autocommit=True) as conn:
            schema.migrate(conn)
        yield server


@pytest.fixture(scope="session")
def postgres(server_folder: Path) -> Iterator[Postgres]:
    """The PostgreSQL of all tests; the database `migrated` in it is what theirs are copied from."""
    with _postgres_of_tests(server_folder / "session-postgres") as server:
        yield server


@pytest.fixture(scope="session")
def postgres15(server_folder: Path, request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """PostgreSQL 15 as Debian builds it, with LLVM: it compiles what it takes for expensive. Else as `postgres`."""
    if chosen_version() == 15:
        yield request.getfixturevalue("postgres")
        return
    with _postgres_of_tests(server_folder / "session-postgres15", 15) as server:
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
        # By copying files: half the time of writing every page of them through WAL.
        admin.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy").format(**identifiers))
        yield postgres.url_of(name)
        admin.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**identifiers))


@pytest.fixture
def database_url(postgres: Postgres) -> Iterator[str]:
    """A migrated database that no other test uses."""
    yield from _new_database(postgres, "migrated")


@pytest.fixture
def database_url15(postgres15: Postgres) -> Iterator[str]:
    """A migrated database on PostgreSQL 15 that no other test uses."""
    yield from _new_database(postgres15, "migrated")


@pytest.fixture
def pgbouncer() -> Iterator[StartPgbouncer]:
    """Start PgBouncer in transaction mode: `pgbouncer(postgres, 2).through(database_url)` is an address."""
    with ExitStack() as stack:
        yield lambda postgres, pool_size: stack.enter_context(Pgbouncer(postgres, pool_size=pool_size))


@pytest.fixture
def sentinel(valkey: Valkey) -> Iterator[Sentinel]:
    """A Redis Sentinel that watches the Redis of all tests, by the name `usage`."""
    with Sentinel(valkey) as server:
        yield server


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
