"""Looks for what a process that died may leave behind in PostgreSQL."""

from __future__ import annotations

import time
from typing import Any

from psycopg import Connection

from tests.faults.engine import APPLICATION

# PostgreSQL notices a client's death as soon as it reads from it or writes to it; a busy machine takes its time.
SECONDS = 90


def wait_until(conn: Connection, condition: str, **parameters: Any) -> None:
    """Return as soon as a query says true."""
    deadline = time.monotonic() + SECONDS
    while True:
        row = conn.execute(condition, parameters).fetchone()
        if row is not None and row[0]:
            return
        assert time.monotonic() < deadline, f"not within {SECONDS} s: {condition}"
        # Nobody tells when a session ends or begins to wait, so ask again soon.
        time.sleep(0.005)


def assert_nothing_left(conn: Connection) -> None:
    """Sessions of the engine end by themselves, and leave no table, no lock and no transaction open."""
    wait_until(
        conn,
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = %(application)s",
        application=APPLICATION,
    )
    # A session keeps its temporary table as long as it lives, but no rows in it.
    filled = "relkind = 'r' AND relpersistence = 't' AND pg_relation_size(oid) > 0"
    assert _count(conn, f"pg_class WHERE {filled}") == 0, "rows in a temporary table"
    others = "database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()"
    assert _count(conn, f"pg_locks WHERE {others}") == 0, "a lock"
    assert _count(conn, "pg_prepared_xacts") == 0, "a prepared transaction"
    idle = "datname = current_database() AND state LIKE 'idle in transaction%'"
    assert _count(conn, f"pg_stat_activity WHERE {idle}") == 0, "an idle transaction"
    assert _count(conn, "usage_reading") == 0, "a reading"


def _count(conn: Connection, what: str) -> int:
    row = conn.execute(f"SELECT count(*) FROM {what}").fetchone()  # noqa: S608
    assert row is not None
    return int(row[0])
