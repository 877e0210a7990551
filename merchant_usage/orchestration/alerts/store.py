"""The register that all processes of Airflow share: in PostgreSQL, and in a file while that is down."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection

from merchant_usage.alerts import store
from merchant_usage.alerts.register import Register
from merchant_usage.connections import prepare
from merchant_usage.log import Log
from merchant_usage.orchestration.alerts import file_store
from merchant_usage.orchestration.alerts.circuit_breaker import noted_if_it_hangs, unless_it_hangs, within
from merchant_usage.orchestration.compat import postgres_hook
from merchant_usage.orchestration.connections import POSTGRES_CONN_ID

log = Log(__name__)

# libpq would wait minutes for a machine that is gone.
CONNECT_SECONDS: Final = 3.0
#: For the register, and for keeping what has changed in it. The server's own limits are below that, but need a server.
ANSWER_SECONDS: Final = 5.0


@dataclass(slots=True)
class Memory:
    """What was told so far, and the database where more can be looked up; None if it is down."""

    register: Register
    conn: Connection | None


@contextmanager
def memory(keys: Iterable[str], now: dt.datetime) -> Iterator[Memory]:
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
            stack.close()
            log.warning(f"PostgreSQL does not say what was told before ({type(error).__name__}); a file here does")
            yield Memory(stack.enter_context(file_store.register(now)), None)
            return
        kept = file_store.kept()
        register.take_over(kept)
        yield Memory(register, conn)
        try:
            with noted_if_it_hangs(address):
                within(ANSWER_SECONDS, stack.close)  # commits
        except Exception as error:  # noqa: BLE001 - as above
            conn.close()  # if it hangs: others wait for its lock
            log.warning(f"PostgreSQL does not keep what is told ({type(error).__name__}); a file here does")
            with file_store.register(now) as local:
                local.take_over(register.changed.values())
            return
    with suppress(OSError):
        file_store.forget(kept)


def _open(stack: ExitStack, keys: Iterable[str], now: dt.datetime) -> tuple[str, Connection, Register]:
    """The register in PostgreSQL, soon or not at all; the stack closes it, and keeps what was changed in it."""
    hook = postgres_hook(POSTGRES_CONN_ID)
    address = hook.connection.get_uri()
    with unless_it_hangs(address):
        connected: Any = within(CONNECT_SECONDS, lambda: prepare(hook.get_conn()))  # type: ignore[arg-type]  # of psycopg
        conn: Connection = stack.enter_context(closing(connected))
        register = within(ANSWER_SECONDS, lambda: stack.enter_context(store.register(conn, keys, now)))
    return address, conn, register
