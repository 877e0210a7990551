"""Deletes keys that are past the retention and proven to be stored: compare-and-delete, never plain delete."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import redis
from hiredis import pack_command
from psycopg import Connection
from redis.cluster import RedisCluster

from merchant_usage.log import Log
from merchant_usage.model.keys import CounterKey, as_columns, build_key
from merchant_usage.model.pages import pages
from merchant_usage.sink.queries import query
from merchant_usage.source import cluster
from merchant_usage.source.counters import RedisClient

log = Log(__name__)

# One atomic step on the server: an increment that arrives in between makes the value differ, and the key stays.
COMPARE_AND_DELETE: Final = """
if redis.call('MGET', KEYS[1])[1] == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


# A key that is not stored and has less to live than this is usage about to be lost.
EXPIRING_SECONDS: Final = 24 * 60 * 60
# What a person needs to find the cause; the rest is counted.
MAX_EXAMPLES: Final = 10


@dataclass(slots=True)
class TimeToLive:
    """Keys that will never expire, and keys that will soon though PostgreSQL does not hold them."""

    without: int = 0
    expiring: int = 0
    examples_without: list[str] = field(default_factory=list)
    examples_expiring: list[str] = field(default_factory=list)


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
        rows = _select_rows(conn, page)
        expected = [(build_key(prefix, CounterKey(*row[:3])), str(row[3] - row[4]).encode()) for row in rows]
        if dry_run:
            deleted = sum(_value(client, key) == value for key, value in expected)
        else:
            deleted = sum(_compare_and_delete(client, expected))
        cleaned.deleted += deleted
        cleaned.kept += len(page) - deleted
    return cleaned


def inspect_ttl(client: RedisClient, conn: Connection, keys: Iterable[CounterKey], prefix: str) -> TimeToLive:
    """Look for keys without a TTL, and for keys that expire within a day and have no row in PostgreSQL.

    Finds nothing, and says so in the log, if the Redis user may not ask for a TTL: it moves no counter.
    """
    found = TimeToLive()
    for page in pages(keys):
        try:
            seconds = _seconds_to_live(client, page, prefix)
        except redis.exceptions.NoPermissionError:
            log.warning("The Redis user may not ask for a TTL (+ttl), so keys that never expire are not looked for.")
            return found
        soon = [key for key, left in seconds.items() if 0 <= left < EXPIRING_SECONDS]
        stored = {CounterKey(*row[:3]) for row in _select_rows(conn, soon)} if soon else set()
        without = [key for key, left in seconds.items() if left == -1]
        expiring = [key for key in soon if key not in stored]
        found.without += len(without)
        found.expiring += len(expiring)
        found.examples_without += map(str, without[: MAX_EXAMPLES - len(found.examples_without)])
        found.examples_expiring += map(str, expiring[: MAX_EXAMPLES - len(found.examples_expiring)])
    return found


def expiring(client: RedisClient, keys: Iterable[CounterKey], prefix: str) -> set[CounterKey]:
    """Those of the keys that expire within a day; none if the Redis user may not ask for a TTL."""
    found: set[CounterKey] = set()
    with suppress(redis.exceptions.NoPermissionError):
        for page in pages(keys):
            seconds = _seconds_to_live(client, page, prefix)
            found.update(key for key, left in seconds.items() if 0 <= left < EXPIRING_SECONDS)
    return found


def _seconds_to_live(client: RedisClient, page: Sequence[CounterKey], prefix: str) -> dict[CounterKey, int]:
    """How long each key has to live: -1 for ever, -2 if there is none."""
    keys = [build_key(prefix, key) for key in page]
    if isinstance(client, RedisCluster):
        return dict(zip(page, cluster.execute_each(client, keys, [("TTL", key) for key in keys]), strict=True))
    # No command takes several keys, and redis-py's pipeline takes four times as long (measured).
    connection: Any = client.connection_pool.get_connection()
    try:
        connection.send_packed_command([b"".join([pack_command(("TTL", key)) for key in keys])])  # type: ignore[arg-type]  # its stub takes tuples of one
        return {key: connection.read_response() for key in page}
    except BaseException:
        connection.disconnect()  # answers may be under way that nobody will read
        raise
    finally:
        client.connection_pool.release(connection)


def _value(client: RedisClient, key: bytes) -> bytes | None:
    # MGET, because GET is an error for a key that holds something else than a counter.
    values: Any = client.mget([key])
    return values[0]  # type: ignore[no-any-return]  # bytes or None


def _select_rows(conn: Connection, keys: Sequence[CounterKey]) -> list[tuple[Any, ...]]:
    return conn.execute(query("select_rows"), as_columns(keys)).fetchall()


def _compare_and_delete(client: RedisClient, expected: Sequence[tuple[bytes, bytes]]) -> list[bool]:
    if isinstance(client, RedisCluster):
        keys = [key for key, _ in expected]
        commands = [("EVAL", COMPARE_AND_DELETE, 1, key, value) for key, value in expected]
        return list(map(bool, cluster.execute_each(client, keys, commands)))
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
        if _value(pipeline, key) != value:
            return False
        pipeline.multi()
        pipeline.delete(key)
        try:
            return bool(pipeline.execute()[0])
        except redis.exceptions.WatchError:
            return False
