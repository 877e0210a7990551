"""What waits for a decision: counters that went backwards, each with both numbers and what somebody has proposed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import dict_row

from merchant_usage.model.keys import CounterKey, parse_key
from merchant_usage.settings import Settings
from merchant_usage.sink import ledger
from merchant_usage.sink.queries import query

#: So many counters on a page.
SHOWN: Final = 50


@dataclass(frozen=True, slots=True)
class Waiting:
    """A counter that waits.

    Attributes:
        letter: the id of its dead letter, by which it is decided.
        name: its key, as text.
        counter: what the key names; None if it was written by another prefix.
        row: what the dead letter and its newest proposal hold.
    """

    letter: int
    name: str
    counter: CounterKey | None
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Decisions:
    """What the page shows.

    Attributes:
        date: the date that was asked for; None for all.
        count: how many of that date wait; 0 where none was asked for.
        is_incomplete: nobody read the end of that date, and nobody has said yet that what is stored stands.
        is_first: this is the first page.
        after: the id behind which the next page begins; None on the last one.
        approvals: how many persons it takes to accept a lower value.
    """

    date: dt.date | None
    count: int
    is_incomplete: bool
    waiting: Sequence[Waiting]
    is_first: bool
    after: int | None
    approvals: int


def read(conn: Connection, date: dt.date | None, after: int, settings: Settings) -> Decisions:
    """From the dead letters."""
    parameters = {"usage_date": date, "after": after, "limit": SHOWN + 1}
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query("decisions_waiting"), parameters).fetchall()
    shown = [_waiting(row, settings.key_prefix) for row in rows[:SHOWN]]
    more = shown[-1].letter if len(rows) > SHOWN else None
    number, incomplete = (
        (count(conn, date), ledger.date_states(conn, [date])[date].is_incomplete) if date else (0, False)
    )
    return Decisions(date, number, incomplete, shown, after == 0, more, settings.approvals)


def count(conn: Connection, date: dt.date) -> int:
    """How many counters of a date wait."""
    row = conn.execute(query("decisions_count"), {"usage_date": date}).fetchone()
    return int(row[0]) if row else 0


def _waiting(row: dict[str, Any], prefix: str) -> Waiting:
    raw = bytes(row["redis_key"])
    parsed = parse_key(raw, prefix)
    counter = parsed if isinstance(parsed, CounterKey) else None
    return Waiting(row["id"], raw.decode(errors="backslashreplace"), counter, row)
