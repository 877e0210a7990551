"""An interrupt may come between any two steps of a transaction: none stays open, and nothing is written into one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from merchant_usage.connections import prepare
from merchant_usage.sink.transactions import transaction
from tests.faults.leftovers import wait_until
from tests.support import Connect


def interrupt_when(conn: psycopg.Connection, status: TransactionStatus) -> None:
    """Have Ctrl-C come just after an answer that leaves the connection so, once."""
    wait = conn.wait

    def wait_and_stop(*args: Any, **kwargs: Any) -> Any:
        answer = wait(*args, **kwargs)
        if conn.info.transaction_status is status:
            conn.wait = wait  # type: ignore[method-assign]
            raise KeyboardInterrupt
        return answer

    conn.wait = wait_and_stop  # type: ignore[method-assign]


def interrupt_at_once(conn: psycopg.Connection) -> None:
    interrupt_when(conn, TransactionStatus.INTRANS)
    conn.execute("SELECT 1")


def interrupt_twice(conn: psycopg.Connection) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    conn.wait = stop  # type: ignore[method-assign]
    raise KeyboardInterrupt


def make_table(conn: psycopg.Connection, name: LiteralString, then: Callable[[], None]) -> None:
    with transaction(conn):
        conn.execute(f"CREATE TABLE {name} ()")
        then()


def test_interrupt_after_begin_is_rolled_back(connect: Connect) -> None:
    conn = connect()
    interrupt_when(conn, TransactionStatus.INTRANS)
    with pytest.raises(KeyboardInterrupt), transaction(conn):
        pytest.fail("it had not begun")
    assert conn.info.transaction_status is TransactionStatus.IDLE


def test_second_interrupt_in_place_of_the_rollback_leaves_no_transaction(connect: Connect, database_url: str) -> None:
    conn = prepare(psycopg.connect(database_url))
    pid = conn.info.backend_pid
    with pytest.raises(KeyboardInterrupt):
        make_table(conn, "lost", lambda: interrupt_twice(conn))
    assert conn.closed
    wait_until(connect(), "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %(pid)s)", pid=pid)
    assert connect().execute("SELECT to_regclass('lost')").fetchone() == (None,)


def test_interrupt_in_the_middle_is_rolled_back(connect: Connect) -> None:
    conn = connect()
    with pytest.raises(KeyboardInterrupt):
        make_table(conn, "lost", lambda: interrupt_at_once(conn))
    assert not conn.closed
    assert conn.info.transaction_status is TransactionStatus.IDLE
    assert conn.execute("SELECT to_regclass('lost')").fetchone() == (None,)


def test_interrupt_after_commit_keeps_what_is_stored(connect: Connect) -> None:
    conn = connect()
    with pytest.raises(KeyboardInterrupt):
        make_table(conn, "kept", lambda: interrupt_when(conn, TransactionStatus.IDLE))
    assert connect().execute("SELECT to_regclass('kept')").fetchone() == ("kept",)
