"""What the last run saw of the Redis servers: how many keys they had evicted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from psycopg import Connection

from merchant_usage.model.risk import ServerState
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import transaction


def known_servers(conn: Connection) -> dict[str, ServerState]:
    """The servers as they were seen last, by name."""
    rows = conn.execute(query("select_source"))
    return {server: ServerState(server, run_id, evicted) for server, run_id, evicted in rows}


def remember_servers(conn: Connection, servers: Iterable[ServerState], now: dt.datetime) -> None:
    """Write down how they are now; forget those that are long gone."""
    seen = sorted(servers)
    if not seen:
        return
    with transaction(conn):
        conn.execute(
            query("upsert_source"),
            {
                "servers": [each.server for each in seen],
                "redis_run_ids": [each.run_id for each in seen],
                "evicted_keys": [each.evicted_keys for each in seen],
                "now": now,
            },
        )
        conn.execute(query("delete_source"), {"now": now})
