"""The merchants whose ids begin with a text, which is taken as it is, a page at a time."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from psycopg import Connection

from merchant_usage.errors import SettingsError
from merchant_usage.model.keys import why_no_merchant_id
from merchant_usage.sink.queries import query
from merchant_usage.text import shown

#: Merchants a page shows.
PAGE: Final = 50
#: Merchants that are looked at for it, where those that begin alike need not stand together: a third of a second.
LOOKS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Merchant:
    """A merchant, and the newest date of which anything is stored of it."""

    merchant_id: str
    newest: dt.date


@dataclass(frozen=True, slots=True)
class Merchants:
    """What the search shows.

    Attributes:
        exact: the one whose id is the whole text; on the first page only.
        after: where the next page begins; empty: this is the last.
        is_first: whether this is the first page.
        looked: how many merchants were looked at, if the page ends because that is enough for one answer.
    """

    begins: str
    exact: Merchant | None
    others: list[Merchant]
    after: str
    is_first: bool
    looked: int | None


def text_of(name: str, value: str | None) -> str:
    """The beginning of a merchant's id, or nothing.

    Raises:
        SettingsError: no id can begin so.
    """
    if value and (problem := why_no_merchant_id(value)):
        raise SettingsError(f"{name}={shown(value)!r} {problem}; it takes the beginning of a merchant's id.")
    return value or ""


def read(conn: Connection, begins: str, after: str) -> Merchants:
    """Look for merchants, in the order of the primary key.

    Args:
        after: only those beyond it; empty: from the first on.
    """
    row = conn.execute(query("merchants_order")).fetchone()
    in_bytes = bool(row and row[0])
    start = max(after, begins, key=str.encode) if in_bytes else after
    parameters = {"begins": begins, "after": start, "in_bytes": in_bytes, "found": PAGE + 2, "looks": LOOKS}
    rows = conn.execute(query("merchants_search"), parameters).fetchall()
    # The one that is the whole text is offered first, wherever it stands.
    found = [merchant_id for merchant_id, matches, _ in rows if matches and merchant_id != begins]
    page = found[:PAGE]
    next_after, looked = "", None
    if len(found) > PAGE:
        next_after = page[-1]
    elif rows and rows[-1][2] == LOOKS:
        next_after, looked = rows[-1][0], LOOKS
    exact = newest_of(conn, [begins]) if begins and not after else {}
    newest = newest_of(conn, page)
    return Merchants(
        begins,
        Merchant(begins, exact[begins]) if exact else None,
        [Merchant(merchant_id, newest[merchant_id]) for merchant_id in page],
        next_after,
        not after,
        looked,
    )


def newest_of(conn: Connection, merchant_ids: Iterable[str]) -> dict[str, dt.date]:
    """The newest date of which anything is stored of each merchant; who has nothing is left out."""
    return dict(conn.execute(query("merchants_newest"), {"merchant_ids": list(merchant_ids)}).fetchall())
