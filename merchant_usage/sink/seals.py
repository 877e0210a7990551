"""The seals `usage_seal`, the leaves that are kept beside them, and the leaves of what is stored now."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from psycopg import Connection

from merchant_usage.model.seal import NOTHING, Seal
from merchant_usage.sink.queries import query, stream

#: Pages of leaves that are asked for at a time: each names a thousand merchants, and more only take memory.
PAGES: Final = 2
#: Seals that are asked for at a time.
SEALS: Final = 1000


class Leaves(NamedTuple):
    """A page of a tree: merchants in the order of their ids, what each has in all, and their leaves in one."""

    page: int
    merchant_ids: list[str]
    totals: list[int]
    leaves: bytes
    #: How many counters these are; not known of kept ones.
    counters: int = 0


class KeptPage(NamedTuple):
    """A page of leaves, where on it a merchant stands, and what it had in all."""

    leaves: bytes
    merchants: int
    #: From 0; None: it is not on this page.
    place: int | None
    total: int | None


class Correction(NamedTuple):
    """Decisions of one kind, by one person, for one reason: how many, and how much more is stored by them."""

    decision: str
    decided_by: str
    reason: str | None
    number: int
    more: int


def lock(conn: Connection) -> None:
    """Let nobody else seal until the end of the transaction."""
    conn.execute(query("lock_seals"))


def end_of_chain(conn: Connection) -> tuple[int, bytes]:
    """The number of the last seal and its chain."""
    row = conn.execute(query("select_last_seal")).fetchone()
    return (row[0], row[1]) if row else (0, NOTHING)


def newest(conn: Connection, dates: Iterable[dt.date]) -> dict[dt.date, Seal]:
    """The newest version of each of the dates that have a seal."""
    rows = conn.execute(query("select_newest_seals"), {"dates": list(dates)})
    return {seal.date: seal for seal in map(_seal, rows)}


def every(conn: Connection, after: int = 0) -> Iterator[Seal]:
    """All seals in the order of the chain. Needs a transaction.

    Args:
        after: only those with a larger number.
    """
    for row in stream(conn, "select_seals", {"after": after}, SEALS):
        yield _seal(row)


def of_period(conn: Connection, first: dt.date, last: dt.date) -> Iterator[Seal]:
    """The piece of the chain that holds all seals of some dates. Needs a transaction."""
    for row in stream(conn, "select_period_seals", {"from_date": first, "to_date": last}, SEALS):
        yield _seal(row)


def insert(conn: Connection, seal: Seal) -> None:
    """Add a seal to the end of the chain."""
    conn.execute(
        query("insert_seal"),
        {
            "seal_number": seal.number,
            "usage_date": seal.date,
            "version": seal.version,
            "sealed_at": seal.sealed_at,
            "run_id": seal.run_id,
            "counters": seal.counters,
            "total": seal.total,
            "root": seal.root,
            "chain": seal.chain,
            "signature": seal.signature,
            "reason": seal.reason,
        },
    )


def stored_leaves(conn: Connection, date: dt.date) -> Iterator[Leaves]:
    """The leaves of what is stored of a date now. Needs a transaction, and is one snapshot."""
    conn.execute(query("prepare_verification"))
    for page, merchant_ids, totals, leaves, counters in stream(conn, "select_leaves", {"date": date}, PAGES):
        yield Leaves(page, merchant_ids, list(map(int, totals)), leaves, counters)


def kept_leaves(conn: Connection, date: dt.date, version: int) -> Iterator[Leaves]:
    """The leaves that were kept beside the seal of a version. Needs a transaction."""
    parameters = {"usage_date": date, "version": version}
    for page, merchant_ids, totals, leaves in stream(conn, "select_seal_pages", parameters, PAGES):
        yield Leaves(page, merchant_ids, list(map(int, totals)), leaves)


def kept_pages(conn: Connection, merchant_id: str, date: dt.date, version: int) -> Iterator[KeptPage]:
    """The same for those who look for one merchant. Needs a transaction."""
    parameters = {"merchant_id": merchant_id, "usage_date": date, "version": version}
    for leaves, merchants, place, total in stream(conn, "select_merchant_leaf", parameters, PAGES):
        yield KeptPage(leaves, merchants, None if place is None else place - 1, None if total is None else int(total))


def newest_leaves(conn: Connection, date: dt.date) -> int:
    """The newest version of a date of which leaves are kept; 0: there is none."""
    row = conn.execute(query("select_newest_leaves"), {"usage_date": date}).fetchone()
    return (row and row[0]) or 0


def keep_leaves(conn: Connection, date: dt.date, version: int, leaves: Leaves) -> None:
    """Keep a page beside the seal of a version."""
    conn.execute(
        query("insert_seal_page"),
        {
            "usage_date": date,
            "version": version,
            "page": leaves.page,
            "merchant_ids": leaves.merchant_ids,
            "totals": leaves.totals,
            "leaves": leaves.leaves,
        },
    )


def keep_corrections(conn: Connection, date: dt.date, version: int) -> None:
    """Note what each merchant's total was before a version and is in it, where the two differ."""
    conn.execute(query("insert_corrections"), {"usage_date": date, "version": version})


def corrections(conn: Connection, date: dt.date, since: dt.datetime) -> list[Correction]:
    """What people decided of a date since then, as far as it changes what is stored."""
    rows = conn.execute(query("select_corrections"), {"usage_date": date, "since": since})
    return [
        Correction(decision, decided_by, reason, number, int(more))
        for decision, decided_by, reason, number, more in rows
    ]


def unsealed(conn: Connection, since: dt.date, most: int) -> list[dt.date]:
    """Dates since then that were verified once they were over and settled and have no seal, the newest ones."""
    rows = conn.execute(query("select_unsealed"), {"from_date": since, "limit": most})
    return [row[0] for row in rows]


def _seal(row: tuple[Any, ...]) -> Seal:
    number, date, version, sealed_at, run_id, counters, total, root, reason, previous, chain, signature = row
    if number == 1:
        previous = NOTHING
    return Seal(
        number, date, version, sealed_at, run_id, counters, int(total), root, reason, previous or b"", chain, signature
    )
