"""Several servers that are no cluster: the application's own client chooses one of them for each key.

By which rule it chooses nobody here knows. So each key is asked of all of them, at once, and the one that holds it
answers. A key on two of them, after the rule was changed, say, is none that can be counted: one value may be a copy of
the other, or both may be parts of a sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

import redis
from redis import exceptions
from redis.cluster import RedisCluster

from merchant_usage.errors import RedisRefused, RedisUnavailable

T = TypeVar("T")

#: What does not tell by itself which server it is about.
_NAMELESS: Final = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.NoPermissionError,
    RedisRefused,
    RedisUnavailable,
)


@dataclass(frozen=True, slots=True, eq=False)
class Shards:
    """A client for all of them, as far as we need one."""

    servers: Sequence[redis.Redis]

    def close(self) -> None:
        """Close all connections."""
        for server in self.servers:
            server.close()


#: What counters are read from.
RedisClient: TypeAlias = redis.Redis | RedisCluster | Shards


class OnTwoServers(bytes):
    """Stands for the value of a key that is on more than one server, and says what it is on each."""


def address_of(server: redis.Redis) -> str:
    """Host and port, or the socket's path, and the database if it is not the first."""
    where = server.connection_pool.connection_kwargs
    address = where["path"] if "path" in where else f"{where.get('host', 'localhost')}:{where.get('port', 6379)}"
    return f"{address}/{where['db']}" if where.get("db") else str(address)


def named_twice(servers: Iterable[redis.Redis]) -> str | None:
    """The first server that stands there more than once: each of its counters would seem to be on two."""
    names = Counter(map(address_of, servers))
    return next((name for name, number in names.items() if number > 1), None)


@contextmanager
def named(server: redis.Redis) -> Iterator[None]:
    """Let errors tell which of the servers it was."""
    try:
        yield
    except _NAMELESS as error:
        address = address_of(server)
        if address in str(error):
            raise
        raise type(error)(f"{address}: {error}") from error


def of_each(client: Shards, ask: Callable[[redis.Redis], T]) -> list[T]:
    """What each server answers."""
    answers = []
    for server in client.servers:
        with named(server):
            answers.append(ask(server))
    return answers


def in_turns(server_pages: Sequence[tuple[redis.Redis, Iterator[T]]]) -> Iterator[T]:
    """A page of each server after the other, until none has any left."""
    left = list(server_pages)
    while left:
        for each in list(left):
            server, pages = each
            with named(server):
                page = next(pages, None)
            if page is None:
                left.remove(each)
            else:
                yield page


def merge(servers: Sequence[redis.Redis], answers: Sequence[Iterable[bytes | None]]) -> list[bytes | None]:
    """What MGET would answer if one server held all keys: for each key the value of the server that has it."""
    merged: list[bytes | None] = []
    for of_key in zip(*answers, strict=True):
        values = [value for value in of_key if value is not None]
        merged.append(_say_all(servers, of_key) if len(values) > 1 else values[0] if values else None)
    return merged


def _say_all(servers: Sequence[redis.Redis], values: Sequence[bytes | None]) -> OnTwoServers:
    told = [
        f"{repr(value[:20])[1:]}{'...' if len(value) > 20 else ''} on {address_of(server)}"
        for server, value in zip(servers, values, strict=True)
        if value is not None
    ]
    return OnTwoServers(", ".join(told).encode())
