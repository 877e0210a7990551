"""Keys of dates that are past the retention, and that a scan comes across: none of them is passed over in silence."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final

from psycopg import Connection

from merchant_usage.log import Log
from merchant_usage.model.batches import Census, Group
from merchant_usage.model.dates import Scope, format_dates, local_date, oldest_kept
from merchant_usage.model.dead_letter import DeadLetter, Reason
from merchant_usage.model.keys import CounterKey, KeyColumns, as_columns, parse_key
from merchant_usage.model.pages import key_pages
from merchant_usage.model.run import Run
from merchant_usage.settings import Settings
from merchant_usage.sink import dead_letters, ledger
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import again_on_conflict, transaction
from merchant_usage.source.counters import interpret_values
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.page_comparison import PageComparison, compare_pages

log = Log(__name__)

# Keys looked at together: enough to be quick, few enough to be held.
KEYS_AT_ONCE: Final = 20_000


class OldKeys:
    """Takes the keys of dates past the retention, from the go-live day on.

    A date that no run has come to a verdict about is not closed: a scheduled run takes it along. Of one that is closed
    what PostgreSQL does not hold is too late, and a dead letter: what was billed changes only if a person says so.
    """

    def __init__(self, client: RedisClient, conn: Connection, run: Run, settings: Settings) -> None:
        self._client = client
        self._conn = conn
        self._prefix = settings.key_prefix
        self._takes_along = run.interval is not None
        self._oldest = oldest_kept(local_date(run.now, settings), settings)
        self._first = local_date(settings.start_date, settings)
        self._closed: dict[dt.date, bool] = {}
        self._census, self._held = Census(), 0
        self._too_late: Counter[dt.date] = Counter()
        self._left: Counter[dt.date] = Counter()
        #: Of dates before the go-live day.
        self._before: Counter[dt.date] = Counter()

    def joins(self, date: dt.date) -> bool:
        """Whether a run takes a date along though nobody asked for it."""
        return self._takes_along and self._concerns(date) and not self._is_closed(date)

    def add(self, date: dt.date, columns: KeyColumns, day: str) -> None:
        """Take those keys of a page that are of a date that the run does not handle; `day` is how they write it."""
        keys = columns.counts[day]
        if date < self._first:
            self._before[date] += keys
        if not self._concerns(date):
            return
        if not self._is_closed(date):
            self._left[date] += keys
            return
        self._census.add_all(date, *columns.of(day))
        self._held += keys
        if self._held >= KEYS_AT_ONCE:
            self._look()

    def finish(self) -> None:
        """Look at what is left, and say what was found."""
        self._look()
        if self._too_late:
            log.warning(
                f"{self._too_late.total():,} counters of {format_dates(self._too_late)} came after their dates were "
                "closed. They are not stored: see too_late in usage_dead_letter. Aggregate a date by hand to take it.",
                too_late=self._too_late.total(),
            )
        if self._left:
            log.warning(
                f"Redis has {self._left.total():,} keys of {format_dates(self._left)}, which are older than "
                "USAGE_RETENTION_DAYS and were never aggregated. This run was not asked for them.",
                keys=self._left.total(),
            )
        if self._before:
            log.warning(
                f"Redis has {self._before.total():,} keys of {format_dates(self._before)}, from before "
                f"USAGE_START_DATE, {self._first}: they are not aggregated unless somebody asks for their dates.",
                keys=self._before.total(),
            )

    def _concerns(self, date: dt.date) -> bool:
        return self._first <= date < self._oldest

    def _is_closed(self, date: dt.date) -> bool:
        if date not in self._closed:
            self._closed[date] = ledger.date_states(self._conn, [date])[date].verdict is not None
        return self._closed[date]

    def keep_closed(self, census: Census, scopes: Iterable[Scope]) -> list[dt.date]:
        """Dates among these that clean-up may not take along: they are closed, and Redis has what was never stored.

        To store that would change what was billed, and a counter that began anew and overtook would count short. What
        clean-up deleted itself is known, and comes on top.
        """
        late = []
        for scope in scopes:
            date = scope.date
            if scope.merchant_ids is None and self._concerns(date) and self._is_closed(date):
                before = self._too_late[date]
                self._write_letters(census.groups(date), for_clean_up=True)
                if self._too_late[date] > before:
                    late.append(date)
        return late

    def _look(self) -> None:
        if not self._held:
            return
        groups = [group for batch in self._census.batches((), 1) for group in batch.groups]
        self._census, self._held = Census(), 0
        self._write_letters(groups)

    def _write_letters(self, groups: Iterable[Group], *, for_clean_up: bool = False) -> None:
        with transaction(self._conn):
            self._conn.execute(query("prepare_verification"))
            unequal = [
                both
                for both in compare_pages(self._client, self._conn, key_pages(groups, self._prefix))
                if not both.equal
            ]
        letters = [letter for both in unequal for letter in self._letters(both, for_clean_up=for_clean_up)]
        again_on_conflict(partial(self._open, letters))

    def _open(self, letters: list[DeadLetter]) -> None:
        with transaction(self._conn):
            dead_letters.open_letters(self._conn, letters)

    def _letters(self, both: PageComparison, *, for_clean_up: bool) -> list[DeadLetter]:
        chosen = both.unequal()
        keys = [both.page.raw_keys[i] for i in chosen]
        values = interpret_values(self._client, keys, [both.raw_values[i] for i in chosen])
        date = both.page.date
        late = [(key, value) for key, value in zip(keys, values, strict=True) if isinstance(value, int)]
        if for_clean_up:
            expected = self._returning_or_lower(late)
            late = [(key, value) for key, value in late if key not in expected]
        self._too_late[date] += len(late)
        return [
            DeadLetter(key, Reason.TOO_LATE, f"Redis has {value}, and {date} was closed without it", date)
            for key, value in late
        ]

    def _returning_or_lower(self, late: Sequence[tuple[bytes, int]]) -> set[bytes]:
        """Keys that clean-up had deleted, and those below what is stored, which get a letter of their own."""
        parsed = {raw: key for raw, _ in late if isinstance(key := parse_key(raw, self._prefix), CounterKey)}
        rows = self._conn.execute(query("select_rows"), as_columns(parsed.values()))
        held = {CounterKey(*row[:3]): (row[3], row[4]) for row in rows}
        found = {raw: held[key] for raw, key in parsed.items() if key in held}
        return {
            raw for raw, value in late if raw in found and (found[raw][0] == found[raw][1] or value < found[raw][0])
        }
