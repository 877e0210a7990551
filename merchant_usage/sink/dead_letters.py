"""Keys that could not be aggregated, and why: opened, counted, resolved."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import dict_row

from merchant_usage.model.dead_letter import MAX_DETAIL, DeadLetter, Reason
from merchant_usage.sink.queries import query

# Open letters at most: whoever has more needs to see the cause, not each of them.
MAX_OPEN: Final = 100_000


def open_letters(conn: Connection, letters: Iterable[DeadLetter]) -> int:
    """Open a row for each key and reason, or count one more attempt on the row that is open.

    Returns how many were new. Rows are written in key order, so that parallel runs cannot deadlock. While there are
    more than `MAX_OPEN` only regressions are written: runs still count bad keys, the table does not grow without bound,
    and no flood hides that a stored counter fell.
    """
    unique = {(letter.redis_key, letter.reason): letter for letter in letters}
    if unique and sum(open_counts(conn).values()) > MAX_OPEN:
        unique = {key: letter for key, letter in unique.items() if letter.reason is Reason.COUNTER_REGRESSED}
    if not unique:
        return 0
    ordered = [unique[key] for key in sorted(unique)]
    row = conn.execute(
        query("open_dead_letters"),
        {
            "keys": [letter.redis_key for letter in ordered],
            "reasons": [str(letter.reason) for letter in ordered],
            # PostgreSQL's text takes no NUL.
            "details": [letter.detail[:MAX_DETAIL].replace("\0", "\\0") for letter in ordered],
            "dates": [letter.usage_date for letter in ordered],
            "redis_values": [letter.redis_value for letter in ordered],
            "postgres_values": [letter.postgres_value for letter in ordered],
        },
    ).fetchone()
    assert row is not None  # an aggregate always returns a row
    return int(row[0])


def open_keys(conn: Connection, dates: Iterable[dt.date]) -> set[bytes]:
    """Keys of these dates with an open dead letter that a good reading resolves."""
    rows = conn.execute(query("select_open_keys"), {"dates": list(dates)})
    return {bytes(row[0]) for row in rows}


def all_open(conn: Connection) -> list[DeadLetter]:
    """Every open dead letter but the regressions, which only a person resolves."""
    rows = conn.execute(query("select_open_dead_letters"))
    return [DeadLetter(bytes(key), Reason(reason), detail, date) for key, reason, detail, date in rows]


def kept(conn: Connection, stored: Mapping[bytes, int]) -> dict[bytes, int]:
    """Keys whose stored value was decided to be right, and where their counters stood at the decision."""
    if not stored:
        return {}
    parameters = {"keys": list(stored), "stored": list(stored.values())}
    return {bytes(key): value for key, value in conn.execute(query("select_kept"), parameters)}


def regressed_keys(conn: Connection, dates: Iterable[dt.date]) -> set[bytes]:
    """Keys of these dates with an open `counter_regressed`."""
    rows = conn.execute(query("select_regressed_keys"), {"dates": list(dates)})
    return {bytes(row[0]) for row in rows}


def resolve(conn: Connection, keys: Iterable[bytes], reasons: Iterable[Reason] | None = None) -> int:
    """Close the open letters of these keys (of these reasons; regressions only if named). Returns how many."""
    closing = sorted(set(keys))
    if not closing:
        return 0
    chosen = [str(r) for r in (reasons or [r for r in Reason if r is not Reason.COUNTER_REGRESSED])]
    return conn.execute(query("resolve_dead_letters"), {"keys": closing, "reasons": chosen}).rowcount


def open_counts(conn: Connection) -> dict[Reason, int]:
    """How many letters are open, by reason."""
    return {Reason(reason): count for reason, count in conn.execute(query("count_dead_letters"))}


def listed(conn: Connection, *, with_resolved: bool, reason: str | None, most: int) -> list[dict[str, Any]]:
    """The letters themselves, newest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            query("select_dead_letters"), {"with_resolved": with_resolved, "reason": reason, "most": most}
        ).fetchall()
