"""Reads counters from Redis: one SCAN for the keys, then their values a page at a time.

Works on a `redis.Redis` and on a `redis.RedisCluster`; on the latter every primary is scanned.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeVar

import redis
from hiredis import pack_command
from redis.cluster import RedisCluster

from merchant_usage.errors import RedisRefused
from merchant_usage.model.dead_letter import DeadLetter, Reason
from merchant_usage.model.keys import match_pattern
from merchant_usage.source import cluster

RedisClient = redis.Redis | RedisCluster


MAX_VALUE: Final = 2**63 - 1
_INTEGER = re.compile(rb"-?[0-9]+")
_MAX_DIGITS = len(str(MAX_VALUE))

#: What redis-py raises when a connection, and not a command, is the matter.
_BROKEN: Final = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


class KeyPage(Protocol):
    """Some keys that are read together, and whatever else their reader wants to know of them."""

    @property
    def raw_keys(self) -> Sequence[bytes]:
        """The Redis keys."""


AnyPage = TypeVar("AnyPage", bound=KeyPage)


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
            command = ("MATCH", match_pattern(prefix), "COUNT", count)
            connection.send_command("SCAN", cursor, *command, check_health=False)
            while True:
                cursor, page = connection.read_response()
                if cursor != b"0":  # the server walks on while the page is looked at
                    connection.send_command("SCAN", cursor, *command, check_health=False)
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
    return readings(client, keys, _mget(client, keys))


def read_pages(client: RedisClient, pages: Iterable[AnyPage]) -> Iterator[tuple[AnyPage, list[bytes | None]]]:
    """Each page with what MGET answers to its keys: bytes, or nil for a missing key and for another type alike.

    The next page is asked for before an answer is looked at, so that Redis and we work at the same time.
    Should the connection break, the client reads the rest page by page, and reconnects: reading twice is harmless.
    """
    if isinstance(client, RedisCluster):
        for page in pages:
            yield page, _mget(client, page.raw_keys)
    else:
        yield from _read_ahead(client, pages)


def _read_ahead(client: redis.Redis, pages: Iterable[AnyPage]) -> Iterator[tuple[AnyPage, list[bytes | None]]]:
    connection: Any = client.connection_pool.get_connection()
    asked: deque[AnyPage] = deque()
    whole = True
    try:
        stream = iter(pages)
        while (following := next(stream, None)) is not None or asked:
            if following is not None:
                asked.append(following)
                whole = whole and _ask(connection, following.raw_keys)
                if len(asked) == 1:
                    continue
            oldest = asked.popleft()
            answer = _answer(connection) if whole else None
            whole = answer is not None
            yield oldest, _mget(client, oldest.raw_keys) if answer is None else answer
    except BaseException:
        whole = False  # an answer may be under way that nobody will read
        raise
    finally:
        if not whole:
            connection.disconnect()
        client.connection_pool.release(connection)


def _ask(connection: Any, keys: Sequence[bytes]) -> bool:
    """Send MGET. Returns whether the connection holds."""
    try:
        # Packed here, because the connection's own way looks at each key in Python.
        connection.send_packed_command([pack_command(("MGET", *keys))], check_health=False)  # type: ignore[arg-type]
    except _BROKEN:
        return False
    return True


def _answer(connection: Any) -> list[bytes | None] | None:
    """The oldest answer that is still to be read; None if the connection broke."""
    try:
        values: list[bytes | None] = connection.read_response()
    except _BROKEN:
        return None
    return values


def all_plain(raws: Sequence[bytes | None]) -> bool:
    """Whether each of these is a counter as it should be, so that none needs a look of its own.

    A few C loops over the page. What passes here passes `parse_value` too; of what does not, some does.
    """
    # bytes.isdigit() knows ASCII digits only, and none in b"".
    return (
        None not in raws
        and all(map(bytes.isdigit, raws))  # type: ignore[arg-type]  # the line above
        and max(map(len, raws), default=0) < _MAX_DIGITS  # type: ignore[arg-type]
    )


def readings(client: RedisClient, keys: Sequence[bytes], raws: Sequence[bytes | None]) -> list[int | DeadLetter | None]:
    """What MGET answered, understood: a value, why there is none, or None if the key is gone."""
    if all_plain(raws):
        return list(map(int, raws))  # type: ignore[arg-type]  # no None in there
    missing = [i for i, raw in enumerate(raws) if raw is None]
    understood: list[int | DeadLetter | None] = [
        None if raw is None else parse_value(key, raw) for key, raw in zip(keys, raws, strict=True)
    ]
    if missing:
        types = _types(client, [keys[i] for i in missing])
        for i, kind in zip(missing, types, strict=True):
            understood[i] = _reading_of_nil(client, keys[i], kind)
    return understood


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
