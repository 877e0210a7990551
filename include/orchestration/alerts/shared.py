"""The register that all processes of Airflow share: in PostgreSQL, and in a file while that is down."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection

from include.orchestration.alerts import fallback
from include.orchestration.alerts.patience import within
from include.orchestration.compat import postgres_hook
from include.orchestration.connections import POSTGRES_CONN_ID
from include.usage.alerts import state
from include.usage.alerts.register import Entry, Register
from include.usage.connections import prepare
from include.usage.log import Log

log = Log(__name__)

# libpq would wait minutes for a machine that is gone.
CONNECT_SECONDS: Final = 3.0


@dataclass(slots=True)
class Memory:
    """What was told so far, and the database where more can be looked up; None if it is down."""

    register: Register
    conn: Connection | None


@contextmanager
def memory(keys: Iterable[str], now: dt.datetime) -> Iterator[Memory]:
    """What was told so far, for one process at a time; what is changed in it is kept.

    Args:
        keys: of the alerts that are to be raised.
    """
    entries: list[Entry] = []
    with ExitStack() as stack:
        try:
            conn = stack.enter_context(closing(connect()))
            register = stack.enter_context(state.register(conn, keys, now))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the news must out
            stack.close()
            log.warning(f"PostgreSQL does not say what was told before ({type(error).__name__}); a file here does")
            yield Memory(stack.enter_context(fallback.register(now)), None)
        else:
            with suppress(OSError):
                entries = fallback.kept()
            register.take_over(entries)
            yield Memory(register, conn)
    with suppress(OSError):
        fallback.forget(entries)


def connect() -> Connection:
    """A connection of `usage_postgres`, soon or not at all."""
    conn: Any = within(CONNECT_SECONDS, lambda: postgres_hook(POSTGRES_CONN_ID).get_conn())
    return prepare(conn)
