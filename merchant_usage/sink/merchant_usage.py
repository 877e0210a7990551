"""Rows of `merchant_usage`, locked and written one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from psycopg import Connection

from merchant_usage.model.keys import CounterKey, as_columns
from merchant_usage.sink.queries import query


def lock_rows(conn: Connection, keys: Sequence[CounterKey]) -> list[tuple[CounterKey, int, int]]:
    """Lock the rows of these keys, in key order; returns key, metric_value and carried of those there are."""
    rows = conn.execute(query("lock_rows"), as_columns(keys))
    return [(CounterKey(*row[:3]), row[3], row[4]) for row in rows]


class RowWrite(NamedTuple):
    """What a locked row shall hold."""

    key: CounterKey
    metric_value: int
    carried: int
    #: It was decided, not counted: the hourly history marks it.
    correction: bool = False


def set_rows(conn: Connection, writes: Sequence[RowWrite], *, history: bool = True) -> set[CounterKey]:
    """Write rows that are locked; returns the keys of those that were: a trigger may have kept others.

    Args:
        history: whether what they held before is kept; that of corrections always is.
    """
    if not writes:
        return set()
    written = conn.execute(
        query("set_rows"),
        {
            **as_columns(write.key for write in writes),
            "metric_values": [write.metric_value for write in writes],
            "carried": [write.carried for write in writes],
            "corrections": [write.correction for write in writes],
            "history": history,
        },
    )
    return {CounterKey(*row) for row in written}
