"""What the drivers raise becomes one sentence: the right class, whether it heals, and no secret."""

from __future__ import annotations

import psycopg
import pytest
import redis

from merchant_usage.driver_errors import explain, explain_postgres, explain_redis, explained
from merchant_usage.errors import (
    MIGRATE_COMMAND,
    PostgresRefused,
    PostgresUnavailable,
    RedisRefused,
    RedisUnavailable,
    RunIncomplete,
    SchemaError,
    SettingsError,
    UpsertFailed,
    UsageError,
    UsageMismatch,
)


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (redis.AuthenticationError("WRONGPASS invalid"), RedisRefused, "refuses the login: WRONGPASS"),
        (redis.exceptions.NoPermissionError("NOPERM no scan"), RedisRefused, "may not do what is needed: NOPERM"),
        (redis.ConnectionError("Connection refused"), RedisUnavailable, "does not answer: Connection refused"),
        (redis.TimeoutError("timed out"), RedisUnavailable, "does not answer: timed out"),
        (redis.BusyLoadingError("loading"), RedisUnavailable, "does not answer: loading"),
        (redis.exceptions.ClusterDownError("CLUSTERDOWN"), RedisUnavailable, "does not answer: CLUSTERDOWN"),
        (redis.exceptions.RedisClusterException("no nodes"), RedisUnavailable, "Cluster does not answer as a whole"),
        (redis.ResponseError("ERR unknown"), RedisRefused, "refused a command: ERR unknown"),
        (redis.ReadOnlyError("You can't write"), RedisUnavailable, "cannot serve at the moment: You can't write"),
        (redis.exceptions.OutOfMemoryError("maxmemory"), RedisUnavailable, "cannot serve at the moment: maxmemory"),
        (redis.exceptions.MasterDownError("Link"), RedisUnavailable, "does not answer: Link"),
        (
            redis.ResponseError("BUSY Redis is busy"),
            RedisUnavailable,
            "cannot serve at the moment: BUSY Redis is busy.",
        ),
        (redis.ResponseError("MISCONF disk"), RedisUnavailable, "cannot serve at the moment: MISCONF disk"),
        (redis.ResponseError("NOREPLICAS few"), RedisUnavailable, "cannot serve at the moment: NOREPLICAS few"),
        (redis.ResponseError("BUSYGROUP of streams"), RedisRefused, "refused a command: BUSYGROUP"),
        (redis.ConnectionError(), RedisUnavailable, "does not answer: ConnectionError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_redis(error: Exception, kind: type[UsageError], told: str) -> None:
    explained_error = explain_redis(error)
    assert type(explained_error) is kind
    assert told in str(explained_error)
    assert explained_error.heals is (kind is RedisUnavailable)
    assert explain(error) == str(explained_error)
    with pytest.raises(kind) as raised, explained():
        raise error
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (psycopg.errors.UndefinedTable('relation "x"'), SchemaError, MIGRATE_COMMAND),
        (psycopg.errors.UndefinedColumn('column "x"'), SchemaError, MIGRATE_COMMAND),
        (psycopg.errors.InsufficientPrivilege("denied"), PostgresRefused, "may not do what is needed: denied"),
        (psycopg.OperationalError("password authentication failed"), PostgresRefused, "refuses the login"),
        (psycopg.OperationalError("connection refused"), PostgresUnavailable, "does not answer or broke off"),
        (psycopg.OperationalError("the connection is closed"), PostgresUnavailable, "does not answer or broke off"),
        (psycopg.errors.AdminShutdown("terminating"), PostgresUnavailable, "broke off: terminating"),
        (psycopg.errors.LockNotAvailable("lock timeout"), PostgresUnavailable, "lock timeout"),
        (psycopg.errors.QueryCanceled("statement timeout"), PostgresUnavailable, "statement timeout"),
        (psycopg.errors.DeadlockDetected("deadlock"), PostgresUnavailable, "deadlock"),
        (psycopg.errors.CheckViolation("check"), PostgresRefused, "refused a statement (23514): check"),
        (psycopg.errors.NumericValueOutOfRange("bigint"), PostgresRefused, "(22003): bigint"),
        (psycopg.ProgrammingError("odd"), PostgresRefused, "(no SQLSTATE): odd"),
        (psycopg.OperationalError("first\nsecond line\nthird"), PostgresUnavailable, "first. Nothing was lost"),
        (psycopg.OperationalError("down."), PostgresUnavailable, "down. Nothing was lost"),
        (psycopg.errors.TooManyConnections("too many"), PostgresUnavailable, "broke off: too many"),
        (psycopg.errors.CrashShutdown("crash"), PostgresUnavailable, "broke off: crash"),
        (psycopg.errors.CannotConnectNow("starting"), PostgresUnavailable, "broke off: starting"),
        (psycopg.errors.DiskFull("disk"), PostgresUnavailable, "broke off: disk"),
        (psycopg.errors.IdleInTransactionSessionTimeout("idle"), PostgresUnavailable, "broke off: idle"),
        (psycopg.errors.ReadOnlySqlTransaction("cannot INSERT"), PostgresUnavailable, "is a standby (or its default_"),
        (psycopg.errors.ConfigurationLimitExceeded("temp"), PostgresRefused, "a limit that is set (53400)"),
        (psycopg.OperationalError('connection is bad: invalid sslmode value: "x"'), SettingsError, 'value: "x"'),
        (psycopg.OperationalError("connection is bad: connection to server"), PostgresUnavailable, "does not answer"),
        (
            psycopg.OperationalError("connection failed: SSL error: bad"),
            PostgresRefused,
            "TLS connection to PostgreSQL",
        ),
        (psycopg.OperationalError("connection failed: SSL error: unexpected eof"), PostgresUnavailable, "SSL error"),
        (psycopg.OperationalError("SSL error: bad record"), PostgresUnavailable, "does not answer or broke off"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_postgres(error: psycopg.Error, kind: type[UsageError], told: str) -> None:
    explained_error = explain_postgres(error)
    assert type(explained_error) is kind
    assert told in str(explained_error)
    assert "\n" not in str(explained_error)
    assert explained_error.heals is (kind is PostgresUnavailable)
    assert explain(error) == str(explained_error)
    with pytest.raises(kind) as raised, explained():
        raise error
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), explained():
        raise ZeroDivisionError
    assert explain(ZeroDivisionError()) == "ZeroDivisionError"
    assert explain(SettingsError("as it was")) == "as it was"


def test_upsert_failed_names_ten_merchants_and_counts_the_others() -> None:
    told = str(UpsertFailed({f"m{i:02}": "refused" for i in range(12)}))
    assert told.startswith("12 merchant(s) could not be stored (all others of this batch were): m00: refused; m01")
    assert told.endswith("m09: refused; and 2 more")


def test_mismatch_shows_twenty_lines_and_counts_the_others() -> None:
    told = str(UsageMismatch([f"line {i}" for i in range(25)], 1000)).splitlines()
    assert told[0] == "1000 counter(s) in PostgreSQL do not match Redis; nothing was lowered or deleted."
    assert told[1:21] == [f"  line {i}" for i in range(20)]
    assert told[21] == "  ... and 980 more"
    assert len(told) == 22
    assert "more" not in str(UsageMismatch(["one"], 1))


@pytest.mark.parametrize(
    ("kind", "heals"),
    [
        (SettingsError, False),
        (SchemaError, False),
        (RedisRefused, False),
        (PostgresRefused, False),
        (RedisUnavailable, True),
        (PostgresUnavailable, True),
        (UpsertFailed, False),
        (RunIncomplete, False),
        (UsageMismatch, False),
    ],
)
def test_what_heals_is_tried_again(kind: type[UsageError], heals: bool) -> None:
    assert kind.heals is heals
