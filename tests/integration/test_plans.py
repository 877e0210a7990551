"""How PostgreSQL goes about a query, where another way would take several times as much of its cores.

On both versions that tests run on: what is expensive, and what is forbidden to it, is told differently by each.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import Connection

from local.servers.programs import chosen_version
from merchant_usage.connections import prepare
from merchant_usage.sink import schema
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import set_limits
from merchant_usage.steps.staging import stage
from tests.integration.test_partitions import month_sql
from tests.support import PROJECT, YESTERDAY

MERCHANTS = 20_000
METRICS = 5
BATCH = range(9_000, 9_600)
DAYS = [YESTERDAY - dt.timedelta(days=1), YESTERDAY]
# As it is for a large table: helpers seem to cost next to nothing.
TEMPTED = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0"

# As tasks at once leave it: in no order.
FILL = """
    INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value)
    SELECT to_char(n, 'FM00000'), %(date)s, m::text, n
    FROM generate_series(0, %(merchants)s - 1) n, generate_series(0, %(metrics)s - 1) m
    ORDER BY n * 7919 %% %(merchants)s, m
"""


def fill(conn: Connection, date: dt.date) -> None:
    conn.execute(FILL, {"date": date, "merchants": MERCHANTS, "metrics": METRICS})


def known(conn: Connection) -> None:
    """Statistics of all there is."""
    for day in DAYS:
        fill(conn, day)
    conn.execute("ANALYZE")


def unknown(conn: Connection) -> None:
    """A table that nobody has analysed yet."""
    for day in DAYS:
        fill(conn, day)


def outdated(conn: Connection) -> None:
    """Statistics of yesterday: of a day that is newer PostgreSQL expects one row."""
    fill(conn, DAYS[0])
    conn.execute("ANALYZE")
    fill(conn, DAYS[1])


def empty_once(conn: Connection) -> None:
    """Statistics of a table that was empty."""
    conn.execute("ANALYZE")
    unknown(conn)


def partitioned(conn: Connection) -> None:
    conn.execute("DROP TABLE merchant_usage CASCADE")
    page = (PROJECT / "docs" / "howto" / "partitions.md").read_text(encoding="utf-8")
    table = re.search(r"CREATE TABLE merchant_usage \(.*?PARTITION BY RANGE \(date\);", page, re.DOTALL)
    assert table
    for statement in (table[0], month_sql(dt.date(2026, 10, 1)), month_sql(dt.date(2026, 11, 1))):
        conn.execute(statement.encode())
    schema.migrate(conn)
    outdated(conn)


STATES = (known, unknown, outdated, empty_once, partitioned)


# Where the tests run on PostgreSQL 15, both names mean the same server.
@pytest.fixture(scope="module", params=["postgres"] if chosen_version() == 15 else ["postgres", "postgres15"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", params=STATES, ids=lambda state: state.__name__)
def table(request: pytest.FixtureRequest, server: Any) -> Iterator[Connection]:
    """200 000 rows of two days."""
    make: Callable[[Connection], None] = request.param
    with psycopg.connect(server.create_database(f"plans_{make.__name__}"), autocommit=True) as conn:
        schema.migrate(prepare(conn))
        make(conn)
        # As autovacuum would.
        conn.execute(
            "SELECT brin_summarize_new_values(indexrelid) FROM pg_index JOIN pg_class ON oid = indexrelid"
            " WHERE relkind = 'i' AND relam = (SELECT oid FROM pg_am WHERE amname = 'brin')"
        )
        conn.execute(TEMPTED)
        yield conn


class Work(NamedTuple):
    """What a query did: rows it looked at in merchant_usage, pairs of rows it compared in vain, and how."""

    looked_at: int
    compared: int
    nodes: list[str]


def work(conn: Connection, statement: str, parameters: dict[str, Any], preparation: str, staged: range) -> Work:
    """Run a query, and undo it."""
    with conn.transaction(force_rollback=True):
        set_limits(conn, {"lock_timeout": "10s", "statement_timeout": "60s"})
        conn.execute(query(preparation))
        rows = (f"{n:05}\t{YESTERDAY}\t{m}\t{n + n % 2}\n" for n in staged for m in range(METRICS))
        stage(conn, ["".join(rows).encode()])
        explain = b"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + query(statement)
        row = conn.execute(explain, parameters, prepare=False).fetchone()
    assert row is not None
    assert "JIT" not in row[0][0]
    nodes = list(_nodes(row[0][0]["Plan"]))
    tables = [n for n in nodes if n.get("Relation Name", "").startswith("merchant_usage") and "Scan" in n["Node Type"]]
    return Work(
        sum(_rows(n, "Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck") for n in tables),
        sum(_rows(n, "Rows Removed by Join Filter") for n in nodes),
        [n["Node Type"] for n in nodes],
    )


def _rows(node: dict[str, Any], *figures: str) -> int:
    return int(sum(node.get(figure, 0) for figure in figures) * node["Actual Loops"])


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


@pytest.mark.parametrize(
    "statement", ["count_differences", "insert_new", "upsert_staged", "select_suspects", "select_carrying"]
)
def test_a_batch_reads_its_part_of_the_table_by_itself(
    table: Connection, statement: str, request: pytest.FixtureRequest
) -> None:
    part = {"dates": [YESTERDAY], "first": f"{BATCH[0]:05}", "last": f"{BATCH[-1]:05}", "history": True}
    done = work(table, statement, part, "prepare_batch", BATCH)
    assert not done.compared
    # What is newer than the statistics may be found by its date: then the day is read, and no other. So too where the
    # index of dates is taken besides the key's: it knows blocks, and all rows of a block are looked through.
    is_dated = request.node.callspec.params["table"] in {outdated, partitioned} or "BitmapAnd" in done.nodes
    assert done.looked_at <= (1.2 * MERCHANTS if is_dated else 3 * len(BATCH)) * METRICS
    assert not any("Gather" in node for node in done.nodes)


def test_pages_are_found_by_the_primary_key(table: Connection) -> None:
    groups = [{"page": n % 4, "first": "0", "last": "4", "merchant_ids": [f"{n:05}"]} for n in BATCH]
    parameters = {"groups": json.dumps(groups), "date": YESTERDAY}
    for preparation in ("prepare_batch", "prepare_verification"):
        assert work(table, "select_pages", parameters, preparation, range(0)).looked_at == len(BATCH) * METRICS


def test_a_whole_day_is_compared_with_nothing_twice(table: Connection) -> None:
    days = {"dates": [YESTERDAY], "merchant_dates": [], "merchant_ids": []}
    done = work(table, "select_unscanned_rows", days, "prepare_verification", range(MERCHANTS))
    assert done.looked_at <= 2 * MERCHANTS * METRICS
    assert not done.compared


@pytest.mark.parametrize("statement", ["select_unscanned_rows", "select_totals"])
def test_a_few_merchants_are_found_by_the_primary_key(table: Connection, statement: str) -> None:
    few = range(3)
    days = {"dates": [], "merchant_dates": [YESTERDAY] * len(few), "merchant_ids": [f"{n:05}" for n in few]}
    assert work(table, statement, days, "prepare_verification", few).looked_at <= 2 * len(few) * METRICS


def test_no_plan_depends_on_a_switch() -> None:
    """What `enable_...` does differs between versions: on some it makes a query seem so dear that it is compiled."""
    files = list((PROJECT / "include" / "sql").rglob("*.sql"))
    assert len(files) > 50
    assert not [file.name for file in files if re.search("enable_[a-z]+", file.read_text(encoding="utf-8"))]
