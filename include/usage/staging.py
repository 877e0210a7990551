"""Brings readings of Redis next to the table they are compared with: COPY into a temporary table."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from psycopg import Connection

from include.usage.batches import Batch
from include.usage.counters import PAGE, RedisClient, all_plain, read_pages, readings, with_date
from include.usage.dead_letters import DeadLetter
from include.usage.keys import CounterKey, iso, parse_key
from include.usage.queries import query

# Dead letters kept of one pass (a transaction's share of a batch): enough to see what is wrong, and bounded.
MAX_DEAD_LETTERS: Final = 1000

# What COPY's text format gives a meaning to.
_COPY_SPECIAL = re.compile(r"[\\\t\n\r]")
_COPY_ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
_NULL: Final = rb"\N"


class Page(NamedTuple):
    """Some keys of a batch, with what each row of COPY's text format begins with: all but the value."""

    raw_keys: list[bytes]
    row_starts: list[bytes]
    #: How many of the keys are of which date.
    dates: Counter[dt.date]


@dataclass(slots=True)
class DateReading:
    """What was read of one date."""

    read: int = 0
    expired: int = 0
    dead_letters: int = 0


@dataclass(slots=True)
class Staged:
    """What reading some keys found besides the good values, which become rows.

    Of a flood of bad values the first are kept, all are counted.
    """

    by_date: dict[dt.date, DateReading] = field(default_factory=lambda: defaultdict(DateReading))
    dead_letters: list[DeadLetter] = field(default_factory=list)
    healed: list[bytes] = field(default_factory=list)


def raw_keys(batch: Batch, prefix: str) -> Iterator[list[bytes]]:
    """The Redis keys of a batch, a list for each date and merchant. Put together from parts that were encoded once."""
    for group in batch.groups:
        day = iso(group.date)
        ends = [metric.encode() for metric in group.metric_types]
        for merchant in group.merchant_ids:
            start = f"{prefix}:{merchant}:{day}:".encode()
            yield [start + end for end in ends]


def batch_pages(batch: Batch, prefix: str, size: int = PAGE) -> Iterator[Page]:
    """The keys of a batch in pages of about `size`, merchant by merchant within a group.

    Keys and rows are put together from parts that were encoded and escaped once, never one by one.
    """
    page = Page([], [], Counter())
    for group in batch.groups:
        day = iso(group.date)
        key_ends = [metric.encode() for metric in group.metric_types]
        row_ends = [f"{_escape(metric)}\t".encode() for metric in group.metric_types]
        for merchant in group.merchant_ids:
            key_start = f"{prefix}:{merchant}:{day}:".encode()
            row_start = f"{_escape(merchant)}\t{day}\t".encode()
            for first in range(0, len(key_ends), size):
                some = slice(first, first + size)
                page.raw_keys.extend([key_start + end for end in key_ends[some]])
                page.row_starts.extend([row_start + end for end in row_ends[some]])
                page.dates[group.date] += len(key_ends[some])
                if len(page.raw_keys) >= size:
                    yield page
                    page = Page([], [], Counter())
    if page.raw_keys:
        yield page


def read_batch(
    client: RedisClient,
    batch: Batch,
    prefix: str,
    staged: Staged,
    *,
    open_keys: frozenset[bytes] | set[bytes] = frozenset(),
    on_reading: Callable[[CounterKey, int], None] | None = None,
) -> Iterator[bytes]:
    """Read a batch's counters, and give them as rows of COPY's text format, a page at a time.

    Memory stays flat, however many keys come.

    Args:
        staged: is filled with all that is not a good value.
        open_keys: keys with an open dead letter; those now good or gone are added to `healed`.
        on_reading: called with every good value.
    """
    for page, raws in read_pages(client, batch_pages(batch, prefix)):
        # Nearly every page is all good. Then its values are written as they came, and no key is looked at.
        if all_plain(raws) and on_reading is None and open_keys.isdisjoint(page.raw_keys):
            for date, number in page.dates.items():
                staged.by_date[date].read += number
            yield copy_rows(page.row_starts, raws)
        else:
            values = readings(client, page.raw_keys, raws)
            yield copy_rows(*_sort(staged, page, values, prefix, open_keys, on_reading))


def stage(conn: Connection, rows: Iterable[bytes]) -> None:
    """COPY rows into the temporary table `usage_staged`. Needs a transaction, and they live as long as that."""
    conn.execute(query("create_staging"))
    with conn.cursor() as cursor, cursor.copy(query("copy_staging")) as copy:
        for block in rows:
            copy.write(block)


def stage_names(conn: Connection, batches: Iterable[Batch], prefix: str) -> None:
    """COPY the keys of batches into the temporary table `usage_staged`, without values. Needs a transaction."""
    pages = (page for batch in batches for page in batch_pages(batch, prefix))
    stage(conn, (copy_rows(page.row_starts, [None] * len(page.row_starts)) for page in pages))


def _sort(
    staged: Staged,
    page: Page,
    values: Sequence[int | DeadLetter | None],
    prefix: str,
    open_keys: frozenset[bytes] | set[bytes],
    on_reading: Callable[[CounterKey, int], None] | None,
) -> tuple[list[bytes], list[bytes | None]]:
    """Count a page of readings key by key; returns row starts and values of those to be staged."""
    starts: list[bytes] = []
    good: list[bytes | None] = []
    for raw_key, start, value in zip(page.raw_keys, page.row_starts, values, strict=True):
        key = parse_key(raw_key, prefix)
        assert isinstance(key, CounterKey)  # batches name nothing else
        reading = staged.by_date[key.date]
        if isinstance(value, DeadLetter):
            reading.dead_letters += 1
            if len(staged.dead_letters) < MAX_DEAD_LETTERS:
                staged.dead_letters.append(with_date(value, key.date))
            continue
        if raw_key in open_keys:
            staged.healed.append(raw_key)
        if value is None:
            reading.expired += 1
            continue
        reading.read += 1
        starts.append(start)
        good.append(b"%d" % value)
        if on_reading is not None:
            on_reading(key, value)
    return starts, good


def copy_rows(row_starts: Sequence[bytes], values: Sequence[bytes | None]) -> bytes:
    """Rows as COPY's text format takes them; None is NULL."""
    told = [_NULL if value is None else value for value in values] if None in values else values
    return b"".join([start + value + b"\n" for start, value in zip(row_starts, told, strict=True)])  # type: ignore[operator]


def _escape(text: str) -> str:
    if _COPY_SPECIAL.search(text) is None:
        return text
    return _COPY_SPECIAL.sub(lambda match: _COPY_ESCAPES[match[0]], text)
