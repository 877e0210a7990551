"""Opens both servers for what compares or moves counters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import Connection

from merchant_usage.connections import postgres_from_url, redis_from_url
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.clocks import require_right_clock


@contextmanager
def both_servers() -> Iterator[tuple[RedisClient, Connection]]:
    """Redis and PostgreSQL, whose clocks agree with ours.

    Raises:
        UsageError: one of the two cannot be reached, or a clock is far off.
    """
    with redis_from_url() as client, postgres_from_url() as conn:
        require_right_clock(client, conn)
        yield client, conn
