"""What a run costs besides time: WAL, disk, connections, other clients' patience, bytes in XCom."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import redis

from bench.contestants import APPLICATION, Figures
from bench.data import DAY
from bench.running import Stage, admin_connection

#: Hourly runs of one day.
RUNS_A_DAY = 24
#: Another client asks about a thousand times a second: enough for a p99, and no load to speak of.
SECONDS_BETWEEN_GETS = 0.001
SECONDS_BETWEEN_SAMPLES = 0.005
NAME_BYTES = 64 * 2**20
VALUE_BYTES = 100 * 2**20

# A parallel query's helpers bear their leader's name; they are no connections.
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND backend_type = 'client backend'"
# The table is all of its own tree, unless it is partitioned.
_TABLE_BYTES = """
SELECT sum(pg_total_relation_size(relid))
FROM (SELECT relid FROM pg_partition_tree('merchant_usage') UNION SELECT 'merchant_usage'::regclass) AS tree
"""
# Whole pages in the WAL, of all sessions that have ended, since the server started.
_IMAGES = "SELECT wal_fpi FROM pg_stat_wal"
_ROW_BYTES = "SELECT avg(pg_column_size(merchant_usage)) FROM merchant_usage"
_HISTORY_BYTES = "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('usage_hourly_history')"


def wal(stage: Stage) -> Figures:
    """Bytes of WAL that a first load, an unchanged re-run and one with 10 % changed write.

    And what the hourly run of a day that still grows writes, with 10 % changed, once its first change has made room in
    the pages: its bytes, how many images of whole pages are among them, and how many bytes the changed rows have.

    Each begins right after a checkpoint, so each pays for a full image of every page it is the first to touch.
    """
    stage.empty()
    figures = {"first_load": _wal_of(stage, "verified"), "unchanged": _wal_of(stage, "verified")}
    stage.grow()
    figures["changed"] = _wal_of(stage, "verified")
    stage.empty()
    stage.run("live")
    stage.grow()
    stage.run("live")
    stage.grow()
    images = stage.number(_IMAGES)
    figures["hourly"] = _wal_of(stage, "live")
    figures["hourly_images"] = stage.number(_IMAGES) - images
    figures["changed_rows"] = stage.number(_ROW_BYTES) * stage.data.merchants
    return figures


def _wal_of(stage: Stage, contestant: str) -> float:
    stage.settle()
    before = stage.number("SELECT pg_current_wal_lsn() - '0/0'")
    stage.run(contestant)
    return stage.number("SELECT pg_current_wal_lsn() - '0/0'") - before


def size(stage: Stage, runs: int = RUNS_A_DAY) -> Figures:
    """Bytes of `merchant_usage` and its indexes after one load, and after so many runs with 10 % changed each.

    And how many values its history has then, and bytes of these.

    Nothing is vacuumed in between: what the table itself reuses is all that keeps it small. Statistics are kept up.
    """
    stage.empty()
    stage.run("live")
    figures = {"rows": float(stage.data.wanted), "after_load": stage.number(_TABLE_BYTES)}
    empty = stage.number(_HISTORY_BYTES)
    for _ in range(runs):
        stage.conn.execute("ANALYZE")
        stage.grow()
        stage.run("live")
    return {
        **figures,
        "runs": float(runs),
        "after_runs": stage.number(_TABLE_BYTES),
        "history": stage.number(_HISTORY_BYTES) - empty,
        "points": stage.number("SELECT count(*) FROM usage_hourly_history"),
    }


def connections(stage: Stage) -> Figures:
    """PostgreSQL connections at their peak, of a run whose batches two processes store at once."""
    stage.empty()
    counts = []

    def sample(conn: psycopg.Connection, ended: threading.Event) -> None:
        while not ended.wait(SECONDS_BETWEEN_SAMPLES):
            row = conn.execute(_CONNECTIONS, [APPLICATION]).fetchone()
            assert row is not None  # it counts
            counts.append(row[0])

    with admin_connection(stage.postgres) as conn, _meanwhile(sample, conn):
        stage.run("verified_by_two")
    return {"peak": float(max(counts)), "mapped_tasks": 2.0}


def neighbour(stage: Stage, *, idle_seconds: float) -> Figures:
    """Milliseconds that another client's GETs take while Redis is idle, and during a first load with verification."""
    stage.empty()
    stage.settle()
    idle: list[float] = []
    during: list[float] = []
    with redis.Redis.from_url(stage.valkey.url) as client:
        with _meanwhile(_get, client, idle):
            time.sleep(idle_seconds)
        with _meanwhile(_get, client, during):
            stage.run("verified")
    return {
        **{f"idle_{name}": value for name, value in _quantiles(idle).items()},
        **{f"during_{name}": value for name, value in _quantiles(during).items()},
    }


def _get(client: redis.Redis, taken: list[float], ended: threading.Event) -> None:
    key = f"usage:merchant_000000:{DAY}:metric_0"
    client.get(key)  # connects
    while not ended.wait(SECONDS_BETWEEN_GETS):
        started = time.perf_counter()
        client.get(key)
        taken.append((time.perf_counter() - started) * 1000)


def _quantiles(milliseconds: list[float]) -> Figures:
    percentiles = statistics.quantiles(milliseconds, n=100)
    return {"p50": percentiles[49], "p99": percentiles[98], "max": max(milliseconds), "gets": float(len(milliseconds))}


@contextmanager
def _meanwhile(work: object, *args: object) -> Iterator[None]:
    """Run `work(*args, ended)` in a thread as long as the block lasts. This process only waits for another one."""
    assert callable(work)
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(*args, ended))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def xcom(stage: Stage) -> Figures:
    """Bytes that the plan and the batches take in XCom."""
    stage.empty()
    stage.settle()
    figures = stage.run("scan")
    sizes = {name: figures[name] for name in ("plan_bytes", "batches", "batches_bytes", "largest_batch_bytes")}
    return {"merchants": float(stage.data.merchants), **sizes}


def garbage(stage: Stage, *, names: int, values: int) -> Figures:
    """Megabytes of a first load at its peak, with names of 64 MB and values of 100 MB among the counters."""
    stage.empty()
    added = [b"usage:" + b"x" * NAME_BYTES + b"%d" % n for n in range(names)]
    for name in added:
        stage.client.set(name, 1)
    bad = [f"usage:bad_{n}:{DAY}:metric_0" for n in range(values)]
    for key in bad:
        stage.client.setrange(key, VALUE_BYTES, "x")
    try:
        return {"names": float(names), "values": float(values), "peak": stage.run("verified")["megabytes"]}
    finally:
        stage.client.delete(*added, *bad)


def redis_bytes(stage: Stage) -> float:
    """Bytes of memory a key takes in Redis."""
    memory = stage.client.info("memory")
    assert isinstance(memory, dict)  # this client waits for its answers
    return float(memory["used_memory_dataset"]) / stage.data.keys
