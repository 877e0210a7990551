"""Whether Redis holds anything at all, when nothing of ours was found."""

from __future__ import annotations

import re
from collections import Counter

import redis
from redis.exceptions import ResponseError
from redis.utils import str_if_bytes

from merchant_usage.source.replies import bound_replies
from merchant_usage.source.server import servers_of
from merchant_usage.source.shards import RedisClient

_DATABASE = re.compile(r"^db(\d+):keys=(\d+)", re.MULTILINE)


def describe_keys(client: RedisClient) -> str | None:
    """What Redis holds of whomever, as `database 0 holds 12 keys`; None if it is empty.

    A user who may not ask INFO learns of the connection's own database only, and not how many.

    Raises:
        redis.exceptions.RedisError: it does not answer.
    """
    counts: Counter[int] = Counter()
    for server in servers_of(client):
        counts.update(_key_counts(server))
    told = [
        f"database {number} holds {count:,} key{'s' if count > 1 else ''}" if count else f"database {number} holds keys"
        for number, count in sorted(counts.items())
    ]
    return ", ".join(told) or None


def _key_counts(server: redis.Redis) -> dict[int, int]:
    """How many keys each database holds that is not empty; none, which stands for some, where INFO is not to be had."""
    connection = server.connection_pool.get_connection()
    try:
        connection.send_command("INFO", "keyspace")
        found = str_if_bytes(connection.read_response())
    except ResponseError:
        return {_database(server): 0} if _has_keys(server) else {}
    finally:
        server.connection_pool.release(connection)
    return {int(number): int(count) for number, count in _DATABASE.findall(found)}


def _has_keys(server: redis.Redis) -> bool:
    """Whether SCAN, which every user of ours is allowed, comes across any."""
    connection = server.connection_pool.get_connection()
    try:
        bound_replies(connection)
        cursor: bytes | None = None
        page: list[bytes] = []
        while not page and cursor != b"0":
            connection.send_command("SCAN", cursor or b"0", "COUNT", 1000)
            cursor, page = connection.read_response()
    except BaseException:
        connection.disconnect()
        raise
    finally:
        server.connection_pool.release(connection)
    return bool(page)


def _database(server: redis.Redis) -> int:
    return int(server.connection_pool.connection_kwargs.get("db") or 0)
