"""How old the oldest usage is that is not yet proven to be stored. The ledger knows; Redis is not asked."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from psycopg import Connection

from merchant_usage.model.dates import KeyRules, local_date, oldest_kept
from merchant_usage.model.run import Attempt
from merchant_usage.settings import Settings
from merchant_usage.sink import ledger
from merchant_usage.sink.queries import query


class DateProof(NamedTuple):
    """When the newest runs over all merchants began that proved a date, closed it, and refuted it."""

    proven_at: dt.datetime | None = None
    #: The same, of those for which the date was over and settled: then there is nothing more to come.
    closed_at: dt.datetime | None = None
    refuted_at: dt.datetime | None = None

    @property
    def is_closed(self) -> bool:
        """Whether nothing of the date is left to be proven."""
        return self.closed_at is not None and (self.refuted_at is None or self.refuted_at < self.closed_at)


class Proven(NamedTuple):
    """The moments up to which all usage is proven to be stored, and proven or waiting for a person to decide."""

    until: dt.datetime
    or_undecided_until: dt.datetime


def proven_until(conn: Connection, now: dt.datetime, settings: Settings) -> Proven:
    """The moments up to which all usage is proven, at most `now`.

    Looks at the dates from the go-live day on, within the retention: of an older one Redis has nothing left to prove.
    """
    today = local_date(now, settings)
    first = max(oldest_kept(today, settings), local_date(settings.start_date, settings))
    rows = conn.execute(query("select_proven"), {"from_date": first, "to_date": today})
    proofs: dict[dt.date, DateProof] = {}
    undecided: dict[dt.date, DateProof] = {}
    for date, *moments in rows:
        proofs[date], undecided[date] = DateProof(*moments[:3]), DateProof(*moments[3:])
    dates = [first + dt.timedelta(days=days) for days in range((today - first).days + 1)]
    return Proven(*(oldest_unproven(dates, each, now, settings) for each in (proofs, undecided)))


def owed_since(conn: Connection, now: dt.datetime, settings: Settings) -> dt.datetime | None:
    """Since when the oldest day is settled that no run has proven since; None if nothing is owed.

    Looks at days within the retention, from the day of the first run on: what was before is nobody's debt.
    """
    first_run_at = ledger.first_run_at(conn, Attempt("", 0))
    if first_run_at is None:
        return None
    today = local_date(now, settings)
    first = max(oldest_kept(today, settings), local_date(first_run_at, settings))
    days = [first + dt.timedelta(days=number) for number in range((today - first).days)]
    rules = KeyRules.of(settings)
    owed = [
        date
        for date, state in ledger.date_states(conn, days).items()
        if now >= rules.settled_at(date) and not state.is_ended
    ]
    return rules.settled_at(min(owed)) if owed else None


def oldest_unproven(
    dates: Iterable[dt.date], proofs: Mapping[dt.date, DateProof], now: dt.datetime, settings: Settings
) -> dt.datetime:
    """Where the oldest usage begins that is not proven: at midnight of its date, or at the last run that proved it.

    Pure. A date is done with when a run proved it after it was over and settled, and no run refuted it since.
    """
    oldest = now
    for date in dates:
        proof = proofs.get(date, DateProof())
        if not proof.is_closed:
            midnight = dt.datetime.combine(date, dt.time(), settings.timezone)
            oldest = min(oldest, max(midnight, proof.proven_at or midnight))
    return oldest
