"""Turns what the two drivers raise into our errors. Apart from these, because it takes 0.4 s to import both drivers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import redis.exceptions

from merchant_usage.errors import (
    MIGRATE_COMMAND,
    PostgresRefused,
    PostgresUnavailable,
    RedisRefused,
    RedisUnavailable,
    SchemaError,
    UsageError,
)

# What redis-py raises: the cluster's own exception is no RedisError there.
REDIS_ERRORS = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException)

# PostgreSQL tells a refused login only in words (libpq hands out no SQLSTATE while connecting).
_REFUSED_LOGIN = (
    "password authentication failed",
    "no password supplied",
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied",
    "is not permitted to log in",
)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _sentence(said: str) -> str:
    """What a driver said, so that another sentence may follow."""
    return said if said.endswith((".", "!", "?")) else f"{said}."


def explain_redis(error: Exception) -> UsageError:
    """The one clear error for an error of redis-py. AuthenticationError is a ConnectionError there."""
    said = _first_line(error)
    if isinstance(error, redis.exceptions.AuthenticationError):
        return RedisRefused(
            f"Redis refuses the login: {_sentence(said)} Check user and password of the usage_redis connection "
            "(USAGE_REDIS_URL on the command line)."
        )
    if isinstance(error, redis.exceptions.NoPermissionError):
        return RedisRefused(
            f"The Redis user may not do what is needed: {_sentence(said)} "
            "It needs +scan +mget +get +type on the usage keys, on a cluster also +command +cluster|slots "
            "+cluster|nodes, and +del with clean-up on."
        )
    if isinstance(
        error,
        (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, redis.exceptions.ClusterError),
    ):
        return RedisUnavailable(f"Redis does not answer: {_sentence(said)} Nothing was lost; the run can be repeated.")
    if isinstance(error, redis.exceptions.AskError | redis.exceptions.TryAgainError):  # MOVED is an AskError too
        return RedisUnavailable(f"The Redis Cluster is moving slots, and did not come to an end: {said}")
    if isinstance(error, redis.exceptions.RedisClusterException):
        return RedisUnavailable(f"The Redis Cluster does not answer as a whole: {said}")
    return RedisRefused(f"Redis refused a command: {said}")


def lacks_partition(error: psycopg.Error) -> bool:
    """Whether a partitioned table has no place for a row.

    PostgreSQL calls that a violated CHECK, as a trigger may call what it refuses, and says it in the server's language.
    """
    return isinstance(error, psycopg.errors.CheckViolation) and error.diag.source_function == "ExecFindPartition"


def explain_postgres(error: psycopg.Error) -> UsageError:
    """The one clear error for an error of psycopg, told apart by SQLSTATE where there is one."""
    said = _first_line(error)
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return SchemaError(f"The schema is not complete: {_sentence(said)} Run: {MIGRATE_COMMAND}")
    if lacks_partition(error):
        return SchemaError(
            f"A partition is missing: {said} ({error.diag.message_detail}) Make it, then clear the task."
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return PostgresRefused(f"The PostgreSQL user may not do what is needed: {said}")
    if isinstance(error, psycopg.OperationalError):
        if error.sqlstate is None and any(words in str(error) for words in _REFUSED_LOGIN):
            return PostgresRefused(
                f"PostgreSQL refuses the login: {_sentence(said)} Check user, password and database of the "
                "usage_postgres connection (USAGE_POSTGRES_URL on the command line)."
            )
        return PostgresUnavailable(
            f"PostgreSQL does not answer or broke off: {_sentence(said)} Nothing was lost; the run can be repeated."
        )
    return PostgresRefused(f"PostgreSQL refused a statement ({error.sqlstate or 'no SQLSTATE'}): {said}")


def explain(error: Exception) -> str:
    """One sentence for any error, those of the drivers included."""
    if isinstance(error, REDIS_ERRORS):
        return str(explain_redis(error))
    if isinstance(error, psycopg.Error):
        return str(explain_postgres(error))
    return str(error) or type(error).__name__


@contextmanager
def explained() -> Iterator[None]:
    """Turn what the two drivers raise into one `UsageError`.

    Raises:
        UsageError: in place of any redis-py or psycopg error; the driver's own error is left out of the
            traceback because its first line is in the message.
    """
    try:
        yield
    except REDIS_ERRORS as error:
        raise explain_redis(error) from None
    except psycopg.Error as error:
        raise explain_postgres(error) from None
