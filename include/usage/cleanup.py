"""Deletes keys that are past the retention and proven to be stored: compare-and-delete, never plain delete."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from psycopg import Connection
from redis.cluster import RedisCluster

from include.usage.counters import RedisClient, pages
from include.usage.keys import CounterKey, build_key
from include.usage.queries import query

# One atomic step on the server: an increment that arrives in between makes the value differ, and the key stays.
COMPARE_AND_DELETE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


@dataclass(slots=True)
class Cleaned:
    """Keys deleted (or, in a dry run, that would be), and keys that differ from PostgreSQL and were left."""

    deleted: int = 0
    kept: int = 0


def delete_stale(
    client: RedisClient,
    conn: Connection,
    keys: Iterable[CounterKey],
    proven_dates: Iterable[dt.date],
    prefix: str,
    *,
    dry_run: bool = False,
) -> Cleaned:
    """Delete those keys of proven dates whose value is exactly what PostgreSQL holds.

    Args:
        proven_dates: dates past the retention that this run verified.
    """
    proven = set(proven_dates)
    cleaned = Cleaned()
    for page in pages(key for key in keys if key.date in proven):
        rows = conn.execute(
            query("select_rows"),
            {
                "merchant_ids": [key.merchant_id for key in page],
                "dates": [key.date for key in page],
                "metric_types": [key.metric_type for key in page],
            },
        ).fetchall()
        expected = [(build_key(prefix, CounterKey(*row[:3])), str(row[3] - row[4]).encode()) for row in rows]
        if dry_run:
            deleted = sum(client.get(key) == value for key, value in expected)
        else:
            deleted = sum(_compare_and_delete(client, expected))
        cleaned.deleted += deleted
        cleaned.kept += len(page) - deleted
    return cleaned


def _compare_and_delete(client: RedisClient, expected: Sequence[tuple[bytes, bytes]]) -> list[bool]:
    if isinstance(client, RedisCluster):
        return [bool(client.eval(COMPARE_AND_DELETE, 1, key, value)) for key, value in expected]
    pipeline = client.pipeline(transaction=False)
    for key, value in expected:
        pipeline.eval(COMPARE_AND_DELETE, 1, key, value)
    replies: list[Any] = pipeline.execute(raise_on_error=False)
    if any(isinstance(reply, redis.exceptions.NoPermissionError) for reply in replies):
        return [_watch_and_delete(client, key, value) for key, value in expected]
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return [bool(reply) for reply in replies]


def _watch_and_delete(client: redis.Redis, key: bytes, value: bytes) -> bool:
    """The same for a user who may not run scripts: WATCH makes the DEL fail if the key was touched."""
    with client.pipeline() as pipeline:
        pipeline.watch(key)
        if pipeline.get(key) != value:
            return False
        pipeline.multi()
        pipeline.delete(key)
        try:
            return bool(pipeline.execute()[0])
        except redis.exceptions.WatchError:
            return False
