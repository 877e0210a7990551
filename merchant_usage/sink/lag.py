"""How old the oldest usage is that is not yet proven to be stored. The ledger knows; Redis is not asked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from psycopg import Connection

from merchant_usage.model.dates import local_date, oldest_kept
from merchant_usage.settings import Settings
from merchant_usage.sink.queries import query


class Proof(NamedTuple):
    """When the newest runs over all merchants began that proved a date, closed it, and refuted it."""

    proven_at: dt.datetime | None = None
    #: The same, of those for which the date was over and settled: then there is nothing more to come.
    closed_at: dt.datetime | None = None
    refuted_at: dt.datetime | None = None

    @property
    def is_closed(self) -> bool:
        """Whether nothing of the date is left to be proven."""
        return self.closed_at is not None and (self.refuted_at is None or self.refuted_at < self.closed_at)


def proven_until(conn: Connection, now: dt.datetime, settings: Settings) -> dt.datetime:
    """The moment up to which all usage is proven to be stored, at most `now`.

    Looks at the dates from the go-live day on, within the retention: of an older one Redis has nothing left to prove.
    """
    today = local_date(now, settings)
    first = max(oldest_kept(today, settings), local_date(settings.start_date, settings))
    rows = conn.execute(query("select_proven"), {"from_date": first, "to_date": today})
    proofs = {row[0]: Proof(*row[1:]) for row in rows}
    dates = (first + dt.timedelta(days=days) for days in range((today - first).days + 1))
    return oldest_unproven(dates, proofs, now, settings)


def oldest_unproven(
    dates: Iterable[dt.date], proofs: Mapping[dt.date, Proof], now: dt.datetime, settings: Settings
) -> dt.datetime:
    """Where the oldest usage begins that is not proven: at midnight of its date, or at the last run that proved it.

    Pure. A date is done with when a run proved it after it was over and settled, and no run refuted it since.
    """
    oldest = now
    for date in dates:
        proof = proofs.get(date, Proof())
        if not proof.is_closed:
            midnight = dt.datetime.combine(date, dt.time(), settings.timezone)
            oldest = min(oldest, max(midnight, proof.proven_at or midnight))
    return oldest
