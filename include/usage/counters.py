"""Reads counters from Redis: one SCAN for the keys, then their values a page at a time.

Works on a `redis.Redis` and on a `redis.RedisCluster`; on the latter every primary is scanned.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

import redis
from redis.cluster import RedisCluster

from include.usage import cluster
from include.usage.dead_letters import DeadLetter, Reason
from include.usage.errors import RedisRefused
from include.usage.keys import match_pattern

RedisClient = redis.Redis | RedisCluster

# More keys a MGET gains nothing (measured), and a page bounds what one reply may weigh.
PAGE: Final = 1000

MAX_VALUE: Final = 2**63 - 1
_INTEGER = re.compile(rb"-?[0-9]+")
_MAX_DIGITS = len(str(MAX_VALUE))


Item = TypeVar("Item")


def pages(items: Iterable[Item], size: int = PAGE) -> Iterator[list[Item]]:
    """Cut a stream into lists of at most `size`."""
    stream = iter(items)
    while page := list(islice(stream, size)):
        yield page


def scan_pages(client: RedisClient, prefix: str, count: int) -> Iterator[list[bytes]]:
    """All keys of a prefix, once through the whole keyspace, in pages as SCAN returns them.

    A key may come twice, and pages may be empty: that is SCAN's contract. On a cluster every primary is
    scanned; one that cannot be is an error, never a shorter result.

    Raises:
        redis.exceptions.ConnectionError: the connection broke. It is not mended half-way: a cursor means nothing
            to a server that was restarted or took over, and would skip keys in silence.
        ClusterChanged: a cluster moved slots or failed over meanwhile.
    """
    if isinstance(client, RedisCluster):
        yield from cluster.scan_pages(client, prefix, count)
        return
    for node in _primaries(client):
        # The connection itself, because the client would reconnect and go on by itself.
        connection: Any = node.connection_pool.get_connection()
        try:
            cursor = b"0"
            while True:
                command = ("SCAN", cursor, "MATCH", match_pattern(prefix), "COUNT", count)
                connection.send_command(*command, check_health=False)
                cursor, page = connection.read_response()
                yield page
                if cursor == b"0":
                    break
        except BaseException:
            connection.disconnect()  # an answer may be under way that nobody will read
            raise
        finally:
            node.connection_pool.release(connection)


def _primaries(client: redis.Redis) -> list[redis.Redis]:
    """The server to scan, which must not be a replica.

    Raises:
        RedisRefused: the server is a replica; it may lag, and its readings would be too low.
    """
    try:
        replication: Any = client.info("replication")
    except redis.exceptions.NoPermissionError:
        return [client]  # INFO is kept from many ACL users; then we trust the connection
    if replication.get("role") not in (None, "master"):
        raise RedisRefused(
            "The usage_redis connection points to a replica, which may lag behind. Point it to the primary "
            f"({replication.get('master_host')}:{replication.get('master_port')})."
        )
    return [client]


def read_page(client: RedisClient, keys: Sequence[bytes]) -> list[int | DeadLetter | None]:
    """The counters of these keys, in their order: a value, why there is none, or None if the key is gone.

    MGET answers nil for a missing key and for a key of another type alike, so the nils are asked their type.
    """
    raws: list[Any] = _mget(client, keys)
    # Nearly every page is all good, and then goes through a few C loops. bytes.isdigit() knows ASCII digits only.
    if None not in raws and all(map(bytes.isdigit, raws)) and max(map(len, raws), default=0) < _MAX_DIGITS:
        return list(map(int, raws))
    missing = [i for i, raw in enumerate(raws) if raw is None]
    readings: list[int | DeadLetter | None] = [
        None if raw is None else parse_value(key, raw) for key, raw in zip(keys, raws, strict=True)
    ]
    if missing:
        types = _types(client, [keys[i] for i in missing])
        for i, kind in zip(missing, types, strict=True):
            readings[i] = _reading_of_nil(client, keys[i], kind)
    return readings


def parse_value(key: bytes, raw: bytes) -> int | DeadLetter:
    """A counter's value: ASCII decimal digits, 0 to 2^63-1. `int()` alone would take `1_000` and spaces."""
    if raw.isdigit() and len(raw) < _MAX_DIGITS:
        return int(raw)
    shown = repr(raw[:60])[1:] + ("..." if len(raw) > 60 else "")
    if not _INTEGER.fullmatch(raw):
        return DeadLetter(key, Reason.NOT_AN_INTEGER, f"the value is {shown}")
    if raw.startswith(b"-"):
        return DeadLetter(key, Reason.NEGATIVE, f"the value is {shown}")
    digits = raw.lstrip(b"0") or b"0"
    if len(digits) > _MAX_DIGITS or int(digits) > MAX_VALUE:
        return DeadLetter(key, Reason.OUT_OF_RANGE, f"the value is {shown}, the largest is {MAX_VALUE}")
    return int(digits)


def with_date(letter: DeadLetter, date: dt.date) -> DeadLetter:
    """The same dead letter, told of its usage date."""
    return DeadLetter(letter.redis_key, letter.reason, letter.detail, date)


def _reading_of_nil(client: RedisClient, key: bytes, kind: bytes) -> int | DeadLetter | None:
    if kind == b"none":
        return None
    if kind == b"string":  # it came back between MGET and TYPE
        raw: Any = client.get(key)
        return None if raw is None else parse_value(key, raw)
    return DeadLetter(key, Reason.WRONG_TYPE, f"the key holds a {kind.decode(errors='replace')}, not a counter")


def _mget(client: RedisClient, keys: Sequence[bytes]) -> list[bytes | None]:
    if isinstance(client, RedisCluster):
        return cluster.execute_each(client, keys, [("GET", key) for key in keys])
    values: Any = client.mget(keys)
    return list(values)


def _types(client: RedisClient, keys: Sequence[bytes]) -> list[bytes]:
    if isinstance(client, RedisCluster):
        return cluster.execute_each(client, keys, [("TYPE", key) for key in keys])
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.type(key)
    return list(pipeline.execute())
