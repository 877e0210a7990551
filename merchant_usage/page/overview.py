"""The overview: how the dates stand, the worst first."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import Connection

from merchant_usage.model.dates import local_date
from merchant_usage.model.dead_letter import Reason
from merchant_usage.page import days
from merchant_usage.page.bars import Bars, draw
from merchant_usage.page.days import Day, Newest
from merchant_usage.page.marks import Mark
from merchant_usage.page.notices import Found, Notice, notices
from merchant_usage.page.schedule import next_run
from merchant_usage.settings import Settings
from merchant_usage.sink import causes, lag, seals
from merchant_usage.sink.causes import Cause
from merchant_usage.sink.lag import Proven
from merchant_usage.sink.queries import query

#: Weeks that are shown, unless more are asked for.
WEEKS: Final = 13
MOST_WEEKS: Final = 53
WEEK: Final = dt.timedelta(weeks=1)
DAY: Final = dt.timedelta(days=1)
#: Of more open dead letters than this is said that there are so many at least.
MOST_LETTERS: Final = 100_000
#: Of more counters that wait than this no causes are looked for: that would read all of them.
MOST_SORTED: Final = 10_000
#: Alerts of the audit that are read.
MOST_ALERTS: Final = 100
_DATE_OF_ALERT: Final = re.compile(r"seal_broken ([0-9]{4}-[0-9]{2}-[0-9]{2}) ")


@dataclass(frozen=True, slots=True)
class Window:
    """Whole weeks, Monday to Sunday: from the first day of the first to the last of the last."""

    first: dt.date
    weeks: int

    @classmethod
    def until(cls, date: dt.date, weeks: int) -> Window:
        """So many weeks, of which the last is that of the date."""
        return cls(date - dt.timedelta(days=date.weekday()) - (weeks - 1) * WEEK, weeks)

    @property
    def last(self) -> dt.date:
        """The last day."""
        return self.first + self.weeks * WEEK - DAY

    def dates(self, oldest: dt.date | None, today: dt.date) -> list[dt.date]:
        """Its days, from the oldest that there is anything of up to today."""
        first, last = max(self.first, oldest or today), min(self.last, today)
        return [first + number * DAY for number in range((last - first).days + 1)]


@dataclass(frozen=True, slots=True)
class Overview:
    """What the overview shows.

    Attributes:
        notices: what is wrong, of the newest weeks, whichever are shown.
        days: of the window, oldest first.
        mondays: of the weeks that there is anything of.
        rows: the weekdays, each with its days week by week; None: there is nothing to show of one.
        oldest: the first date that any run was for; None: there was none.
        newest: the newest date that has totals.
        is_more: there are more dead letters than were counted.
        causes: of what waits for a decision; empty if it is too much to be sorted.
    """

    now: dt.datetime
    today: dt.date
    window: Window
    oldest: dt.date | None
    notices: Sequence[Notice]
    days: Sequence[Day]
    mondays: Sequence[dt.date]
    rows: Sequence[Sequence[Day | None]]
    newest: Day | None
    bars: Bars
    proven: Proven
    letters: Mapping[str, int]
    is_more: bool
    causes: Sequence[Cause]
    last_run: Newest | None
    next_run: dt.datetime | None
    last_seal: int

    @property
    def marks(self) -> list[Mark]:
        """The marks that are to be seen, each once."""
        return list(dict.fromkeys(day.mark for day in self.days))

    @property
    def asked_weeks(self) -> int | None:
        """How many weeks an address has to ask for; None: it need not."""
        return None if self.window.weeks == WEEKS else self.window.weeks

    @property
    def waiting(self) -> int:
        """Counters that wait for a decision."""
        return self.letters.get(Reason.COUNTER_REGRESSED, 0)

    @property
    def sealed(self) -> int:
        """Dates of the window that are sealed."""
        return sum(day.is_sealed for day in self.days)

    @property
    def earlier(self) -> dt.date | None:
        """Where the weeks before these end; None: there is nothing of them."""
        has_more = self.oldest is not None and self.oldest < self.window.first
        return self.window.first - DAY if has_more else None

    @property
    def later(self) -> dt.date | None:
        """Where the weeks after these end; None: there are none."""
        return min(self.window.last + self.window.weeks * WEEK, self.today) if self.window.last < self.today else None


def read(
    conn: Connection, now: dt.datetime, settings: Settings, until: dt.date | None = None, weeks: int = WEEKS
) -> Overview:
    """From the ledger, the dead letters, the seals and the alerts.

    Args:
        until: a day of the last week that is shown; None: today.
        weeks: how many are shown.
    """
    today = local_date(now, settings)
    window = Window.until(min(until or today, today), weeks)
    (oldest,) = conn.execute(query("overview_first_date")).fetchone() or (None,)
    shown = days.read(conn, window.dates(oldest, today), now, settings)
    lately = Window.until(today, WEEKS)
    is_now = window.first <= lately.first and window.last >= today
    recent = shown if is_now else days.read(conn, lately.dates(oldest, today), now, settings)
    letters: dict[str, int] = dict(conn.execute(query("overview_letters"), {"limit": MOST_LETTERS}).fetchall())
    waiting = letters.get(Reason.COUNTER_REGRESSED, 0)
    is_more = sum(letters.values()) >= MOST_LETTERS
    alerts = conn.execute(query("overview_alerts"), {"limit": MOST_ALERTS}).fetchall()
    matches = [_DATE_OF_ALERT.match(key) for key, _ in alerts]
    changed = sorted({dt.date.fromisoformat(match[1]) for match in matches if match})
    found = Found(recent, letters, changed, not all(matches))
    by_date = {day.date: day for day in shown}
    mondays = sorted({date - date.weekday() * DAY for date in by_date})
    return Overview(
        now=now,
        today=today,
        window=window,
        oldest=oldest,
        notices=notices(found, now, settings),
        days=shown,
        mondays=mondays,
        rows=[[by_date.get(monday + weekday * DAY) for monday in mondays] for weekday in range(7)],
        newest=next((day for day in reversed(recent) if day.total is not None), None),
        bars=draw([day.total for day in shown]),
        proven=lag.proven_until(conn, now, settings),
        letters=letters,
        is_more=is_more,
        causes=causes.find(conn) if 0 < waiting <= MOST_SORTED and not is_more else [],
        last_run=max((day.newest for day in recent if day.newest), key=lambda run: run.started_at, default=None),
        next_run=next_run(now, settings),
        last_seal=seals.end_of_chain(conn)[0],
    )
