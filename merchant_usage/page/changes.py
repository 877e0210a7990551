"""Which merchants' usage of a date differs most from a week before, without reading the date.

`merchant_usage` is kept by merchant: all rows of one date are a scan of the table. Beside the seal of a date lies what
each merchant had in all, so the largest of both dates are found there. Nobody else's usage can differ by more than the
smallest of the largest: what is left out is known up to a bound.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from psycopg import Connection

from merchant_usage.sink import seals
from merchant_usage.sink.queries import query

#: Of each date so many of the largest merchants are compared, and of them all so many are shown.
LARGEST: Final = 100
SHOWN: Final = 30
#: Of those that are named for something else, so many come first.
NAMED: Final = 10
WEEK: Final = dt.timedelta(weeks=1)
#: A date that is not sealed yet borrows the largest merchants of one that is, at most so much older.
OLDEST: Final = 6


@dataclass(frozen=True, slots=True)
class Change:
    """What a merchant used of a date and a week before; None: nothing is stored. `why`: what else it is named for."""

    merchant_id: str
    used: int | None
    before: int | None
    why: str = ""

    @property
    def difference(self) -> int:
        """How much more it is."""
        return (self.used or 0) - (self.before or 0)


@dataclass(frozen=True, slots=True)
class Changes:
    """The merchants that matter most: some that are named for something else, then by how much they differ.

    Attributes:
        before: the date that is compared with.
        rest: no other merchant differs by more; None: the date is not sealed, so nobody knows.
        looked_at: the sealed dates whose largest merchants are compared.
    """

    changes: Sequence[Change]
    before: dt.date
    rest: int | None
    looked_at: Sequence[dt.date]


def read(conn: Connection, date: dt.date, named: Mapping[str, str], has_before: bool) -> Changes:
    """Compare a date with the one a week before.

    Args:
        named: merchants that are looked at in any case, and why.
        has_before: there was a run of the date a week before; if not, nothing was used then.
    """
    before = date - WEEK
    near = [date - dt.timedelta(days=days) for days in range(OLDEST + 1)]
    sealed = {each: seal.version for each, seal in seals.newest(conn, [*near, before]).items()}
    looked_at = [each for each in (next((day for day in near if day in sealed), None), before) if each in sealed]
    largest = {each: _largest(conn, each, sealed[each]) for each in looked_at}
    chosen = {*named, *(merchant for totals in largest.values() for merchant in totals)}
    found = _compared(conn, chosen, date, before, named)
    found.sort(key=lambda each: (-abs(each.difference), each.merchant_id))
    first = [each for each in found if each.why][:NAMED]
    found = [*first, *(each for each in found if each not in first)]
    left_out = max((abs(each.difference) for each in found[SHOWN:]), default=0)
    unseen = max((min(totals.values()) for totals in largest.values() if len(totals) == LARGEST), default=0)
    is_known = date in sealed and (before in sealed or not has_before)
    return Changes(found[:SHOWN], before, max(left_out, unseen) if is_known else None, looked_at)


def _largest(conn: Connection, date: dt.date, version: int) -> dict[str, int]:
    parameters = {"usage_date": date, "version": version, "limit": LARGEST}
    return {merchant: int(total) for merchant, total in conn.execute(query("date_largest"), parameters)}


def _compared(
    conn: Connection, merchants: Collection[str], date: dt.date, before: dt.date, named: Mapping[str, str]
) -> list[Change]:
    parameters = {"merchant_ids": list(merchants), "usage_date": date, "other_date": before}
    return [
        Change(merchant, _whole(used), _whole(used_before), named.get(merchant, ""))
        for merchant, used, used_before in conn.execute(query("date_compared"), parameters)
    ]


def _whole(total: Decimal | None) -> int | None:
    return None if total is None else int(total)
