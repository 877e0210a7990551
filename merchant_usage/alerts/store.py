"""Keeps in PostgreSQL what was told, beside the ledger: all processes that tell something share it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from psycopg import Connection

from merchant_usage.alerts.alert import AlertKind
from merchant_usage.alerts.register import WINDOW, Entry, Register
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import transaction

# Bad news must not wait for somebody's lock.
LIMITS: Final = {"lock_timeout": "2s", "statement_timeout": "3s"}


@contextmanager
def register(conn: Connection, keys: Iterable[str], now: dt.datetime) -> Iterator[Register]:
    """The register, for one process at a time; what is changed in it is kept when all went well.

    Args:
        keys: of the alerts that are to be raised.

    Raises:
        psycopg.Error: PostgreSQL does not answer, or the table is missing.
    """
    with transaction(conn, LIMITS):
        conn.execute(query("lock_alerts"))
        rows = conn.execute(query("select_alerts"), {"since": now - WINDOW, "keys": list(keys)})
        found = Register(
            Entry(key, AlertKind(kind), raised_at, run_id, sent, resolved_at)
            for key, kind, raised_at, run_id, sent, resolved_at in rows
        )
        yield found
        for entry in found.changed.values():
            conn.execute(
                query("upsert_alert"),
                {
                    "alert_key": entry.key,
                    "kind": str(entry.kind),
                    "run_id": entry.run_id,
                    "raised_at": entry.raised_at,
                    "told": entry.sent,
                    "resolved_at": entry.resolved_at,
                },
            )
