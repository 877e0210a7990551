"""Tables of an older version are migrated as they are, and no row of them is lost."""

from __future__ import annotations

import re
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import Connection

from merchant_usage.connections import prepare
from merchant_usage.sink import schema
from tests.support import NOW, TODAY, YESTERDAY, Usage, key

DUMP = (Path(__file__).parent / "before_history.sql").read_text(encoding="utf-8")
TABLES = re.findall(r"^CREATE (?:UNLOGGED )?TABLE public\.(\w+)", DUMP, re.MULTILINE)


@pytest.fixture
def older(empty_database: Connection, empty_database_url: str) -> Connection:
    """The database of an older version, as pg_dump wrote it."""
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute(DUMP.encode())
    return prepare(empty_database)


def rows(conn: Connection, columns: dict[str, str]) -> dict[str, list[tuple[Any, ...]]]:
    """All rows, by the columns that a table had then."""
    return {
        table: conn.execute(f"SELECT {names} FROM {table} ORDER BY {names}".encode()).fetchall()  # noqa: S608 - ours
        for table, names in columns.items()
    }


def columns(conn: Connection) -> dict[str, str]:
    return {
        table: ", ".join(
            f'"{name}"'
            for (name,) in conn.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum", [table]
            )
        )
        for table in TABLES
    }


def test_no_row_is_lost(older: Connection) -> None:
    then = columns(older)
    before = rows(older, then)
    assert len(before) == 9
    assert all(before.values()), "each table has a row"
    schema.migrate(older)
    schema.check(older)
    assert rows(older, then) == before
    schema.migrate(older)
    assert rows(older, then) == before


def test_what_was_stored_before_is_the_first_part_of_its_curve(older: Connection, redis_client: redis.Redis) -> None:
    schema.migrate(older)
    usage = Usage(redis_client, older, count(1))
    acme = key("acme", TODAY)
    usage.write({acme: 450, key("acme", YESTERDAY): 1200, key("zero", TODAY): 0})
    usage.aggregate(TODAY, now=NOW)
    curve = older.execute(
        "SELECT to_at::text, metric_value FROM merchant_usage_hourly"
        " WHERE merchant_id = 'acme' AND date = %s ORDER BY 1",
        [TODAY],
    ).fetchall()
    assert curve[0] == ("2026-11-24 12:00:20+00", 300)
    assert [value for _, value in curve] == [300, 150]
    wrong = older.execute(
        "SELECT merchant_id FROM merchant_usage m JOIN merchant_usage_hourly h USING (merchant_id, date, metric_type)"
        " GROUP BY merchant_id, date, metric_type, m.metric_value HAVING sum(h.metric_value) <> m.metric_value"
    ).fetchall()
    assert wrong == []
    assert older.execute("SELECT usage_date FROM usage_sealed_date").fetchall() == [(YESTERDAY,)]
