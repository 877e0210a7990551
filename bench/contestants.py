"""Ways to move one day of counters: the floor and two honest other designs. Ours are in `bench.engine`.

Each takes the open connections and returns its work, ready to be timed. This module imports no more than redis-py and
psycopg: the contestant `connect` is what any process pays that talks to both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import psycopg
import redis
from psycopg import Connection

from bench.data import DAY, DataSet

#: What the contestants' connections call themselves in pg_stat_activity.
APPLICATION: Final = "usage-bench"

#: Keys of the wanted day, and of all days.
OF_THE_DAY: Final = f"usage:*:{DAY}:*"
OF_ANY_DAY: Final = "usage:*"

_UPSERT = """
INSERT INTO merchant_usage AS m (merchant_id, date, metric_type, metric_value) VALUES (%s, %s, %s, %s)
ON CONFLICT (merchant_id, date, metric_type) DO UPDATE
SET metric_value = EXCLUDED.metric_value, updated_at = now()
"""
# Named by their columns, so that any layout of the table will do.
_READY = (
    "CREATE TEMPORARY TABLE ready (merchant_id text, date date, metric_type text, metric_value bigint) ON COMMIT DROP"
)
_COPY_READY = "COPY ready (merchant_id, date, metric_type, metric_value) FROM STDIN"
_UPSERT_READY = """
INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value)
SELECT merchant_id, date, metric_type, metric_value FROM ready
ON CONFLICT (merchant_id, date, metric_type) DO UPDATE
SET metric_value = EXCLUDED.metric_value, updated_at = now()
"""

#: Figures that a contestant adds to its time and memory: seconds of its phases and the like.
Figures = dict[str, float]
Work = Callable[[], Figures]


@dataclass(frozen=True)
class Servers:
    """Both servers: their addresses, and an open connection to each."""

    redis_url: str
    postgres_url: str
    client: redis.Redis
    conn: Connection

    @classmethod
    def connect(cls, redis_url: str, postgres_url: str) -> Servers:
        """Open both, as every contestant gets them."""
        client = redis.Redis.from_url(redis_url)
        client.ping()
        conn = psycopg.connect(postgres_url, autocommit=True, application_name=APPLICATION)
        return cls(redis_url, postgres_url, client, conn)


def connect(_: Servers, __: DataSet) -> Work:
    """No work at all."""
    return dict


def walk(servers: Servers, _: DataSet) -> Work:
    """Redis walks its keys and answers with those of the day: one SCAN, nothing read."""

    def work() -> Figures:
        for _ in _scan(servers.client, 1000, OF_THE_DAY):
            pass
        return {}

    return work


def floor(servers: Servers, data: DataSet, match: str = OF_THE_DAY) -> Work:
    """The least there is to do: walk and read the day's keys and throw them away, then load ready-made rows."""
    ready = data.copy_pages()

    def work() -> Figures:
        started = time.perf_counter()
        _read_and_discard(servers.client, match)
        read = time.perf_counter()
        conn = servers.conn
        with conn.transaction():
            conn.execute(_READY)
            with conn.cursor() as cursor, cursor.copy(_COPY_READY) as copy:
                for page in ready:
                    copy.write(page)
            conn.execute(_UPSERT_READY)
        return {"read_seconds": read - started, "write_seconds": time.perf_counter() - read}

    return work


def _read_and_discard(client: redis.Redis, match: str) -> None:
    """One round trip a page: its values, and the next page's keys."""
    cursor, keys = _scan_reply(client.scan(0, match=match, count=1000))
    while cursor or keys:
        pipeline = client.pipeline(transaction=False)
        if keys:
            pipeline.mget(keys)
        if cursor:
            pipeline.scan(cursor, match=match, count=1000)
        replies = pipeline.execute()
        cursor, keys = _scan_reply(replies[-1]) if cursor else (0, [])


def original(servers: Servers, _: DataSet) -> Work:
    """The design that this project replaces: SCAN 100, then GET and a transaction for each key. No verification."""
    client, conn = servers.client, servers.conn

    def work() -> Figures:
        for keys in _scan(client, 100):
            for key in keys:
                merchant, date, metric = key.decode().removeprefix("usage:").rsplit(":", 2)
                if date == str(DAY):
                    value: Any = client.get(key)
                    with conn.transaction():
                        conn.execute(_UPSERT, (merchant, date, metric, int(value)))
        return {}

    return work


def plain(servers: Servers, _: DataSet) -> Work:
    """A competent version without more ado: SCAN 1000, MGET, executemany. No verification."""
    client, conn = servers.client, servers.conn

    def work() -> Figures:
        for keys in _scan(client, 1000):
            split = [key.decode().removeprefix("usage:").rsplit(":", 2) for key in keys]
            wanted = [(key, parts) for key, parts in zip(keys, split, strict=True) if parts[1] == str(DAY)]
            if wanted:
                values: Any = client.mget([key for key, _ in wanted])
                rows = [(*parts, int(value)) for (_, parts), value in zip(wanted, values, strict=True)]
                with conn.transaction(), conn.cursor() as cursor:
                    cursor.executemany(_UPSERT, rows)
        return {}

    return work


def _scan(client: redis.Redis, count: int, match: str = OF_ANY_DAY) -> Iterator[list[bytes]]:
    cursor = 0
    while True:
        cursor, keys = _scan_reply(client.scan(cursor, match=match, count=count))
        yield keys
        if cursor == 0:
            return


def _scan_reply(reply: Any) -> tuple[int, list[bytes]]:
    cursor, keys = reply
    return cursor, keys


CONTESTANTS: dict[str, Callable[[Servers, DataSet], Work]] = {
    "connect": connect,
    "walk": walk,
    "floor": floor,
    "floor_all": partial(floor, match=OF_ANY_DAY),
    "original": original,
    "plain": plain,
}
