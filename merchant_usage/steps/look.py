"""A first look at servers that are not ours yet: reads both, writes nothing, and needs no more than the right to read.

PostgreSQL is asked in one transaction that is read only, in which it refuses to write whatever the role may do.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Final

import redis
from psycopg import Connection

from merchant_usage.errors import MIGRATE_COMMAND
from merchant_usage.model.batches import Batch
from merchant_usage.model.dead_letter import DeadLetter
from merchant_usage.model.keys import CounterKey, KeyColumns, as_columns, parse_key
from merchant_usage.model.look import DayLook, Look
from merchant_usage.model.pages import PAGE, key_pages
from merchant_usage.model.risk import Risk, ServerState
from merchant_usage.model.run import Run
from merchant_usage.settings import Settings
from merchant_usage.sink import schema
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import transaction
from merchant_usage.source.counters import interpret_values, read_pages, seconds_to_live
from merchant_usage.source.inventory import describe_keys
from merchant_usage.source.memory import server_states
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.scan import ScanResult, log_absent_merchants, scan_keys
from merchant_usage.steps.source_risks import evictions, lifetimes
from merchant_usage.text import capitalized, shown

#: Counters, or keys of a reason, that are named.
EXAMPLES: Final = 3


def look(
    client: RedisClient,
    conn: Connection,
    run: Run,
    settings: Settings,
    on_page: Callable[[int, int], None] = lambda _, __: None,
) -> Look:
    """What both servers have of a run's dates, what the run would do, and what is odd. Writes nothing.

    Args:
        on_page: told (pages read, pages in all) after each page of values.

    Raises:
        UsageError: a server is not what a run could read.
        redis.exceptions.RedisError, psycopg.Error: one of the two does not answer, or refuses.
    """
    found = Look()
    others = _Others(found.other_dates)
    begin = time.monotonic()
    scanned = scan_keys(client, run.scopes(settings), run, settings, others)
    found.scan_seconds = time.monotonic() - begin
    found.keys = scanned.scanned
    batches = scanned.census.batches((), 1)
    begin = time.monotonic()
    with transaction(conn):
        conn.execute(query("set_read_only"))
        problems = schema.problems_of_usage_table(conn)
        found.tables = _tables(conn, problems)
        days = {date: DayLook(date, scanned.census.merchant_count(date)) for date in sorted(scanned.scopes)}
        comparison = _Comparison(client, conn if problems == [] else None, days, settings.key_prefix)
        found.pages = comparison.read(batches, on_page)
        found.read_seconds = time.monotonic() - begin
        comparison.count_rows()
    found.days = comparison.days
    log_absent_merchants(scanned, run)
    servers = server_states(client)
    risks = [*evictions(servers, {}), *lifetimes(client, batches, settings)]
    found.odd = list(_odd(client, scanned, comparison, problems, risks, settings.key_prefix))
    found.unseen = list(_unseen(client, servers, problems, settings))
    return found


class _Others:
    """Counts the keys of dates that nobody asked for."""

    def __init__(self, numbers: Counter[dt.date]) -> None:
        self._numbers = numbers

    def joins(self, date: dt.date) -> bool:
        """No date joins those that were asked for."""
        del date
        return False

    def add(self, date: dt.date, columns: KeyColumns, day: str) -> None:
        """Count those keys of a page that are of a date."""
        self._numbers[date] += columns.counts[day]


class _Comparison:
    """Reads counters and what is stored of them, page by page, and notes what a run would do."""

    def __init__(self, client: RedisClient, conn: Connection | None, days: dict[dt.date, DayLook], prefix: str) -> None:
        """Compare with the rows of `conn`; None if there is no table that could be read."""
        self._client = client
        self._conn = conn
        self._days = days
        self._prefix = prefix
        self._with_row: Counter[dt.date] = Counter()
        self.bad: Counter[str] = Counter()
        self.bad_names: defaultdict[str, list[str]] = defaultdict(list)
        self.lower: list[str] = []

    @property
    def days(self) -> list[DayLook]:
        """What is known of each date so far."""
        return list(self._days.values())

    def read(self, batches: Sequence[Batch], on_page: Callable[[int, int], None]) -> int:
        """Read all counters; returns in how many requests."""
        groups = sorted((group for batch in batches for group in batch.groups), key=attrgetter("date"))
        # About: a page ends with its date.
        total = sum(batch.key_count for batch in batches) // PAGE + 1
        done = 0
        for page, raw_values in read_pages(self._client, key_pages(groups, self._prefix)):
            self._note(page.raw_keys, interpret_values(self._client, page.raw_keys, raw_values))
            done += 1
            on_page(done, max(done, total))
        return done

    def note_bad(self, letter: DeadLetter) -> None:
        """Count a key that is no counter, and keep the names of a few."""
        self.bad[letter.reason] += 1
        if self.bad[letter.reason] <= EXAMPLES:
            self.bad_names[letter.reason].append(_named(letter.redis_key))

    def count_rows(self) -> None:
        """Note what is stored of each date besides."""
        if self._conn is None:
            return
        for date, rows, total in self._conn.execute(query("count_rows"), {"dates": list(self._days)}):
            day = self._days[date]
            day.rows, day.postgres_total = rows, int(total)
            day.without_counter = rows - self._with_row[date]

    def _note(self, raw_keys: Sequence[bytes], values: Sequence[int | DeadLetter | None]) -> None:
        counters: dict[CounterKey, int] = {}
        for raw_key, value in zip(raw_keys, values, strict=True):
            key = parse_key(raw_key, self._prefix)
            assert isinstance(key, CounterKey)  # it was scanned
            if isinstance(value, DeadLetter):
                self._days[key.date].bad += 1
                self.note_bad(value)
            elif value is not None:
                counters[key] = value
        rows = self._rows(counters)
        for key, value in counters.items():
            day = self._days[key.date]
            day.keys += 1
            day.redis_total += value
            stored, carried = rows.get(key, (None, 0))
            self._with_row[key.date] += stored is not None
            if stored is None:
                day.new += 1
            elif value + carried == stored:
                day.unchanged += 1
            elif value + carried > stored:
                day.raised += 1
            else:
                day.lower += 1
                if len(self.lower) < EXAMPLES:
                    self.lower.append(f"{key}: Redis {value + carried:,}, PostgreSQL {stored:,}")

    def _rows(self, keys: Iterable[CounterKey]) -> dict[CounterKey, tuple[int | None, int]]:
        """metric_value and carried of the keys that have a row."""
        columns = as_columns(keys)
        if self._conn is None or not columns["dates"]:
            return {}
        return {CounterKey(*row[:3]): (row[3], row[4]) for row in self._conn.execute(query("select_values"), columns)}


def _tables(conn: Connection, problems: list[str] | None) -> str:
    """What of our tables is there."""
    if problems is None:
        return f"There is no table merchant_usage yet: {MIGRATE_COMMAND} makes it and the others."
    if problems:
        return "There is a table merchant_usage, and a run cannot use it."
    if missing := schema.missing(conn):
        return f"There is a table merchant_usage that a run can use. {MIGRATE_COMMAND} adds {', '.join(missing)}."
    return "All tables are there."


def _odd(
    client: RedisClient,
    scanned: ScanResult,
    comparison: _Comparison,
    problems: Sequence[str] | None,
    risks: Iterable[Risk],
    prefix: str,
) -> Iterator[str]:
    """What somebody should know before a run, the gravest first."""
    yield from (f"PostgreSQL: {problem}." for problem in problems or ())
    if not scanned.scanned and (others := describe_keys(client)):
        yield (
            f"No key of Redis begins with '{prefix}:', though {others}: is USAGE_KEY_PREFIX right, and "
            "is this the server and the database that the API counts into?"
        )
    lower = sum(day.lower for day in comparison.days)
    if lower:
        yield (
            f"{lower:,} counter(s) are lower than what is stored, which a run keeps until somebody decides: "
            f"{_few(comparison.lower, lower)}."
        )
    for letter in scanned.bad.values():
        comparison.note_bad(letter)
    for reason, number in sorted(comparison.bad.items()):
        yield f"{number:,} key(s) cannot be counted ({reason}): {_few(comparison.bad_names[reason], number)}."
    if scanned.bad_left_out:
        yield f"{scanned.bad_left_out:,} more keys cannot be counted."
    yield from (capitalized(risk.seen) for risk in risks)


def _unseen(
    client: RedisClient, servers: Sequence[ServerState], problems: Sequence[str] | None, settings: Settings
) -> Iterator[str]:
    """What was not looked at, so that nobody takes it for fine."""
    if problems:
        yield "the rows of merchant_usage, which has to fit first: all counters are told as new"
    if not servers:
        yield "whether Redis may evict keys (+info)"
    try:
        seconds_to_live(client, [f"{settings.key_prefix}:".encode()])
    except redis.exceptions.NoPermissionError:
        yield "how long keys live (+ttl)"


def _few(names: Sequence[str], number: int) -> str:
    more = f" and {number - EXAMPLES:,} more" if number > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more


def _named(raw_key: bytes) -> str:
    return shown(raw_key.decode(errors="backslashreplace"))
