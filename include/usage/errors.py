"""Every error a person may meet, each carrying its own sentence: what, which, what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import psycopg
import redis.exceptions

MIGRATE_COMMAND = "python -m include.usage migrate"


class UsageError(Exception):
    """Base of all errors of this package. Its text is the whole message, safe to log (never a password)."""

    #: Whether trying again later can help. Airflow retries only those that can heal.
    heals: ClassVar[bool] = False


class SettingsError(UsageError):
    """A setting, a parameter or a connection is missing or wrong."""


class RedisUnavailable(UsageError):
    """Redis cannot be reached, or went away half-way."""

    heals = True


class RedisRefused(UsageError):
    """Redis answers, but refuses what is asked: wrong password, missing permission, a replica."""


class PostgresUnavailable(UsageError):
    """PostgreSQL cannot be reached, went away half-way, or broke off for a reason that passes."""

    heals = True


class PostgresRefused(UsageError):
    """PostgreSQL answers, but refuses what is asked: wrong password, wrong database, no permission."""


class SchemaError(UsageError):
    """The schema is missing, or the tables are not what this package can write to."""


class UpsertFailed(UsageError):
    """Some merchants of a batch could not be stored; all the others were."""

    heals = True

    def __init__(self, failures: dict[str, str]) -> None:
        self.failures = failures
        told = "; ".join(f"{merchant}: {error}" for merchant, error in list(failures.items())[:10])
        more = f"; and {len(failures) - 10} more" if len(failures) > 10 else ""
        super().__init__(
            f"{len(failures)} merchant(s) could not be stored (all others of this batch were): {told}{more}"
        )


class RunIncomplete(UsageError):
    """The run cannot be proven because a part of it did not finish."""


class UsageMismatch(UsageError):
    """PostgreSQL does not hold what Redis holds."""

    #: Lines of the message; the ledger and the task log have the rest.
    SHOWN: ClassVar[int] = 20

    def __init__(self, lines: Sequence[str], total: int) -> None:
        self.lines = list(lines)
        self.total = total
        shown = self.lines[: self.SHOWN]
        more = [f"... and {total - len(shown)} more"] if total > len(shown) else []
        super().__init__(
            "\n  ".join(
                [
                    f"{total} counter(s) in PostgreSQL do not match Redis; nothing was lowered or deleted.",
                    *shown,
                    *more,
                    "To mend: clear upsert_merchant_usage of this run together with its downstream tasks.",
                ]
            )
        )


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


def explain_redis(error: redis.exceptions.RedisError) -> UsageError:
    """The one clear error for an error of redis-py. AuthenticationError is a ConnectionError there."""
    said = _first_line(error)
    if isinstance(error, redis.exceptions.AuthenticationError):
        return RedisRefused(
            f"Redis refuses the login: {said} Check user and password of the usage_redis connection "
            "(USAGE_REDIS_URL on the command line)."
        )
    if isinstance(error, redis.exceptions.NoPermissionError):
        return RedisRefused(
            f"The Redis user may not do what is needed: {said} "
            "It needs +scan +mget +get +type on the usage keys, and +del with clean-up on."
        )
    if isinstance(
        error,
        (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, redis.exceptions.ClusterError),
    ):
        return RedisUnavailable(f"Redis does not answer: {said} Nothing was lost; the run can be repeated.")
    if isinstance(error, redis.exceptions.RedisClusterException):
        return RedisUnavailable(f"The Redis Cluster does not answer as a whole: {said}")
    return RedisRefused(f"Redis refused a command: {said}")


def explain_postgres(error: psycopg.Error) -> UsageError:
    """The one clear error for an error of psycopg, told apart by SQLSTATE where there is one."""
    said = _first_line(error)
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return SchemaError(f"The schema is not complete: {said} Run: {MIGRATE_COMMAND}")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return PostgresRefused(f"The PostgreSQL user may not do what is needed: {said}")
    if isinstance(error, psycopg.OperationalError):
        if error.sqlstate is None and any(words in str(error) for words in _REFUSED_LOGIN):
            return PostgresRefused(
                f"PostgreSQL refuses the login: {said} Check user, password and database of the "
                "usage_postgres connection (USAGE_POSTGRES_URL on the command line)."
            )
        return PostgresUnavailable(
            f"PostgreSQL does not answer or broke off: {said} Nothing was lost; the run can be repeated."
        )
    return PostgresRefused(f"PostgreSQL refused a statement ({error.sqlstate or 'no SQLSTATE'}): {said}")


def explain(error: Exception) -> str:
    """One sentence for any error, those of the drivers included."""
    if isinstance(error, redis.exceptions.RedisError):
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
    except redis.exceptions.RedisError as error:
        raise explain_redis(error) from None
    except psycopg.Error as error:
        raise explain_postgres(error) from None
