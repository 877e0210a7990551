"""Keys that were gone before their time, remembered until they are back or their dates are past the retention."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from psycopg import Connection

from merchant_usage.model.keys import CounterKey, as_columns
from merchant_usage.model.pages import pages
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import transaction


def note(conn: Connection, keys: Iterable[CounterKey], now: dt.datetime) -> None:
    """Note that keys are gone."""
    for page in pages(keys):
        with transaction(conn):
            conn.execute(query("insert_absences"), {**as_columns(page), "seen_at": now})


def noted(conn: Connection, dates: Iterable[dt.date]) -> list[CounterKey]:
    """The keys of some dates that are noted."""
    return [CounterKey(*row) for row in conn.execute(query("select_absences"), {"dates": list(dates)})]


def unnoted(conn: Connection, keys: Sequence[CounterKey]) -> list[CounterKey]:
    """Those of the keys that are not noted."""
    return [CounterKey(*row) for row in conn.execute(query("select_unnoted"), as_columns(keys))]


def forget(conn: Connection, keys: Sequence[CounterKey]) -> None:
    """These keys are back."""
    conn.execute(query("delete_absences"), as_columns(keys))


def prune(conn: Connection, before: dt.date) -> None:
    """Forget those of dates before this one: what comes back there is told as too late."""
    with transaction(conn):
        conn.execute(query("prune_absences"), {"before": before})
