"""Turns what the two drivers raise into our errors. Apart from these, because it takes 0.4 s to import both drivers."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import redis.exceptions

from merchant_usage.errors import (
    MIGRATE_COMMAND,
    PartitionMissing,
    PostgresRefused,
    PostgresUnavailable,
    RedisRefused,
    RedisUnavailable,
    SchemaError,
    SettingsError,
    UsageError,
)
from merchant_usage.text import escape

# What redis-py raises: the cluster's own exception is no RedisError there.
REDIS_ERRORS = (redis.exceptions.RedisError, redis.exceptions.RedisClusterException)

# Answers of Redis that are over once a script has ended, a disk has room again, or a failover is complete. Of these
# redis-py has classes, which leave out the answer's first word ...
_REDIS_PASSES: Final = (redis.exceptions.ReadOnlyError, redis.exceptions.OutOfMemoryError)
# ... and of these it has none.
_REDIS_PASSES_IN_WORDS: Final = ("BUSY ", "MISCONF ", "NOREPLICAS ")

# How TLS ends when the server goes away, as any connection may. All else is a matter of certificates and settings.
_BROKEN_TLS: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

# PostgreSQL tells a refused login only in words (libpq hands out no SQLSTATE while connecting).
_REFUSED_LOGIN = (
    "password authentication failed",
    "no password supplied",
    "authentication failed",
    "does not exist",
    "no such database",  # PgBouncer's words
    "no such user",
    "no pg_hba.conf entry",
    "permission denied",
    "is not permitted to log in",
)

# libpq's words, before any login, when the two sides do not come to trust each other. (A broken line is called an "SSL
# SYSCALL error".)
_REFUSED_TLS: Final = (
    "SSL error: ",
    "certificate file",
    "private key file",
    "server certificate",
    "server does not support SSL",
    "requires a valid client certificate",
    "SSL required",  # PgBouncer's words
)
_MAY_NOT_CONNECT: Final = "permission denied for database"
_BROKEN_TLS_IN_WORDS: Final = "unexpected eof"
# How psycopg begins when there is no connection yet.
_CONNECTING: Final = ("connection failed: ", "connection is bad: ")
# libpq's words for an option that it cannot use.
_BAD_OPTION: Final = re.compile('invalid [a-z_]+ value: "|invalid integer value "|could not match .* to ')

# Among the errors that pass these do not: a limit that is set (temp_file_limit, say) is met again by each attempt.
_POSTGRES_STAYS: Final = (
    psycopg.errors.ConfigurationLimitExceeded,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
)
# SQLSTATE class of syntax, names, types and permissions.
_NO_SUCH_THING: Final = "42"
# And these pass, though psycopg takes them for errors of another kind: a session that was ended for idling.
_POSTGRES_PASSES: Final = (psycopg.errors.IdleInTransactionSessionTimeout, psycopg.errors.TransactionTimeout)


def _first_line(error: BaseException) -> str:
    return escape((str(error).strip() or type(error).__name__).splitlines()[0])


def _sentence(said: str) -> str:
    """What a driver said, so that another sentence may follow."""
    return said if said.endswith((".", "!", "?")) else f"{said}."


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what lies behind it."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def explain_redis(error: Exception) -> UsageError:
    """The one clear error for an error of redis-py. AuthenticationError is a ConnectionError there."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, _BROKEN_TLS):
            return RedisRefused(
                f"The TLS connection to Redis fails: {_sentence(_first_line(cause))} Check the certificates "
                "(ssl_ca_certs, ssl_certfile, ssl_keyfile) and ssl_check_hostname of the usage_redis connection "
                "(USAGE_REDIS_URL on the command line)."
            )
    if isinstance(error, redis.exceptions.RedisClusterException):
        return _explain_no_cluster(error, causes)
    said = _first_line(error)
    if isinstance(error, redis.exceptions.AuthenticationError):
        return RedisRefused(
            f"Redis refuses the login: {_sentence(said)} Check user and password of the usage_redis connection "
            "(USAGE_REDIS_URL on the command line)."
        )
    if isinstance(error, redis.exceptions.NoPermissionError):
        return RedisRefused(
            f"The Redis user may not do what is needed: {_sentence(said)} "
            "It needs +scan +mget +type on the usage keys, on a cluster also +get +command +cluster|slots "
            "+cluster|nodes, and +eval +del with clean-up on."
        )
    if isinstance(
        error,
        (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, redis.exceptions.ClusterError),
    ):
        return RedisUnavailable(f"Redis does not answer: {_sentence(said)} Nothing was lost; the run can be repeated.")
    if isinstance(error, redis.exceptions.AskError | redis.exceptions.TryAgainError):  # MOVED is an AskError too
        return RedisUnavailable(f"The Redis Cluster is moving slots, and did not come to an end: {said}")
    if isinstance(error, _REDIS_PASSES) or said.startswith(_REDIS_PASSES_IN_WORDS):
        return RedisUnavailable(
            f"Redis cannot serve at the moment: {_sentence(said)} Nothing was lost; the run can be repeated."
        )
    return RedisRefused(f"Redis refused a command: {said}")


def _explain_no_cluster(error: Exception, causes: list[BaseException]) -> UsageError:
    """Why redis-py found no cluster. The innermost error says so: redis-py takes any refusal for "no cluster"."""
    origin = next((cause for cause in reversed(causes) if isinstance(cause, redis.exceptions.RedisError)), None)
    if isinstance(origin, redis.exceptions.AuthenticationError):
        return explain_redis(origin)
    if isinstance(origin, redis.exceptions.ResponseError):
        reason = explain_redis(origin)
        if reason.heals or isinstance(origin, redis.exceptions.NoPermissionError):
            return reason
        return RedisRefused(
            f"The usage_redis connection says `cluster`, but the server is no node of a Redis Cluster: "
            f"{_sentence(_first_line(origin))} Leave out `cluster` (of the extra, or of USAGE_REDIS_URL), or point it "
            "to a node of a cluster."
        )
    return RedisUnavailable(f"The Redis Cluster does not answer as a whole: {_first_line(error)}")


def lacks_partition(error: psycopg.Error) -> bool:
    """Whether a partitioned table has no place for a row.

    PostgreSQL calls that a violated CHECK, as a trigger may call what it refuses, and says it in the server's language.
    """
    return isinstance(error, psycopg.errors.CheckViolation) and error.diag.source_function == "ExecFindPartition"


def explain_postgres(error: psycopg.Error) -> UsageError:
    """The one clear error for an error of psycopg, told apart by SQLSTATE where there is one."""
    said = _first_line(error)
    if (error.sqlstate or "").startswith(_NO_SUCH_THING) and error.diag.context:
        where = escape(error.diag.context.splitlines()[0])
        return PostgresRefused(f"A function or trigger in PostgreSQL fails ({error.sqlstate}): {said} ({where})")
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return SchemaError(f"The schema is not complete: {_sentence(said)} Run: {MIGRATE_COMMAND}")
    if lacks_partition(error):
        return PartitionMissing(f"A partition is missing: {said} ({escape(error.diag.message_detail or '')})")
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return PostgresRefused(
            f"The PostgreSQL user may not do what is needed: {_sentence(said)} As the same user, "
            f"{MIGRATE_COMMAND} names each right that is missing."
        )
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return PostgresUnavailable(
            f"PostgreSQL takes no writes, because this is a standby (or its default_transaction_read_only is on): "
            f"{_sentence(said)} Point the usage_postgres connection to the primary; after a failover the run can be "
            "repeated."
        )
    if isinstance(error, _POSTGRES_STAYS):
        return PostgresRefused(f"PostgreSQL meets a limit that is set ({error.sqlstate}), and would again: {said}")
    if isinstance(error, _POSTGRES_PASSES):
        return _passing(said)
    if isinstance(error, psycopg.OperationalError):
        return _passing(said) if error.sqlstate else _explain_no_connection(str(error), said)
    return PostgresRefused(f"PostgreSQL refused a statement ({error.sqlstate or 'no SQLSTATE'}): {said}")


def _passing(said: str) -> UsageError:
    return PostgresUnavailable(
        f"PostgreSQL does not answer or broke off: {_sentence(said)} Nothing was lost; the run can be repeated."
    )


def _explain_no_connection(whole: str, said: str) -> UsageError:
    """A connection that was not made, or that broke: only in words, for libpq hands out no SQLSTATE.

    Args:
        whole: all that was said, of each address that was tried.
        said: the first line of it.
    """
    if said.startswith(_CONNECTING) and (bad := _BAD_OPTION.search(said)):
        return SettingsError(f"The usage_postgres connection cannot be used: {said[bad.start() :]}")
    if said.startswith(_CONNECTING) and any(words in whole for words in _REFUSED_TLS):
        if _BROKEN_TLS_IN_WORDS not in whole:
            return PostgresRefused(
                f"The TLS connection to PostgreSQL fails: {_sentence(said)} Check sslmode, sslrootcert, sslcert and "
                "sslkey of the usage_postgres connection (USAGE_POSTGRES_URL on the command line)."
            )
    elif _MAY_NOT_CONNECT in whole:
        return PostgresRefused(
            f"PostgreSQL refuses the login: {_sentence(said)} The role lacks CONNECT on that database; its owner gives "
            "it: GRANT CONNECT ON DATABASE ... TO ...;"
        )
    elif any(words in whole for words in _REFUSED_LOGIN):
        return PostgresRefused(
            f"PostgreSQL refuses the login: {_sentence(said)} Check user, password and database of the "
            "usage_postgres connection (USAGE_POSTGRES_URL on the command line)."
        )
    return _passing(said)


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
