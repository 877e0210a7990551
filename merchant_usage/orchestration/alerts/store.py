"""The register that all processes of Airflow share: in PostgreSQL, and in a file while that is down."""

from __future__ import annotations

import datetime as dt
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import psycopg
from psycopg import Connection

from merchant_usage.alerts import store
from merchant_usage.alerts.register import Register
from merchant_usage.connections import prepare
from merchant_usage.log import Log
from merchant_usage.orchestration.alerts import file_store
from merchant_usage.orchestration.alerts.circuit_breaker import (
    TimedOut,
    circuit_breaker,
    opened_by_hanging,
    with_timeout,
)
from merchant_usage.orchestration.connections import usage_postgres_hook

log = Log(__name__)

# libpq would wait minutes for a machine that is gone.
CONNECT_SECONDS: Final = 3.0
#: For the register, and for keeping what has changed in it. The server's own limits are below that, but need a server.
ANSWER_SECONDS: Final = 5.0


@dataclass(slots=True)
class AlertStore:
    """What was told so far, and the database where more can be looked up; None if it is down."""

    register: Register
    conn: Connection | None


@contextmanager
def alert_store(keys: Iterable[str], now: dt.datetime) -> Iterator[AlertStore]:
    """What was told so far, for one process at a time; what is changed in it is kept.

    PostgreSQL may go at any moment; what it did not keep, the file does. Only what the caller does with its connection
    can fail.

    Args:
        keys: of the alerts that are to be raised.
    """
    with ExitStack() as stack:
        try:
            address, conn, register = _open(stack, keys, now)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the news must out
            log.warning(f"PostgreSQL does not say what was told before ({type(error).__name__}); a file here does")
            yield AlertStore(stack.enter_context(file_store.register(now)), None)
            return
        raised_here = file_store.read_entries()
        register.take_over(raised_here)
        yield AlertStore(register, conn)
        try:
            with opened_by_hanging(address):
                with_timeout(ANSWER_SECONDS, stack.close)  # commits
        except Exception as error:  # noqa: BLE001 - as above
            if isinstance(error, TimedOut):
                _hang_up(conn)
            log.warning(f"PostgreSQL does not keep what is told ({type(error).__name__}); a file here does")
            with file_store.register(now) as local:
                local.take_over(register.changed.values())
            return
    with suppress(OSError):
        file_store.forget(raised_here)


def _open(stack: ExitStack, keys: Iterable[str], now: dt.datetime) -> tuple[str, Connection, Register]:
    """The register in PostgreSQL, soon or not at all; the stack closes it, and keeps what was changed in it."""
    hook = usage_postgres_hook()
    address = hook.connection.get_uri()

    def read() -> Register:
        # If it fails, all is closed here: after a timeout nobody else may.
        with ExitStack() as opened:
            opened.enter_context(closing(conn))
            register = opened.enter_context(store.register(conn, keys, now))
            stack.push(opened.pop_all())
        return register

    with circuit_breaker(address):
        conn: Connection = with_timeout(CONNECT_SECONDS, lambda: prepare(hook.get_conn()))
        try:
            return address, conn, with_timeout(ANSWER_SECONDS, read)
        except TimedOut:
            _hang_up(conn)
            raise


def _hang_up(conn: Connection) -> None:
    """End the session of a thread that still waits in it: others wait for its lock.

    The thread then gets an error, and closes the connection. Closed from here it would be gone under the thread's feet,
    which has crashed the process.
    """
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(conn.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)
