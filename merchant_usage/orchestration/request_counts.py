"""Counts what is asked of Redis and of PostgreSQL, where it is sent: once a request, never once a key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg import Connection
from redis.cluster import RedisCluster

from merchant_usage.source.server import servers_of
from merchant_usage.source.shards import RedisClient


def count_requests(client: RedisClient, count: Callable[[], object]) -> None:
    """Call `count` with each request to Redis: one or more commands sent in one piece, as a pipeline or a MGET is.

    Those that open a connection are among them. Of a cluster the nodes known by now are counted.
    """
    servers = (
        [client.get_redis_connection(node) for node in client.get_nodes()]
        if isinstance(client, RedisCluster)
        else servers_of(client)
    )
    for server in servers:
        pool: Any = server.connection_pool
        # What a cluster's client opened to learn its nodes is not counted: it is replaced.
        pool.disconnect()
        pool.reset()
        pool.connection_class = _counting_connection(pool.connection_class, count)


def count_statements(conn: Connection, count: Callable[[], object]) -> None:
    """Call `count` with each statement to PostgreSQL, COPY included; not with BEGIN, COMMIT and fetching more rows."""
    conn.cursor_factory = _counting_cursor(conn.cursor_factory, count)
    conn.server_cursor_factory = _counting_cursor(conn.server_cursor_factory, count)


def _counting_connection(base: Any, count: Callable[[], object]) -> Any:
    class CountingConnection(base):  # type: ignore[misc]  # the class is whatever the pool makes
        def send_packed_command(self, *args: Any, **kwargs: Any) -> Any:
            count()
            return super().send_packed_command(*args, **kwargs)

    return CountingConnection


def _counting_cursor(base: Any, count: Callable[[], object]) -> Any:
    class CountingCursor(base):  # type: ignore[misc]  # the class is whatever the connection makes
        def execute(self, *args: Any, **kwargs: Any) -> Any:
            count()
            return super().execute(*args, **kwargs)

        def executemany(self, *args: Any, **kwargs: Any) -> Any:
            count()
            return super().executemany(*args, **kwargs)

        def copy(self, *args: Any, **kwargs: Any) -> Any:
            count()
            return super().copy(*args, **kwargs)

    return CountingCursor
