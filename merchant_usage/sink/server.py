"""What kind of server a connection leads to."""

from __future__ import annotations

from psycopg import Connection

from merchant_usage.errors import PostgresUnavailable
from merchant_usage.sink.queries import query


def require_primary(conn: Connection) -> None:
    """Make sure that the server is no standby.

    Raises:
        PostgresUnavailable: it is one. It heals: after a failover the address may lead to the wrong one for a while.
    """
    row = conn.execute(query("select_is_standby")).fetchone()
    if row is not None and row[0]:
        raise PostgresUnavailable(
            "The usage_postgres connection points to a standby, which takes no writes and may lag behind. Point it to "
            "the primary."
        )
