"""How dates stand, as the page shows them: from the ledger alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from psycopg import Connection

from merchant_usage.model.dates import KeyRules, local_date
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.run import Attempt
from merchant_usage.page.marks import NO_RUN, PARTLY, Mark, mark
from merchant_usage.settings import Settings
from merchant_usage.sink import ledger, seals
from merchant_usage.sink.ledger import DateState
from merchant_usage.sink.queries import query

#: A total is unusual beyond all of the same weekday in so many weeks before, by more than so much of it.
WEEKS_BEFORE: Final = 4
LEAST_BEFORE: Final = 2
UNUSUAL: Final = 0.25
_NEVER: Final = dt.datetime.min.replace(tzinfo=dt.UTC)


class Newest(NamedTuple):
    """The newest run of a date, and the newest over all merchants that came to a verdict (None: there is none)."""

    run_id: str
    started_at: dt.datetime
    verdict: str | None
    error: str | None
    whole_run_id: str | None = None
    whole_started_at: dt.datetime | None = None
    settled: bool | None = None
    whole_verdict: str | None = None
    redis: int | None = None
    postgres: int | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it ended without a verdict."""
        return self.verdict is None and self.error is not None

    @property
    def is_open(self) -> bool:
        """Whether it has come to no end: it goes on, or was killed."""
        return self.verdict is None and self.error is None


@dataclass(frozen=True, slots=True)
class Day:
    """How a date stands.

    Attributes:
        state: what all runs together say of its end.
        newest: None if there is no run of it.
        sealed_as: the version of its newest seal; 0: it has none.
        is_settled: it is over, and its settle hours have passed.
        is_owed: it is settled, and no run has come to an end with it.
        is_stale: it is owed, or it is live and no run has proven it for more than two intervals.
        expires_at: when the first of its keys may expire.
        usual: the least and the most of the same weekday in the weeks before; None where too few are known.
    """

    date: dt.date
    state: DateState
    newest: Newest | None
    sealed_as: int
    is_settled: bool
    is_owed: bool
    is_stale: bool
    expires_at: dt.datetime
    usual: tuple[int, int] | None = None

    @property
    def verdict(self) -> DateVerdict | None:
        """What holds of it: of its end if anybody read that, else of what was last read while it was live."""
        if self.state.is_undecided:
            return DateVerdict.MISMATCH
        if self.state.verdict is not None or self.newest is None or self.newest.whole_verdict is None:
            return self.state.verdict
        return DateVerdict(self.newest.whole_verdict)

    @property
    def mark(self) -> Mark:
        """How it is marked. A failed run takes nothing away from a date that is sealed."""
        if self.newest is None:
            return NO_RUN
        if self.newest.has_failed and not self.state.is_ended and not self.state.is_undecided:
            return mark(None, self.newest.error)
        if self.verdict is None and not self.newest.is_open:
            return PARTLY
        return mark(self.verdict)

    @property
    def total(self) -> int | None:
        """What PostgreSQL held when the date was last looked at."""
        return self.newest.postgres if self.newest else None

    @property
    def is_sealed(self) -> bool:
        """Whether it has a seal, and is what was proven."""
        return self.sealed_as > 0 and self.state.is_sealed

    @property
    def unusual(self) -> str:
        """`high` or `low`, if it is over and far beyond all of the same weekday in the weeks before; else nothing."""
        if self.usual is None or self.total is None or not self.is_settled:
            return ""
        least, most = self.usual
        if self.total > most * (1 + UNUSUAL):
            return "high"
        return "low" if self.total < least * (1 - UNUSUAL) else ""

    @property
    def words(self) -> str:
        """All that its mark says, in words."""
        said = [self.mark.word]
        if self.is_sealed:
            said.append("sealed")
        if self.is_stale:
            said.append("owed" if self.is_owed else "not proven lately")
        if self.unusual:
            said.append(f"unusually {self.unusual}")
        return ", ".join(said)


def read(conn: Connection, dates: Sequence[dt.date], now: dt.datetime, settings: Settings) -> list[Day]:
    """How some dates stand, in their order."""
    weeks = [dt.timedelta(weeks=number) for number in range(1, WEEKS_BEFORE + 1)]
    newest = _newest(conn, {*dates, *(date - week for date in dates for week in weeks)})
    states = ledger.date_states(conn, dates)
    sealed = {date: seal.version for date, seal in seals.newest(conn, dates).items()}
    began_at = ledger.first_run_at(conn, Attempt("", 0))
    first = local_date(began_at, settings) if began_at else None
    rules = KeyRules.of(settings)
    patience = 2 * settings.interval + dt.timedelta(seconds=settings.deadline_seconds)
    found = []
    for date in dates:
        settled = now >= rules.settled_at(date)
        is_ours = first is not None and date >= first
        owed = is_ours and settled and not states[date].is_ended
        proven_at = max(rules.midnight(date), states[date].proven_at or _NEVER, _found_good_at(newest.get(date)))
        late = is_ours and not settled and settings.enabled and now - proven_at > patience
        before = [newest[date - week].postgres for week in weeks if date - week in newest]
        found.append(
            Day(
                date,
                states[date],
                newest.get(date),
                sealed.get(date, 0),
                settled,
                owed,
                owed or late,
                rules.kept_until(date),
                usual([total for total in before if total is not None]),
            )
        )
    return found


def usual(totals: Sequence[int]) -> tuple[int, int] | None:
    """The least and the most of some totals; None of too few to say what is usual."""
    return (min(totals), max(totals)) if len(totals) >= LEAST_BEFORE else None


def _newest(conn: Connection, dates: Iterable[dt.date]) -> dict[dt.date, Newest]:
    found = {}
    for date, *columns, redis, postgres in conn.execute(query("overview_dates"), {"dates": sorted(dates)}):
        totals = (None if total is None else int(total) for total in (redis, postgres))
        found[date] = Newest(*columns, *totals)
    return found


def _found_good_at(newest: Newest | None) -> dt.datetime:
    """When the newest whole run began, if it found nothing wrong: also where there was nothing to prove."""
    if newest is None or newest.whole_started_at is None or newest.whole_verdict is None:
        return _NEVER
    return newest.whole_started_at if DateVerdict(newest.whole_verdict).is_good else _NEVER
