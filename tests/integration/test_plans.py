"""How PostgreSQL goes about a batch, where another way would take several times as much of its cores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from merchant_usage.sink.queries import query
from merchant_usage.steps.staging import stage
from tests.support import YESTERDAY, Usage

MERCHANTS = 20_000
BATCH = range(9_000, 9_600)
# As it is for a large table: helpers seem to cost next to nothing.
TEMPTED = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0"


@pytest.mark.parametrize("statement", ["count_differences", "insert_new", "upsert_staged", "select_suspects"])
def test_a_batch_reads_its_part_of_the_table_by_itself(usage: Usage, statement: str) -> None:
    # As tasks at once leave it: in no order.
    usage.conn.execute(
        """
        INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value)
        SELECT to_char(n, 'FM00000'), %(date)s, m::text, n
        FROM generate_series(0, %(merchants)s - 1) n, generate_series(0, 4) m
        ORDER BY n * 7919 %% %(merchants)s, m
        """,
        {"date": YESTERDAY, "merchants": MERCHANTS},
    )
    usage.conn.execute("ANALYZE merchant_usage")
    usage.conn.execute(TEMPTED)
    part = {"dates": [YESTERDAY], "first": f"{BATCH[0]:05}", "last": f"{BATCH[-1]:05}"}
    with usage.conn.transaction():
        usage.conn.execute(query("prepare_batch"))
        stage(usage.conn, [f"{n:05}\t{YESTERDAY}\t0\t1\n".encode() for n in BATCH])
        row = usage.conn.execute(b"EXPLAIN (FORMAT JSON) " + query(statement), part, prepare=False).fetchone()
    assert row is not None
    nodes = list(_nodes(row[0][0]["Plan"]))
    reading = {node["Node Type"] for node in nodes if node.get("Relation Name") == "merchant_usage"} - {"ModifyTable"}
    assert reading
    assert not any("Seq Scan" in way for way in reading)
    assert not any("Gather" in node["Node Type"] for node in nodes)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
