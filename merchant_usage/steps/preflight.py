"""What is checked before a run trusts what it reads: that it looks for usage where there is some."""

from __future__ import annotations

from psycopg import Connection

from merchant_usage.errors import SettingsError
from merchant_usage.sink.queries import query
from merchant_usage.source.inventory import describe_keys
from merchant_usage.source.shards import RedisClient


def require_usage(client: RedisClient, conn: Connection, prefix: str, scanned: int) -> None:
    """Tell a wrong prefix, server or database from an API that has nothing to count: only the latter is an empty run.

    It is an error, and one that does not heal: a first run that looks in the wrong place would be green for ever, and
    billing empty. Where the API has yet to count for the first time, and others use its Redis too, runs fail until it
    has; nothing is lost by that.

    Args:
        scanned: keys below the prefix that the scan came across, of whatever date.

    Raises:
        SettingsError: no run has ever found usage, and neither does this one, while Redis holds other keys.
    """
    if scanned:
        return
    row = conn.execute(query("select_has_found_usage")).fetchone()
    if row is not None and row[0]:
        return
    if others := describe_keys(client):
        raise SettingsError(
            f"No run has found any usage yet, and no key of Redis begins with '{prefix}:', though Redis is not empty: "
            f"{others}. Set USAGE_KEY_PREFIX to what stands before the merchant id in the API's keys, or point the "
            "usage_redis connection (USAGE_REDIS_URL) to the server and the database that the API counts into. If the "
            "API has yet to count for the first time, repeat the run once it has."
        )
