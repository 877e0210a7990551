"""What can pass is told as such, so that Airflow tries again; what cannot is told at once, in a sentence of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from psycopg import Connection

from local.servers import Postgres, Valkey
from merchant_usage.connections import postgres_from_url
from merchant_usage.driver_errors import explained
from merchant_usage.errors import (
    PostgresRefused,
    PostgresUnavailable,
    RedisRefused,
    RedisUnavailable,
    SettingsError,
    UpsertFailed,
    UsageError,
)
from merchant_usage.steps.cleanup import delete_stale
from tests.cluster.servers import wait_until
from tests.integration.test_connections import assert_one_clean_sentence, use_postgres, use_redis
from tests.integration.test_failures import CHECK
from tests.support import YESTERDAY, Usage, key
from tests.tls import tls_in_front_of
from tests.webhooks import make_certificate

ENDLESS = "while true do end"


@contextmanager
def one_sentence(kind: type[UsageError], sentence: str) -> Iterator[None]:
    """The error is of this kind, begins so, and holds no secret."""
    with pytest.raises(kind) as raised:
        yield
    assert type(raised.value) is kind
    assert str(raised.value).startswith(sentence)
    assert_one_clean_sentence(raised.value)


@pytest.fixture
def server() -> Iterator[Valkey]:
    """A Redis to be brought into all kinds of states."""
    with Valkey(extra_config=["appendonly no", "enable-protected-configs yes"]) as one:
        yield one


def test_redis_that_is_busy_with_a_script(server: Valkey) -> None:
    with redis.Redis.from_url(server.url) as client, redis.Redis.from_url(server.url) as other:
        client.config_set("busy-reply-threshold", 1)

        def run() -> None:
            with pytest.raises(redis.ResponseError, match="killed"):
                other.eval(ENDLESS, 0)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            wait_until(lambda: is_busy(client))
            with one_sentence(RedisUnavailable, "Redis cannot serve at the moment: BUSY "):
                use_redis(server.url)
        finally:
            client.script_kill()
            thread.join()
    assert use_redis(server.url) == {}


def is_busy(client: redis.Redis) -> bool:
    try:
        client.dbsize()
    except redis.ResponseError as error:
        return str(error).startswith("BUSY")
    return False


def test_redis_that_is_loading(server_folder: Path) -> None:
    slow = ["appendonly no", "key-load-delay 10000", "loading-process-events-interval-bytes 1024"]
    with Valkey(server_folder / "slow-valkey", extra_config=slow) as server:
        with redis.Redis.from_url(server.url) as client:
            client.mset({f"usage:m{n}:2026-11-23:q": 1 for n in range(2000)})
            client.save()
        thread = threading.Thread(target=server.restart)
        thread.start()
        try:
            wait_until(lambda: is_loading(server.url))
            with one_sentence(RedisUnavailable, "Redis does not answer: "):
                use_redis(server.url)
            with redis.Redis.from_url(server.url) as client:
                client.config_set("key-load-delay", 0)
        finally:
            thread.join()
        assert len(use_redis(server.url)) == 2000


def is_loading(url: str) -> bool:
    try:
        with redis.Redis.from_url(url) as client:
            client.dbsize()
    except redis.BusyLoadingError:
        return True
    except redis.ConnectionError:
        pass  # it has not begun to listen yet
    return False


State = Callable[[Valkey, redis.Redis], AbstractContextManager[None]]


@contextmanager
def replica_of(server: Valkey, client: redis.Redis) -> Iterator[None]:
    client.config_set("masterauth", server.password)
    client.replicaof("127.0.0.1", str(server.port))
    yield
    client.replicaof("NO", "ONE")


@contextmanager
def without_replicas(_: Valkey, client: redis.Redis) -> Iterator[None]:
    client.config_set("min-replicas-to-write", 1)
    yield
    client.config_set("min-replicas-to-write", 0)


@contextmanager
def with_a_full_disk(server: Valkey, client: redis.Redis) -> Iterator[None]:
    """It could not save what it holds, and takes no writes until it can."""
    in_the_way = server.folder / "data" / "in-the-way"
    (in_the_way / "of it").mkdir(parents=True)
    client.config_set("dbfilename", in_the_way.name)
    client.config_set("save", "3600 1")
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    yield
    client.config_set("save", "")


@pytest.mark.parametrize(
    ("state", "answer"),
    [
        pytest.param(replica_of, "You can't write against a read only replica", id="READONLY"),
        pytest.param(without_replicas, "NOREPLICAS ", id="NOREPLICAS"),
        pytest.param(with_a_full_disk, "MISCONF ", id="MISCONF"),
    ],
)
def test_redis_that_takes_no_writes_for_a_while(
    server: Valkey, valkey: Valkey, database: Connection, state: State, answer: str
) -> None:
    with redis.Redis.from_url(server.url) as client:
        usage = Usage(client, database, iter(range(1, 9)))  # type: ignore[arg-type]  # it is counted on, no more
        usage.write({key("acme"): 5})
        usage.aggregate()
        primary = server if state is not replica_of else valkey
        with (
            state(primary, client),
            one_sentence(RedisUnavailable, f"Redis cannot serve at the moment: {answer}"),
            explained(),
        ):
            delete_stale(client, database, [key("acme")], [YESTERDAY], "usage")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """That of the servers, and one that has nothing to do with it."""
    folder = tmp_path_factory.mktemp("certificates")
    return make_certificate(folder / "server.pem"), make_certificate(folder / "other.pem")


@pytest.fixture
def redis_by_tls(valkey: Valkey, certificates: tuple[Path, Path]) -> Iterator[str]:
    with tls_in_front_of([valkey.port], certificates[0]) as (port,):
        yield f"rediss://:{valkey.password}@127.0.0.1:{port}/0"


@pytest.mark.parametrize("options", ["", "&cluster=true"], ids=["one server", "a cluster"])
def test_certificates_of_redis(redis_by_tls: str, certificates: tuple[Path, Path], options: str) -> None:
    _, other = certificates
    with one_sentence(RedisRefused, "The TLS connection to Redis fails: [SSL: CERTIFICATE_VERIFY_FAILED]"):
        use_redis(f"{redis_by_tls}?ssl_ca_certs={other}{options}")
    with pytest.raises(SettingsError, match=r"there is no file /nowhere/ca.pem \(ssl_ca_certs\)$"):
        use_redis(f"{redis_by_tls}?ssl_ca_certs=/nowhere/ca.pem{options}")
    with one_sentence(RedisRefused, "The TLS connection to Redis fails: [X509: NO_CERTIFICATE_OR_CRL_FOUND]"):
        use_redis(f"{redis_by_tls}?ssl_ca_certs={__file__}{options}")


def test_host_that_a_certificate_does_not_name(redis_by_tls: str, certificates: tuple[Path, Path]) -> None:
    with one_sentence(RedisRefused, "The TLS connection to Redis fails: [SSL: CERTIFICATE_VERIFY_FAILED]"):
        use_redis(f"{redis_by_tls.replace('127.0.0.1', 'localhost')}?ssl_ca_certs={certificates[0]}")


@pytest.fixture
def postgres_by_tls(postgres: Postgres, database_url: str, certificates: tuple[Path, Path]) -> Iterator[str]:
    with tls_in_front_of([postgres.port], certificates[0], postgres=True) as (port,):
        yield database_url.replace(str(postgres.port), str(port))


def test_certificates_of_postgresql(postgres_by_tls: str, certificates: tuple[Path, Path]) -> None:
    own, other = certificates
    use_postgres(f"{postgres_by_tls}?sslmode=verify-full&sslrootcert={own}")
    failing = "The TLS connection to PostgreSQL fails: "
    with one_sentence(PostgresRefused, failing) as _:
        use_postgres(f"{postgres_by_tls}?sslmode=verify-full&sslrootcert={other}")
    with pytest.raises(PostgresRefused, match=rf'{failing}.*root certificate file "/nowhere/ca.pem" does not exist'):
        use_postgres(f"{postgres_by_tls}?sslmode=verify-full&sslrootcert=/nowhere/ca.pem")
    localhost = postgres_by_tls.replace("127.0.0.1", "localhost")
    with pytest.raises(PostgresRefused, match=rf"{failing}.*does not match host name"):
        use_postgres(f"{localhost}?sslmode=verify-full&sslrootcert={own}")
    with pytest.raises(PostgresRefused, match=rf"{failing}.*/nowhere/key.pem"):
        use_postgres(f"{postgres_by_tls}?sslmode=require&sslcert={own}&sslkey=/nowhere/key.pem")


def test_postgresql_without_tls(database_url: str) -> None:
    with pytest.raises(PostgresRefused, match=r"The TLS connection to PostgreSQL fails: .*does not support SSL"):
        use_postgres(f"{database_url}?sslmode=require")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("sslmode=requires", 'invalid sslmode value: "requires"'),
        ("target_session_attrs=primry", 'invalid target_session_attrs value: "primry"'),
        ("keepalives_idle=soon", 'invalid integer value "soon" for connection option "keepalives_idle"'),
    ],
)
def test_option_of_postgresql_that_cannot_be_used(database_url: str, option: str, said: str) -> None:
    with one_sentence(SettingsError, f"The usage_postgres connection cannot be used: {said}"):
        use_postgres(f"{database_url}?{option}")


def test_too_many_connections_to_postgresql(database: Connection, database_url: str, postgres: Postgres) -> None:
    database.execute("CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 1")
    url = database_url.replace(f"usage:{postgres.password}", "few:few")
    try:
        with psycopg.connect(url), one_sentence(PostgresUnavailable, "PostgreSQL does not answer or broke off: "):
            use_postgres(url)
    finally:
        database.execute("DROP ROLE few")


def test_limit_of_postgresql_that_is_met_again_each_time(database_url: str) -> None:
    sort = "SELECT count(*) FROM (SELECT g FROM generate_series(1, 500000) AS g ORDER BY g DESC) AS sorted"
    with (
        one_sentence(
            PostgresRefused, "PostgreSQL meets a limit that is set (53400), and would again: temporary file size"
        ),
        postgres_from_url({"USAGE_POSTGRES_URL": database_url}) as conn,
    ):
        conn.execute("SET temp_file_limit = '64kB'")
        conn.execute("SET work_mem = '64kB'")
        conn.execute(sort)


def test_session_that_was_ended_for_idling(database_url: str) -> None:
    with ExitStack() as stack:
        stack.enter_context(
            one_sentence(PostgresUnavailable, "PostgreSQL does not answer or broke off: terminating connection")
        )
        conn = stack.enter_context(postgres_from_url({"USAGE_POSTGRES_URL": database_url}))
        watcher = stack.enter_context(psycopg.connect(database_url, autocommit=True))
        conn.execute("SET idle_in_transaction_session_timeout = 10")
        with conn.transaction():
            pid = conn.info.backend_pid
            conn.execute("SELECT 1")
            gone = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
            wait_until(lambda: bool((watcher.execute(gone, [pid]).fetchone() or [False])[0]))
            conn.execute("SELECT 1")


def test_merchant_that_a_check_refuses_is_not_tried_again(usage: Usage) -> None:
    usage.conn.execute(CHECK)
    usage.write({key("bad"): 1, key("good"): 1})
    with pytest.raises(UpsertFailed, match=r"bad: PostgreSQL refused a statement \(23514\)") as raised:
        usage.aggregate()
    assert not raised.value.heals
    assert usage.rows() == {key("good"): 1}
