"""Transactions in which nobody waits for us without end, whatever becomes of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, TypeVar

import psycopg
from psycopg import Connection
from psycopg.pq import TransactionStatus

from merchant_usage.sink.queries import query

Result = TypeVar("Result")

# What two writers may do to each other, and what is over when one of them begins again.
CONFLICTS: Final = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
#: After this the server ends a session of ours that has fallen silent in a transaction: that of a stopped process, say.
IDLE_LIMIT = "5min"

_AS_THEY_ARE: Mapping[str, str | None] = {"lock_timeout": None, "statement_timeout": None}


@contextmanager
def transaction(conn: Connection, limits: Mapping[str, str | None] = _AS_THEY_ARE) -> Iterator[None]:
    """A transaction with limits, none of which outlives it.

    All writes are in one, single ones too: outside of it a statement has the isolation that the role has set, and two
    runs at once may fail each other's.

    Args:
        limits: lock_timeout and statement_timeout, with unit. None leaves one as it is.
    """
    try:
        with conn.transaction():
            set_limits(conn, limits)
            yield
    except BaseException as error:
        # Ctrl-C may come twice, the second time in place of the rollback: what is written next would be lost.
        if not isinstance(error, Exception) and conn.info.transaction_status is not TransactionStatus.IDLE:
            conn.close()
        raise


def set_limits(conn: Connection, limits: Mapping[str, str | None] = _AS_THEY_ARE) -> None:
    """Bound the transaction that was begun just now."""
    conn.execute(query("set_limits"), {**limits, "idle_limit": IDLE_LIMIT})


def again_on_conflict(work: Callable[[], Result]) -> Result:
    """Do some work; if a deadlock or a serialization failure ends it, once more at once, a few times.

    Args:
        work: harmless if done twice.
    """
    try:
        return work()
    except CONFLICTS:
        import tenacity  # takes 2 MB and as long as a thousand counters, and is seldom needed

        again = tenacity.retry(
            retry=tenacity.retry_if_exception_type(CONFLICTS),
            stop=tenacity.stop_after_attempt(4),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=2),
            reraise=True,
        )
        return again(work)()
