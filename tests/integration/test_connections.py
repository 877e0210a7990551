"""Servers that are down, refuse or are the wrong ones: one sentence of the right kind, and never a password."""

from __future__ import annotations

import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import Connection, sql

from local.servers import Postgres, Valkey, free_port
from merchant_usage.connections import postgres_from_url, redis_from_url
from merchant_usage.driver_errors import explained
from merchant_usage.errors import (
    PostgresRefused,
    PostgresUnavailable,
    RedisRefused,
    RedisUnavailable,
    SettingsError,
    UsageError,
)
from merchant_usage.model.dead_letter import DeadLetter
from merchant_usage.sink import schema
from merchant_usage.source.counters import read_page, scan_pages
from tests.support import WATCHED, tcp_options

SECRET = "s3cret-Pa55word"


def assert_one_clean_sentence(error: UsageError, *secrets: str) -> None:
    """One line, and neither it nor the traceback that Airflow would log holds a secret."""
    assert "\n" not in str(error)
    whole = "".join(traceback.format_exception(error))
    chain: BaseException | None = error
    while chain is not None:
        # Nor would whoever prints what lies behind the error find it.
        whole += repr(chain) if chain is error or not error.__suppress_context__ else ""
        chain = chain.__context__
    for secret in secrets:
        assert secret not in whole


def use_redis(url: str) -> dict[bytes, object]:
    """All that is there under the prefix."""
    found: dict[bytes, object] = {}
    with redis_from_url({"USAGE_REDIS_URL": url}) as client:
        for page in scan_pages(client, "usage", 10):
            found.update(zip(page, read_page(client, page) if page else [], strict=True))
    return found


def use_postgres(url: str) -> None:
    with postgres_from_url({"USAGE_POSTGRES_URL": url}) as conn:
        schema.check(conn)


def test_redis_url_opens_a_client(valkey: Valkey, redis_client: redis.Redis) -> None:
    redis_client.set(b"usage:\xff", 1)
    with redis_from_url({"USAGE_REDIS_URL": f"  {valkey.url}?socket_timeout=5  "}) as client:
        assert [name for page in scan_pages(client, "usage", 10) for name in page] == [b"usage:\xff"]


@pytest.mark.parametrize(
    ("options", "patience"),
    [
        ("", (5, 5, True)),
        ("?socket_timeout=30", (30, 5, True)),
        ("?socket_connect_timeout=1&socket_keepalive=false", (5, 1, False)),
    ],
)
def test_silent_redis_is_waited_for_as_the_url_says(
    valkey: Valkey, options: str, patience: tuple[float, float, bool]
) -> None:
    with redis_from_url({"USAGE_REDIS_URL": valkey.url + options}) as client:
        assert isinstance(client, redis.Redis)
        assert client.ping()
        made = client.connection_pool.get_connection()
        assert (made.socket_timeout, made.socket_connect_timeout, made.socket_keepalive) == patience
        client.connection_pool.release(made)


def test_silent_redis_on_a_socket_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(str(tmp_path / "redis"))
        silent.listen()
        url = f"unix://{tmp_path}/redis?socket_timeout=0.2"
        with redis_from_url({"USAGE_REDIS_URL": url}) as client:
            assert isinstance(client, redis.Redis)
            made: Any = client.connection_pool.make_connection()
            assert (made.socket_timeout, made.socket_connect_timeout) == (0.2, 5)
            with pytest.raises(redis.TimeoutError):
                made.connect()


def test_postgres_url_opens_a_prepared_connection(database_url: str) -> None:
    with postgres_from_url({"USAGE_POSTGRES_URL": database_url + "?client_encoding=latin1"}) as conn:
        assert conn.autocommit
        assert conn.info.encoding == "utf-8"
        schema.check(conn)
    assert conn.closed


@pytest.fixture
def reader(redis_client: redis.Redis) -> Iterator[Callable[..., str]]:
    """Make a user of Redis with these permissions, and tell who it is."""

    def make(*rules: str) -> str:
        redis_client.execute_command("ACL", "SETUSER", "reader", "reset", "on", f">{SECRET}", *rules)
        return f"reader:{SECRET}"

    yield make
    redis_client.execute_command("ACL", "DELUSER", "reader")


def test_wrong_password_of_redis(valkey: Valkey) -> None:
    with pytest.raises(RedisRefused) as raised:
        use_redis(f"redis://:{SECRET}@127.0.0.1:{valkey.port}/0")
    assert str(raised.value).startswith("Redis refuses the login: ")
    assert "USAGE_REDIS_URL" in str(raised.value)
    assert_one_clean_sentence(raised.value, SECRET, valkey.password)


def test_no_password_for_redis(valkey: Valkey) -> None:
    with pytest.raises(RedisRefused, match="refuses the login"):
        use_redis(f"redis://127.0.0.1:{valkey.port}/0")


def test_redis_is_down() -> None:
    with pytest.raises(RedisUnavailable) as raised:
        use_redis(f"redis://:{SECRET}@127.0.0.1:{free_port()}/0")
    assert raised.value.heals
    assert_one_clean_sentence(raised.value, SECRET)


def test_redis_cluster_is_down() -> None:
    with pytest.raises(RedisUnavailable) as raised:
        use_redis(f"redis://:{SECRET}@127.0.0.1:{free_port()}/0?cluster=true")
    assert_one_clean_sentence(raised.value, SECRET)


def test_redis_is_no_cluster(valkey: Valkey) -> None:
    with pytest.raises(RedisRefused, match="says `cluster`, but the server is no node of a Redis Cluster") as raised:
        use_redis(valkey.url + "?cluster=true")
    assert_one_clean_sentence(raised.value, valkey.password)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        pytest.param(["~usage:*", "+info", "+mget", "+get", "+type"], "scan", id="may not scan"),
        pytest.param(["~usage:*", "+info", "+scan", "+get", "+type"], "mget", id="may not read"),
        pytest.param(["~other:*", "+@all"], "usage", id="other keys only"),
    ],
)
def test_user_without_permission(
    valkey: Valkey, redis_client: redis.Redis, reader: Callable[..., str], rules: list[str], told: str
) -> None:
    redis_client.set("usage:acme:2026-11-23:q", 1)
    with pytest.raises(RedisRefused) as raised:
        use_redis(f"redis://{reader(*rules)}@127.0.0.1:{valkey.port}/0")
    assert str(raised.value).startswith("The Redis user may not do what is needed: ")
    assert told in str(raised.value).lower()
    assert "+scan +mget +type" in str(raised.value)
    assert_one_clean_sentence(raised.value, SECRET)


def test_user_with_exactly_the_permissions_that_are_named(
    valkey: Valkey, redis_client: redis.Redis, reader: Callable[..., str]
) -> None:
    redis_client.set("usage:acme:2026-11-23:q", 1)
    redis_client.rpush("usage:list:2026-11-23:q", 1)
    user = reader("~usage:*", "+scan", "+mget", "+type")
    found = use_redis(f"redis://{user}@127.0.0.1:{valkey.port}/0")
    assert found[b"usage:acme:2026-11-23:q"] == 1
    assert isinstance(found[b"usage:list:2026-11-23:q"], DeadLetter)


def test_replica_is_refused(valkey: Valkey) -> None:
    lines = [f"replicaof 127.0.0.1 {valkey.port}", f"masterauth {valkey.password}"]
    with Valkey(extra_config=lines) as replica:
        with pytest.raises(RedisUnavailable) as raised:  # after a failover it is one for a while
            use_redis(replica.url)
        assert str(raised.value) == (
            "The usage_redis connection points to a replica, which may lag behind. Point it to the primary "
            f"(127.0.0.1:{valkey.port})."
        )
        assert_one_clean_sentence(raised.value, valkey.password, replica.password)


def test_wrong_password_of_postgresql(postgres: Postgres) -> None:
    with pytest.raises(PostgresRefused) as raised:
        use_postgres(f"postgresql://usage:{SECRET}@127.0.0.1:{postgres.port}/usage")
    assert str(raised.value).startswith("PostgreSQL refuses the login: ")
    assert "USAGE_POSTGRES_URL" in str(raised.value)
    assert_one_clean_sentence(raised.value, SECRET, postgres.password)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda url, postgres: url.replace(f":{postgres.password}@", "@"), id="no password"),
        pytest.param(lambda url, _: url.replace("usage:", "nobody:"), id="no such user"),
        pytest.param(lambda url, _: url + "_not_there", id="no such database"),
    ],
)
def test_wrong_login_of_postgresql(
    postgres: Postgres, change: Callable[[str, Postgres], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    with pytest.raises(PostgresRefused, match="refuses the login") as raised:
        use_postgres(change(postgres.url, postgres))
    assert not raised.value.heals
    assert_one_clean_sentence(raised.value, postgres.password)


def test_postgresql_is_down() -> None:
    with pytest.raises(PostgresUnavailable) as raised:
        use_postgres(f"postgresql://usage:{SECRET}@127.0.0.1:{free_port()}/usage")
    assert raised.value.heals
    assert_one_clean_sentence(raised.value, SECRET)


def test_user_of_postgresql_without_permission(database: Connection, database_url: str, postgres: Postgres) -> None:
    database.execute(sql.SQL("CREATE USER guest_of_tests PASSWORD {}").format(SECRET))
    try:
        url = database_url.replace(f"usage:{postgres.password}", f"guest_of_tests:{SECRET}")
        with (
            pytest.raises(PostgresRefused, match="may not do what is needed: permission denied for table") as raised,
            postgres_from_url({"USAGE_POSTGRES_URL": url}) as conn,
        ):
            conn.execute("SELECT * FROM merchant_usage")
        assert_one_clean_sentence(raised.value, SECRET)
    finally:
        database.execute("DROP USER guest_of_tests")


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(f"http://:{SECRET}@host:6379/0", id="another scheme"),
        pytest.param(f"redis//:{SECRET}@host:6379/0", id="no colon"),
        pytest.param(f"{SECRET}", id="the password alone"),
        pytest.param(f"redis://:{SECRET}@host:port/0", id="port in words"),
        pytest.param(f"redis://:12/{SECRET}@host:6379/0", id="slash in the password"),
        pytest.param(f"redis://:pa/{SECRET}@host:6379/0", id="slash after letters in the password"),
        pytest.param(f"redis://:pa#{SECRET}@host:6379/0", id="hash in the password"),
        pytest.param(f"redis://:12#{SECRET}@host:6379/0", id="hash after digits in the password"),
        pytest.param(f"redis://:pa?{SECRET}@host:6379/0", id="question mark in the password"),
        pytest.param(f"redis://{SECRET}?rest@host:6379/0", id="question mark in a password without a colon"),
        pytest.param(f"redis://:12?{SECRET}=1@host:6379/0", id="equals sign after it"),
        pytest.param(f"redis://:pa?a=1&{SECRET}=1@host:6379/0", id="ampersand after it"),
        pytest.param(f"unix://:pa?{SECRET}@/redis.sock", id="question mark, by a socket"),
        pytest.param(f"unix://:pa/{SECRET}@/redis.sock", id="slash, by a socket"),
        pytest.param(f"unix://:pa#{SECRET}@/redis.sock", id="hash, by a socket"),
        pytest.param(f"redis://:{SECRET}@host:6379/0?nonsense=1", id="unknown option"),
        pytest.param(f"redis://:{SECRET}@host:6379/0?socket_timeout=soon", id="bad option"),
        pytest.param(f"redis://:{SECRET}@host:6379/zero", id="database in words"),
        pytest.param(f"redis://:{SECRET}[@host:6379/0", id="bracket in the password"),
    ],
)
def test_bad_redis_url_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        use_redis(url)
    assert str(raised.value).startswith("USAGE_REDIS_URL is not a URL that can be used; it takes redis://")
    assert_one_clean_sentence(raised.value, SECRET)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://host/0?sokcet_timeout=1", "there is no option sokcet_timeout"),
        ("redis://host/0?clustre=true", "there is no option clustre"),
        ("redis://host/0?socket_timeout=soon", "socket_timeout cannot have this value"),
        ("redis://host/0?protocol=4", "protocol must be either 2 or 3"),
        ("redis://host/0?cluster=maybe", "cluster is 'maybe', and takes true or false"),
        ("redis://host/0?socket_keepalive=perhaps", "socket_keepalive is 'perhaps', and takes true or false"),
        ("redis://host/3?db=4", "it names database 3 in its path, and database 4 in db"),
        ("redis://host/?db=four", "db is 'four', and the databases of Redis are numbers"),
        ("redis://host/?db=1&db=2", "it gives db twice"),
        (f"redis://:{SECRET}@host/?password={SECRET}", "it gives password twice"),
        (
            "redis://host/3?cluster=true",
            "it says that it is a cluster, and names database 3: a cluster has only database 0",
        ),
        (
            "redis://host/?ssl=true",
            "it begins with redis:// and says ssl=true: rediss:// is with TLS, redis:// without",
        ),
        (
            "rediss://host/?ssl=false",
            "it begins with rediss:// and says ssl=false: rediss:// is with TLS, redis:// without",
        ),
        ("redis://host/?ssl_ca_certs=/etc/hosts", "it gives ssl_ca_certs, but does not ask for TLS: that is rediss://"),
        ("redis://host/?ssl_cert_reqs=none", "it gives ssl_cert_reqs, but does not ask for TLS: that is rediss://"),
        (
            "redis://host/?ssl_check_hostname=off",
            "it gives ssl_check_hostname, but does not ask for TLS: that is rediss://",
        ),
        ("rediss://host/?ssl_ca_certs=/nowhere", "there is no file /nowhere (ssl_ca_certs)"),
        ("rediss://host/?ssl_certfile=/nowhere", "there is no file /nowhere (ssl_certfile)"),
        ("rediss://host/?ssl_cert_reqs=maybe", "Invalid SSL Certificate Requirements Flag: maybe"),
    ],
)
def test_parts_of_a_redis_url_must_agree(url: str, why: str) -> None:
    with pytest.raises(SettingsError) as raised:
        use_redis(url)
    assert str(raised.value) == (
        "USAGE_REDIS_URL is not a URL that can be used; it takes redis://user:password@host:6379/0 (special characters "
        f"in a password as %XX): {why}"
    )
    assert_one_clean_sentence(raised.value, SECRET)


@pytest.mark.parametrize(
    "options",
    ["", "?db=0", "?ssl=false", "?ssl=0&cluster=no", "?cluster=", "?socket_keepalive=off&health_check_interval="],
)
def test_options_of_redis_that_agree(valkey: Valkey, redis_client: redis.Redis, options: str) -> None:
    redis_client.set("usage:acme:2026-11-23:q", 1)
    assert use_redis(valkey.url + options) == {b"usage:acme:2026-11-23:q": 1}


@pytest.mark.usefixtures("redis_client")
def test_database_of_the_path_is_read(valkey: Valkey) -> None:
    with redis.Redis.from_url(valkey.url[:-1] + "3") as client:
        client.set("usage:in 3:2026-11-23:q", 1)
    assert use_redis(valkey.url[:-1] + "3") == use_redis(valkey.url[:-1] + "?db=3") == {b"usage:in 3:2026-11-23:q": 1}


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(f"http://usage:{SECRET}@host/usage", id="another scheme"),
        pytest.param(f"{SECRET}", id="the password alone"),
        pytest.param(f"postgresql://usage:{SECRET}@host:port/usage", id="port in words"),
        pytest.param(f"postgresql://usage:pa@{SECRET}@127.0.0.1:1/usage", id="at sign in the password"),
        pytest.param(f"postgresql://usage:pa/{SECRET}@127.0.0.1:1/usage", id="slash in the password"),
        pytest.param(f"postgresql://usage:12/{SECRET}@127.0.0.1:1/usage", id="slash after digits in the password"),
        pytest.param(f"postgresql://usage:%zz{SECRET}@host/usage", id="bad escape in the password"),
        pytest.param(f"postgresql://usage:{SECRET}@host/usage?nonsense=1", id="unknown option"),
        pytest.param(f"postgresql://usage:{SECRET}@[host/usage", id="open bracket"),
        pytest.param(f"postgresql://usage:pa/x?{SECRET}=1@host/usage", id="slash and question mark in the password"),
    ],
)
def test_bad_postgres_url_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        use_postgres(url)
    assert str(raised.value).startswith("USAGE_POSTGRES_URL is not a URL that can be used; it takes postgresql://")
    assert_one_clean_sentence(raised.value, SECRET)


def test_unknown_option_of_postgresql_is_named() -> None:
    with pytest.raises(SettingsError, match=r"USAGE_POSTGRES_URL is not a URL .*: there is no option sslmod$"):
        use_postgres(f"postgresql://usage:{SECRET}@host/usage?sslmod=require")


@pytest.mark.parametrize("given", [{}, {"USAGE_REDIS_URL": "", "USAGE_POSTGRES_URL": "  "}], ids=["not set", "empty"])
def test_missing_urls(given: dict[str, str]) -> None:
    def open_one(opened: AbstractContextManager[object]) -> None:
        with opened:
            pass

    with pytest.raises(SettingsError, match=r"USAGE_REDIS_URL is not set; it takes redis://user:password@host"):
        open_one(redis_from_url(given))
    with pytest.raises(SettingsError, match=r"USAGE_POSTGRES_URL is not set; it takes postgresql://user:password@host"):
        open_one(postgres_from_url(given))


def test_connection_that_is_cut_is_told(database_url: str, database: Connection) -> None:
    def be_cut() -> None:
        with postgres_from_url({"USAGE_POSTGRES_URL": database_url}) as conn:
            database.execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])
            conn.execute("SELECT 1")

    with pytest.raises(PostgresUnavailable, match="terminating connection due to administrator command") as raised:
        be_cut()
    assert "\n" not in str(raised.value)


def test_other_failures_of_the_block_pass_through(database_url: str) -> None:
    with pytest.raises(ZeroDivisionError), postgres_from_url({"USAGE_POSTGRES_URL": database_url}):
        raise ZeroDivisionError


def test_closed_connection_is_told(database_url: str) -> None:
    conn = psycopg.connect(database_url)
    conn.close()
    with pytest.raises(PostgresUnavailable, match="closed"), explained():
        conn.execute("SELECT 1")


def test_a_postgresql_whose_machine_is_gone_is_noticed(database_url: str) -> None:
    with postgres_from_url({"USAGE_POSTGRES_URL": database_url}) as conn:
        assert tcp_options(conn) == WATCHED
        assert conn.info.get_parameters()["connect_timeout"] == "10"


def test_what_the_url_says_of_it_stands(database_url: str) -> None:
    given = "keepalives_idle=7&tcp_user_timeout=9000&connect_timeout=3"
    with postgres_from_url({"USAGE_POSTGRES_URL": f"{database_url}?{given}"}) as conn:
        assert tcp_options(conn) == WATCHED | {"keepalives_idle": 7, "tcp_user_timeout": 9000}
        assert conn.info.get_parameters()["connect_timeout"] == "3"
    with postgres_from_url({"USAGE_POSTGRES_URL": f"{database_url}?keepalives=0"}) as conn:
        assert tcp_options(conn)["keepalives"] == 0
