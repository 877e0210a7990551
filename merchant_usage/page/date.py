"""A date: how it stands, who read it, which merchants matter, what cannot be counted, what was sealed and decided."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

from psycopg import Connection
from psycopg.rows import class_row, dict_row

from merchant_usage.model.dates import local_date
from merchant_usage.model.run import Attempt
from merchant_usage.page import asked, changes, days, letters
from merchant_usage.page.changes import WEEK, Changes
from merchant_usage.page.days import Day
from merchant_usage.page.marks import Mark, mark
from merchant_usage.page.notices import Notice, about
from merchant_usage.settings import Settings
from merchant_usage.sink import decisions
from merchant_usage.sink.queries import query
from merchant_usage.text import storable

#: Runs a page, and of what is not paged the newest.
RUNS: Final = 20
NEWEST: Final = 50


class Asked(NamedTuple):
    """Which date, and behind what its lists begin."""

    date: dt.date
    run: Attempt | None = None
    waiting: int = 0
    letter: int = 0

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> Asked:
        """As an address asks.

        Raises:
            SettingsError: something of it cannot be read.
        """
        run_id = parameters.get("after_run")
        attempt = asked.whole("after_attempt", parameters.get("after_attempt"), 1, 1, 2**31 - 1)
        return cls(
            asked.date_of("date", parameters.get("date")),
            Attempt(storable(run_id), attempt) if run_id else None,
            asked.identity("after_waiting", parameters.get("after_waiting")),
            asked.identity("after_letter", parameters.get("after_letter")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A row of the ledger. `only_merchants`: how many it was for; None: for all."""

    run_id: str
    attempt: int
    run_type: str
    requested_by: str | None
    only_merchants: int | None
    settled: bool
    started_at: dt.datetime
    finished_at: dt.datetime | None
    keys_scanned: int
    merchants: int
    rows_inserted: int
    rows_updated: int
    rows_unchanged: int
    dead_letters: int
    regressed: int
    redis_total: Decimal | None
    postgres_total: Decimal | None
    verdict: str | None
    error: str | None

    @property
    def mark(self) -> Mark:
        """How it ended."""
        return mark(self.verdict, self.error)


@dataclass(frozen=True, slots=True)
class Runs:
    """A page of runs, the newest first; `next`: behind which the following begin, None: there are none."""

    rows: Sequence[RunRow]
    next: Attempt | None
    is_first: bool


@dataclass(frozen=True, slots=True)
class DatePage:
    """What the page of a date shows.

    Attributes:
        notices: what is wrong with it.
        run: the newest run over all merchants that came to a verdict.
        earlier: the same weekday in the weeks before, as far as there were runs.
        next: the day after; None: it is still to come.
    """

    day: Day
    notices: Sequence[Notice]
    run: RunRow | None
    runs: Runs
    earlier: Sequence[Day]
    changes: Changes
    waiting: letters.Page
    letters: letters.Page
    seals: Sequence[dict[str, Any]]
    decisions: Sequence[dict[str, Any]]
    corrections: Sequence[dict[str, Any]]
    previous: dt.date
    next: dt.date | None


def read(conn: Connection, wanted: Asked, now: dt.datetime, settings: Settings) -> DatePage:
    """From the ledger, the dead letters, the seals and the decisions; of usage a few merchants by their ids."""
    date = wanted.date
    weeks = [date - number * WEEK for number in range(days.WEEKS_BEFORE + 1)]
    day, *earlier = days.read(conn, weeks, now, settings)
    waiting = letters.of_date(conn, date, True, wanted.waiting, settings)
    others = letters.of_date(conn, date, False, wanted.letter, settings)
    corrections = _rows(conn, "date_corrections", date)
    named = {row["merchant_id"]: "corrected" for row in reversed(corrections)}
    for page, why in ((others, "dead letter"), (waiting, "went backwards")):
        named |= {counter.merchant_id: why for _, counter in page.letters if counter}
    return DatePage(
        day=day,
        notices=about([day], now, settings),
        run=next(iter(_run_rows(conn, "date_whole_run", {"usage_date": date})), None),
        runs=_runs(conn, date, wanted.run),
        earlier=[each for each in earlier if each.newest],
        changes=changes.read(conn, date, named, earlier[0].newest is not None),
        waiting=waiting,
        letters=others,
        seals=_rows(conn, "date_seals", date),
        decisions=decisions.decided(conn, date, NEWEST),
        corrections=corrections,
        previous=date - dt.timedelta(days=1),
        next=date + dt.timedelta(days=1) if date < local_date(now, settings) else None,
    )


def _rows(conn: Connection, name: str, date: dt.date) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query(name), {"usage_date": date, "limit": NEWEST}).fetchall()


def _runs(conn: Connection, date: dt.date, after: Attempt | None) -> Runs:
    run_id, attempt = after or (None, None)
    parameters = {"usage_date": date, "after_run": run_id, "after_attempt": attempt, "limit": RUNS + 1}
    rows = _run_rows(conn, "date_runs", parameters)
    last = rows[RUNS - 1] if len(rows) > RUNS else None
    return Runs(rows[:RUNS], Attempt(last.run_id, last.attempt) if last else None, after is None)


def _run_rows(conn: Connection, name: str, parameters: dict[str, Any]) -> list[RunRow]:
    with conn.cursor(row_factory=class_row(RunRow)) as cursor:
        return cursor.execute(query(name), parameters).fetchall()
