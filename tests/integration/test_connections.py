"""Servers that are down, refuse or are the wrong ones: one sentence of the right kind, and never a password."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

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
    with pytest.raises(RedisUnavailable, match="Cluster") as raised:
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
    assert "+scan +mget +get +type" in str(raised.value)
    assert_one_clean_sentence(raised.value, SECRET)


def test_user_with_exactly_the_permissions_that_are_named(
    valkey: Valkey, redis_client: redis.Redis, reader: Callable[..., str]
) -> None:
    redis_client.set("usage:acme:2026-11-23:q", 1)
    redis_client.rpush("usage:list:2026-11-23:q", 1)
    user = reader("~usage:*", "+scan", "+mget", "+get", "+type")
    found = use_redis(f"redis://{user}@127.0.0.1:{valkey.port}/0")
    assert found[b"usage:acme:2026-11-23:q"] == 1
    assert isinstance(found[b"usage:list:2026-11-23:q"], DeadLetter)


def test_replica_is_refused(valkey: Valkey) -> None:
    lines = [f"replicaof 127.0.0.1 {valkey.port}", f"masterauth {valkey.password}"]
    with Valkey(extra_config=lines) as replica:
        with pytest.raises(RedisRefused) as raised:
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
    ],
)
def test_bad_postgres_url_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        use_postgres(url)
    assert str(raised.value).startswith("USAGE_POSTGRES_URL is not a URL that can be used; it takes postgresql://")
    assert_one_clean_sentence(raised.value, SECRET)


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
