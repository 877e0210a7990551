"""Reads counters from Redis: one SCAN for the keys, then their values a page at a time.

Works on a `redis.Redis`, on a `redis.RedisCluster`, of which every primary is scanned, and on `Shards`, of which every
server is.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

import redis
from hiredis import pack_command
from redis.cluster import RedisCluster

from merchant_usage.model.dead_letter import DeadLetter, Reason
from merchant_usage.model.keys import match_pattern
from merchant_usage.model.pages import branches
from merchant_usage.source import cluster
from merchant_usage.source.cluster import MAX_VALUE_BYTES, beginning_of
from merchant_usage.source.replies import ScanPace, bound_replies
from merchant_usage.source.server import require_distinct, require_whole
from merchant_usage.source.shards import OnTwoServers, RedisClient, Shards, in_turns, merge, named, of_each

MAX_VALUE: Final = 2**63 - 1
_INTEGER = re.compile(rb"-?[0-9]+")
_MAX_DIGITS = len(str(MAX_VALUE))
# What TTL answers.
_NO_SUCH_KEY: Final = -2

#: What redis-py raises when a connection, and not a command, is the matter.
_BROKEN: Final = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


class KeyPage(Protocol):
    """Some keys that are read together, and whatever else their reader wants to know of them."""

    @property
    def raw_keys(self) -> Sequence[bytes]:
        """The Redis keys."""


AnyPage = TypeVar("AnyPage", bound=KeyPage)
Answer = TypeVar("Answer")


def scan_pages(client: RedisClient, prefix: str, count: int) -> Generator[list[bytes]]:
    """All keys of a prefix, once through the whole keyspace, in pages as SCAN returns them.

    A key may come twice, and pages may be empty: that is SCAN's contract. On a cluster every primary is scanned, of
    several servers each; one that cannot be is an error, never a shorter result. A name that is far too long for a
    usage key may come as a `LongText`: a page takes a few megabytes at most.

    Raises:
        redis.exceptions.ConnectionError: the connection broke. It is not mended half-way: a cursor means nothing
            to a server that was restarted or took over, and would skip keys in silence.
        ClusterChanged: a cluster moved slots or failed over meanwhile.
        RedisRefused, RedisUnavailable: the server does not hold all keys, or is a replica.
    """
    if isinstance(client, RedisCluster):
        yield from cluster.scan_pages(client, prefix, count)
        return
    if isinstance(client, Shards):
        require_distinct(client)
        with ExitStack() as stack:
            scans = [stack.enter_context(closing(scan_pages(each, prefix, count))) for each in client.servers]
            yield from in_turns(list(zip(client.servers, scans, strict=True)))
        return
    # The connection itself, because the client would reconnect and go on by itself.
    connection: Any = client.connection_pool.get_connection()
    try:
        require_whole(connection, prefix)
        replies, pace = bound_replies(connection), ScanPace(count)
        cursor, pattern = b"0", match_pattern(prefix)
        connection.send_command("SCAN", cursor, "MATCH", pattern, "COUNT", count, check_health=False)
        while True:
            cursor, page = connection.read_response()
            pace.adapt(replies)
            if cursor != b"0":  # the server walks on while the page is looked at
                connection.send_command("SCAN", cursor, "MATCH", pattern, "COUNT", pace.count, check_health=False)
            yield page
            if cursor == b"0":
                break
    except BaseException:
        connection.disconnect()  # an answer may be under way that nobody will read
        raise
    finally:
        client.connection_pool.release(connection)


def read_page(client: RedisClient, keys: Sequence[bytes], *, careful: bool = False) -> list[int | DeadLetter | None]:
    """The counters of these keys, in their order: a value, why there is none, or None if the key is gone.

    MGET answers nil for a missing key and for a key of another type alike, so the nils are asked their type.

    Args:
        careful: their values may be large, so only the beginnings are asked for.
    """
    return interpret_values(client, keys, _read_values(client, keys, careful=careful))


def read_pages(
    client: RedisClient, pages: Iterable[AnyPage], suspects: Set[bytes] = frozenset()
) -> Iterator[tuple[AnyPage, list[bytes | None]]]:
    """Each page with what MGET answers to its keys: bytes, or nil for a missing key and for another type alike.

    The next page is asked for before an answer is looked at, so that Redis and we work at the same time.
    Should the connection break, the client reads the rest page by page, and reconnects: reading twice is harmless.

    A page that is found to hold a value of megabytes is read through, and of the values after it only the beginnings
    are asked for: that takes five times as long a page (measured), and spares Redis from holding what it sends.

    Args:
        suspects: keys whose values may be large: of their pages only the beginnings of values are asked for.
    """
    if isinstance(client, RedisCluster):
        for page in pages:
            yield page, _read_values(client, page.raw_keys)
    elif isinstance(client, Shards):
        yield from _read_all_ahead(client, pages, suspects)
    else:
        yield from _read_ahead(client, pages, suspects)


def _read_all_ahead(
    client: Shards, pages: Iterable[AnyPage], suspects: Set[bytes]
) -> Iterator[tuple[AnyPage, list[bytes | None]]]:
    """`_read_ahead` from all servers at once."""
    with ExitStack() as stack:
        readings = [
            (server, stack.enter_context(closing(_read_ahead(server, of_it, suspects))))
            for server, of_it in zip(client.servers, branches(pages, len(client.servers)), strict=True)
        ]
        while True:
            answers = []
            for server, reading in readings:
                with named(server):
                    answers.append(next(reading, None))
            read = [answer for answer in answers if answer is not None]
            if not read:
                return
            yield read[0][0], merge(client.servers, [raw_values for _, raw_values in read])


def _read_ahead(
    client: redis.Redis, pages: Iterable[AnyPage], suspects: Set[bytes]
) -> Generator[tuple[AnyPage, list[bytes | None]]]:
    connection: Any = client.connection_pool.get_connection()
    asked: deque[tuple[AnyPage, bool]] = deque()
    whole, found_large = True, False
    try:
        replies = bound_replies(connection)
        stream = iter(pages)
        while (following := next(stream, None)) is not None or asked:
            if following is not None:
                careful = found_large or (bool(suspects) and not suspects.isdisjoint(following.raw_keys))
                asked.append((following, careful))
                whole = whole and _asked(connection, following.raw_keys, careful)
                if len(asked) == 1:
                    continue
            oldest, was_careful = asked.popleft()
            answer = _answered(connection, oldest.raw_keys, was_careful) if whole else None
            whole = answer is not None
            found_large = found_large or replies.has_cut
            yield oldest, _read_values(client, oldest.raw_keys, careful=was_careful) if answer is None else answer
    except BaseException:
        whole = False  # an answer may be under way that nobody will read
        raise
    finally:
        if not whole:
            connection.disconnect()
        client.connection_pool.release(connection)


def _asked(connection: Any, keys: Sequence[bytes], careful: bool) -> bool:
    """Ask for values. Returns whether the connection holds."""
    try:
        _ask(connection, keys, careful)
    except _BROKEN:
        return False
    return True


def _answered(connection: Any, keys: Sequence[bytes], careful: bool) -> list[bytes | None] | None:
    """The oldest answer that is still to be read; None if the connection broke, or one may not ask so."""
    try:
        return _answer(connection, keys, careful)
    except (*_BROKEN, redis.exceptions.NoPermissionError):
        return None


def _ask(connection: Any, keys: Sequence[bytes], careful: bool) -> None:
    """Send MGET, or with care a GETRANGE for the beginning of each value."""
    # Packed here, because the connection's own way looks at each key in Python.
    commands = map(beginning_of, keys) if careful else [("MGET", *keys)]
    packed = b"".join(map(pack_command, commands))  # type: ignore[arg-type]  # its stub takes tuples of one
    connection.send_packed_command([packed], check_health=False)


def _answer(connection: Any, keys: Sequence[bytes], careful: bool) -> list[bytes | None]:
    if careful:
        return [_answer_to_getrange(connection) for _ in keys]
    values: list[bytes | None] = connection.read_response()
    return values


def _answer_to_getrange(connection: Any) -> bytes | None:
    """The beginning of a value, or None as of MGET. For an empty value, too: it looks like a missing key."""
    try:
        return connection.read_response() or None
    except redis.exceptions.ResponseError as error:
        if str(error).startswith("WRONGTYPE"):
            return None
        raise


def all_plain_integers(raw_values: Sequence[bytes | None]) -> bool:
    """Whether each of these is a counter as it should be, so that none needs a look of its own.

    A few C loops over the page. What passes here passes `parse_value` too; of what does not, some does.
    """
    # bytes.isdigit() knows ASCII digits only, and none in b"".
    return (
        None not in raw_values
        and all(map(bytes.isdigit, raw_values))  # type: ignore[arg-type]  # the line above
        and max(map(len, raw_values), default=0) < _MAX_DIGITS  # type: ignore[arg-type]
    )


def interpret_values(
    client: RedisClient, keys: Sequence[bytes], raw_values: Sequence[bytes | None]
) -> list[int | DeadLetter | None]:
    """What MGET answered, understood: a value, why there is none, or None if the key is gone."""
    if all_plain_integers(raw_values):
        return list(map(int, raw_values))  # type: ignore[arg-type]  # no None in there
    missing = [i for i, raw in enumerate(raw_values) if raw is None]
    understood: list[int | DeadLetter | None] = [
        None if raw is None else parse_value(key, raw) for key, raw in zip(keys, raw_values, strict=True)
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
    if isinstance(raw, OnTwoServers):
        return DeadLetter(key, Reason.ON_TWO_SERVERS, f"it is on more than one server: {raw.decode()}")
    raw = raw[: MAX_VALUE_BYTES + 1]  # more than that is not always known
    shown = repr(raw[:60])[1:] + ("..." if len(raw) > 60 else "")
    if not _INTEGER.fullmatch(raw):
        return DeadLetter(key, Reason.NOT_AN_INTEGER, f"the value is {shown}")
    if raw.startswith(b"-"):
        return DeadLetter(key, Reason.NEGATIVE, f"the value is {shown}")
    digits = raw.lstrip(b"0") or b"0"
    if len(raw) > MAX_VALUE_BYTES or len(digits) > _MAX_DIGITS or int(digits) > MAX_VALUE:
        return DeadLetter(key, Reason.OUT_OF_RANGE, f"the value is {shown}, the largest is {MAX_VALUE}")
    return int(digits)


def with_date(letter: DeadLetter, date: dt.date) -> DeadLetter:
    """The same dead letter, told of its usage date."""
    return replace(letter, usage_date=date)


def _reading_of_nil(client: RedisClient, key: bytes, kind: bytes) -> int | DeadLetter | None:
    if kind == b"none":
        return None
    if kind == b"string":  # it is empty, or came back between MGET and TYPE
        (raw,) = _read_values(client, [key], careful=True)
        return parse_value(key, raw or b"")
    return DeadLetter(key, Reason.WRONG_TYPE, f"the key holds a {kind.decode(errors='replace')}, not a counter")


def _read_values(client: RedisClient, keys: Sequence[bytes], *, careful: bool = False) -> list[bytes | None]:
    """What MGET answers to these keys; with care, the beginnings of it, if the Redis user may ask for these alone."""
    if not keys:
        return []  # to which MGET is an error
    if isinstance(client, RedisCluster):
        return cluster.read_values(client, keys)
    if isinstance(client, Shards):
        return merge(client.servers, of_each(client, lambda server: _read_values(server, keys, careful=careful)))
    if careful:
        with suppress(redis.exceptions.NoPermissionError):
            return _exchange(client, keys, careful=True)
    return _exchange(client, keys, careful=False)


def _exchange(client: redis.Redis, keys: Sequence[bytes], *, careful: bool) -> list[bytes | None]:
    """Ask and read, trying again as the client would."""
    connection: Any = client.connection_pool.get_connection()

    def exchange() -> list[bytes | None]:
        connection.connect()  # if it broke
        bound_replies(connection)
        _ask(connection, keys, careful)
        return _answer(connection, keys, careful)

    try:
        values: list[bytes | None] = connection.retry.call_with_retry(exchange, lambda _: connection.disconnect())
    except BaseException:
        connection.disconnect()  # answers may be under way that nobody will read
        raise
    finally:
        client.connection_pool.release(connection)
    return values


def _types(client: RedisClient, keys: Sequence[bytes]) -> list[bytes]:
    if isinstance(client, RedisCluster):
        return cluster.execute_each(client, keys, [("TYPE", key) for key in keys])
    if isinstance(client, Shards):
        return _of_the_holder(client, lambda server: _types(server, keys), b"none")
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.type(key)
    return list(pipeline.execute())


def seconds_to_live(client: RedisClient, keys: Sequence[bytes]) -> list[int]:
    """How long each key has to live: -1 for ever, -2 if there is none.

    Raises:
        redis.exceptions.NoPermissionError: the Redis user may not ask (+ttl).
    """
    if not keys:
        return []
    if isinstance(client, RedisCluster):
        return cluster.execute_each(client, keys, [("TTL", key) for key in keys])
    if isinstance(client, Shards):
        return _of_the_holder(client, lambda server: seconds_to_live(server, keys), _NO_SUCH_KEY)
    # No command takes several keys, and redis-py's pipeline takes four times as long (measured).
    connection: Any = client.connection_pool.get_connection()
    try:
        connection.send_packed_command([b"".join([pack_command(("TTL", key)) for key in keys])])  # type: ignore[arg-type]  # its stub takes tuples of one
        return [connection.read_response() for _ in keys]
    except BaseException:
        connection.disconnect()  # answers may be under way that nobody will read
        raise
    finally:
        client.connection_pool.release(connection)


def holders(client: Shards, keys: Sequence[bytes]) -> list[redis.Redis | None]:
    """Where each key lies; None if that is nowhere, or on more than one server."""
    answers = of_each(client, lambda server: _read_values(server, keys, careful=True))
    found: list[redis.Redis | None] = []
    for of_key in zip(*answers, strict=True):
        having = [server for server, value in zip(client.servers, of_key, strict=True) if value is not None]
        found.append(having[0] if len(having) == 1 else None)
    return found


def _of_the_holder(client: Shards, ask: Callable[[redis.Redis], list[Answer]], none: Answer) -> list[Answer]:
    """What the server says of each key that has it."""
    answers = of_each(client, ask)
    return [next((answer for answer in of_key if answer != none), none) for of_key in zip(*answers, strict=True)]
