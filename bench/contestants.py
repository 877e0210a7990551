"""Ways to move one day of counters: the floor, two honest other designs, and ours."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import psycopg
import redis
import structlog
from psycopg import Connection

from bench.data import DAY, NOW, DataSet
from include.usage.connections import prepare
from include.usage.pipeline import Run, aggregate
from include.usage.settings import load_settings

Contestant = Callable[[redis.Redis, Connection, DataSet], None]

_UPSERT = """
INSERT INTO merchant_usage AS m (merchant_id, date, metric_type, metric_value) VALUES (%s, %s, %s, %s)
ON CONFLICT (merchant_id, date, metric_type) DO UPDATE
SET metric_value = EXCLUDED.metric_value, updated_at = now()
"""


def floor(client: redis.Redis, conn: Connection, data: DataSet) -> None:
    """The least there is to do: walk and read all keys and throw them away, then load ready-made rows."""
    for keys in _scan(client, 1000):
        if keys:
            client.mget(keys)
    with conn.transaction():
        conn.execute("CREATE TEMPORARY TABLE ready (LIKE merchant_usage INCLUDING DEFAULTS) ON COMMIT DROP")
        rows = (
            f"merchant_{merchant:06d}\t{DAY}\tmetric_{metric}\t{merchant * 31 + metric + 1}\n"
            for merchant in range(data.merchants)
            for metric in range(10)
        )
        copy_in = "COPY ready (merchant_id, date, metric_type, metric_value) FROM STDIN"
        with conn.cursor() as cursor, cursor.copy(copy_in) as copy:
            while page := "".join(islice(rows, 1000)):
                copy.write(page)
        conn.execute(
            "INSERT INTO merchant_usage SELECT * FROM ready ON CONFLICT (merchant_id, date, metric_type)"
            " DO UPDATE SET metric_value = EXCLUDED.metric_value, updated_at = now()"
        )


def original(client: redis.Redis, conn: Connection, _: DataSet) -> None:
    """The design that this project replaces: SCAN 100, then GET and a transaction for each key. No verification."""
    for keys in _scan(client, 100):
        for key in keys:
            merchant, date, metric = key.decode().removeprefix("usage:").rsplit(":", 2)
            if date == str(DAY):
                value = client.get(key)
                with conn.transaction():
                    conn.execute(_UPSERT, (merchant, date, metric, int(str(value, "ascii"))))  # type: ignore[arg-type]


def plain(client: redis.Redis, conn: Connection, _: DataSet) -> None:
    """A competent version without more ado: SCAN 1000, MGET, executemany. No verification."""
    for keys in _scan(client, 1000):
        split = [key.decode().removeprefix("usage:").rsplit(":", 2) for key in keys]
        wanted = [(key, parts) for key, parts in zip(keys, split, strict=True) if parts[1] == str(DAY)]
        if wanted:
            values = client.mget([key for key, _ in wanted])
            rows = [(*parts, int(value)) for (_, parts), value in zip(wanted, values, strict=True)]  # type: ignore[arg-type]
            with conn.transaction(), conn.cursor() as cursor:
                cursor.executemany(_UPSERT, rows)


def engine(client: redis.Redis, conn: Connection, _: DataSet) -> None:
    """This project, in one process, verification included."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    aggregate(client, prepare(conn), Run("bench", "cli", (DAY,), NOW), load_settings({}))


CONTESTANTS: dict[str, Contestant] = {"floor": floor, "original": original, "plain": plain, "engine": engine}


def _scan(client: redis.Redis, count: int) -> Iterator[list[bytes]]:
    cursor = 0
    while True:
        reply: Any = client.scan(cursor, match="usage:*", count=count)
        cursor, keys = reply
        yield keys
        if cursor == 0:
            return


def connect(redis_url: str, postgres_url: str) -> tuple[redis.Redis, Connection]:
    """The two servers, as every contestant gets them."""
    return redis.Redis.from_url(redis_url), psycopg.connect(postgres_url, autocommit=True)
