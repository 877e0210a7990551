"""Keys that could not be aggregated, and why: opened, counted, resolved."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

from psycopg import Connection
from psycopg.rows import dict_row

from merchant_usage.model.dead_letter import MAX_DETAIL, DeadLetter, Reason
from merchant_usage.model.pages import PAGE, pages
from merchant_usage.sink.queries import query

# Open letters at most: whoever has more needs to see the cause, not each of them.
MAX_OPEN: Final = 100_000
# And bytes of their names: a run holds those of its dates in memory.
MAX_OPEN_BYTES: Final = 32 * 2**20
# Names resolved by one statement, which may read all open letters: few statements, of a megabyte each.
RESOLVED_AT_ONCE: Final = 20_000
# What a value cannot resolve: it lies in the name, or a person resolves it, also when its key is gone.
_NOT_OF_VALUES: Final = {*Reason.key_reasons(), Reason.COUNTER_REGRESSED, Reason.TOO_LATE}


class Regression(NamedTuple):
    """An open `counter_regressed`: the counter as it was last seen (None: gone), and what carrying would carry."""

    last_seen: int | None
    base: int
    #: That of the dead letter: a later fall of the same counter has another one.
    id: int


def open_letters(conn: Connection, letters: Iterable[DeadLetter]) -> int:
    """Open a row for each key and reason, or count one more attempt on the row that is open.

    Returns how many were new. Rows are written in one order, so that parallel runs cannot deadlock. While there are
    more than `MAX_OPEN` or `MAX_OPEN_BYTES` only regressions are written: runs still count bad keys, the table does not
    grow without bound, and no flood hides that a stored counter fell.
    """
    unique = {(letter.identity, letter.reason): letter for letter in letters}
    if unique:
        conn.execute(query("lock_dead_letters"))
    if unique and _is_full(conn):
        unique = {key: letter for key, letter in unique.items() if letter.reason is Reason.COUNTER_REGRESSED}
    if not unique:
        return 0
    return sum(_write(conn, page) for page in pages([unique[key] for key in sorted(unique)]))


def _write(conn: Connection, letters: Sequence[DeadLetter]) -> int:
    """Open or count these. A page of them, because each may be some kilobytes."""
    row = conn.execute(
        query("open_dead_letters"),
        {
            "keys": [letter.redis_key for letter in letters],
            "reasons": [str(letter.reason) for letter in letters],
            # PostgreSQL's text takes no NUL.
            "details": [letter.detail[:MAX_DETAIL].replace("\0", "\\0") for letter in letters],
            "dates": [letter.usage_date for letter in letters],
            "redis_values": [letter.redis_value for letter in letters],
            "postgres_values": [letter.postgres_value for letter in letters],
            "digests": [letter.sha256 for letter in letters],
        },
    ).fetchone()
    assert row is not None  # an aggregate always returns a row
    return int(row[0])


def open_keys(conn: Connection, dates: Iterable[dt.date]) -> set[bytes]:
    """Keys of these dates with an open dead letter that a good reading resolves."""
    rows = conn.execute(query("select_open_keys"), {"dates": list(dates)})
    return {bytes(row[0]) for row in rows}


def open_names(conn: Connection) -> set[bytes]:
    """The identities of all keys with an open letter that lies in their names."""
    reasons = list(map(str, Reason.key_reasons()))
    with conn.cursor(binary=True) as cursor:
        return {identity for (identity,) in cursor.execute(query("select_open_names"), {"reasons": reasons})}


def open_values(conn: Connection) -> Iterator[list[tuple[bytes, dt.date]]]:
    """Keys with an open letter that a good value resolves, and their dates, in pages, oldest first."""
    reasons = [str(reason) for reason in Reason if reason not in _NOT_OF_VALUES]
    after = 0
    with conn.cursor(binary=True) as cursor:
        while True:
            parameters = {"reasons": reasons, "after": after, "limit": PAGE}
            rows = cursor.execute(query("select_open_values"), parameters).fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield [(key, date) for _, key, date in rows]


def kept(conn: Connection, stored: Mapping[bytes, int]) -> dict[bytes, int | None]:
    """Keys whose stored value was decided to be right, and where their counters stood at the decision (None: gone)."""
    if not stored:
        return {}
    parameters = {"keys": list(stored), "stored": list(stored.values())}
    return {bytes(key): value for key, value in conn.execute(query("select_kept"), parameters)}


def regressed_keys(conn: Connection, dates: Iterable[dt.date]) -> dict[bytes, dt.date]:
    """Keys of these dates with an open `counter_regressed`, and their dates."""
    rows = conn.execute(query("select_regressed_keys"), {"dates": list(dates)})
    return {bytes(key): date for key, date in rows}


def lock_regressions(conn: Connection, keys: Iterable[bytes]) -> dict[bytes, Regression]:
    """The open `counter_regressed` of these keys, for the current transaction alone."""
    named = list(keys)
    if not named:
        return {}
    conn.execute(query("lock_dead_letters"))
    rows = conn.execute(query("select_open_regressions"), {"keys": named})
    return {bytes(key): Regression(seen, base, letter) for key, seen, base, letter in rows}


def resolve(conn: Connection, keys: Iterable[bytes], reasons: Iterable[Reason] | None = None) -> int:
    """Close the open letters of these keys (of these reasons; regressions only if named). Returns how many."""
    chosen = reasons or [reason for reason in Reason if reason is not Reason.COUNTER_REGRESSED]
    return _resolve(conn, (sha256(key).digest() for key in keys), chosen)


def resolve_names(conn: Connection, identities: Iterable[bytes]) -> int:
    """Close the open letters of keys whose names kept them from being usage keys. Returns how many."""
    return sum(_resolve(conn, page, Reason.key_reasons()) for page in pages(identities, RESOLVED_AT_ONCE))


def _resolve(conn: Connection, identities: Iterable[bytes], reasons: Iterable[Reason]) -> int:
    closing = sorted(set(identities))
    if not closing:
        return 0
    conn.execute(query("lock_dead_letters"))
    parameters = {"identities": closing, "reasons": list(map(str, reasons))}
    return conn.execute(query("resolve_dead_letters"), parameters).rowcount


def open_counts(conn: Connection) -> dict[Reason, int]:
    """How many letters are open, by reason."""
    return {Reason(reason): count for reason, count, _ in conn.execute(query("count_dead_letters"))}


def _is_full(conn: Connection) -> bool:
    rows: list[tuple[str, int, int]] = conn.execute(query("count_dead_letters")).fetchall()
    return sum(count for _, count, _ in rows) > MAX_OPEN or sum(size for _, _, size in rows) > MAX_OPEN_BYTES


def listed(conn: Connection, *, with_resolved: bool, reason: str | None, limit: int) -> list[dict[str, Any]]:
    """The letters themselves, newest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            query("select_dead_letters"), {"with_resolved": with_resolved, "reason": reason, "limit": limit}
        ).fetchall()
