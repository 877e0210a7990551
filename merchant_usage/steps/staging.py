"""Brings readings of Redis next to the table they are compared with: COPY into a temporary table."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from psycopg import Connection

from merchant_usage.model.batches import Group
from merchant_usage.model.dead_letter import DeadLetter
from merchant_usage.model.keys import CounterKey, parse_key
from merchant_usage.model.pages import Page, key_pages
from merchant_usage.model.readings import PackedReading
from merchant_usage.sink.queries import query
from merchant_usage.source.counters import all_plain_integers, interpret_values, read_pages, with_date
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.page_comparison import compare_pages

# Dead letters kept of one pass (a transaction's share of a batch): enough to see what is wrong, and bounded.
MAX_DEAD_LETTERS: Final = 1000

_NULL: Final = rb"\N"

OpenKeys = frozenset[bytes] | set[bytes]
OnReading = Callable[[CounterKey, int], None]


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

    Args:
        open_keys: keys with an open dead letter; those now good or gone are added to `healed`.
        on_reading: called with every good value.
        live: dates that may still grow: what is read of them is kept, page by page, in `readings`.
    """

    prefix: str
    open_keys: OpenKeys
    on_reading: OnReading | None
    live: Set[dt.date] = frozenset()
    by_date: dict[dt.date, DateReading] = field(default_factory=lambda: defaultdict(DateReading))
    dead_letters: list[DeadLetter] = field(default_factory=list)
    healed: list[bytes] = field(default_factory=list)
    #: Pages of live dates, packed as they will be kept: a tenth of what their keys and values take.
    readings: list[PackedReading] = field(default_factory=list)
    #: Whether a row may carry something. All do as long as nobody has looked.
    may_carry: bool = False
    #: How many rows are staged, and how many of them PostgreSQL may have none of yet. All of them until it was asked.
    rows: int = 0
    new_rows: int = 0

    @property
    def mostly_raises(self) -> bool:
        """Whether most of what is staged is known to have a row, with another value."""
        return 2 * self.new_rows < self.rows


def read_all(client: RedisClient, groups: Iterable[Group], staged: Staged) -> Iterator[bytes]:
    """Read counters, and give them as rows of COPY's text format, a page at a time.

    Memory stays flat, however many keys come.
    """
    staged.may_carry = True
    for page, raw_values in read_pages(client, key_pages(groups, staged.prefix), staged.open_keys):
        # Nearly every page is all good. Then its values are written as they came, and no key is looked at.
        if _no_open_dead_letter(page, staged) and all_plain_integers(raw_values):
            _note_plain(staged, page, raw_values)
            yield _rows_of(staged, page.row_prefixes(), raw_values, new=len(raw_values))
        else:
            found = _classify_page(staged, page, interpret_values(client, page.raw_keys, raw_values))
            yield _rows_of(staged, *found, new=len(raw_values))


def read_unequal(client: RedisClient, conn: Connection, groups: Iterable[Group], staged: Staged) -> Iterator[bytes]:
    """As `read_all`, but only the rows of those counters that PostgreSQL does not hold just as Redis has them.

    Rows only rise: whoever was found equal stays at what was read, or above.
    """
    for both in compare_pages(client, conn, key_pages(groups, staged.prefix), staged.open_keys):
        page, raw_values = both.page, both.raw_values
        new = len(raw_values) - both.rows
        staged.may_carry = staged.may_carry or both.carries
        untold = _no_open_dead_letter(page, staged)
        equal = untold and both.equal
        if equal or (untold and all_plain_integers(raw_values)):
            _note_plain(staged, page, raw_values)
            if not equal:
                starts, unequal = page.row_prefixes(), both.unequal()
                yield _rows_of(staged, [starts[i] for i in unequal], [raw_values[i] for i in unequal], new=new)
        else:
            found = _classify_page(staged, page, interpret_values(client, page.raw_keys, raw_values))
            yield _rows_of(staged, *found, new=new)


def _rows_of(staged: Staged, row_prefixes: Sequence[bytes], values: Sequence[bytes | None], *, new: int) -> bytes:
    """What of a page is to be staged."""
    staged.rows += len(row_prefixes)
    staged.new_rows += new
    return copy_rows(row_prefixes, values)


def stage(conn: Connection, rows: Iterable[bytes]) -> None:
    """COPY rows into the temporary table `usage_staged`. Needs a transaction, and they live as long as that."""
    conn.execute(query("create_staging"))
    with conn.cursor() as cursor, cursor.copy(query("copy_staging")) as copy:
        for block in rows:
            copy.write(block)


def stage_names(conn: Connection, groups: Iterable[Group], prefix: str) -> None:
    """COPY keys into the temporary table `usage_staged`, without values. Needs a transaction."""
    starts = (page.row_prefixes() for page in key_pages(groups, prefix))
    stage(conn, (copy_rows(some, [None] * len(some)) for some in starts))


def _no_open_dead_letter(page: Page, staged: Staged) -> bool:
    """Whether none of the keys has an open dead letter."""
    return not staged.open_keys or staged.open_keys.isdisjoint(page.raw_keys)


def _note_plain(staged: Staged, page: Page, raw_values: Sequence[bytes | None]) -> None:
    """Count a page on which all is plain, and tell each value if anybody asks."""
    staged.by_date[page.date].read += len(page.raw_keys)
    if page.date in staged.live:
        staged.readings.append(PackedReading.of(page, raw_values))  # type: ignore[arg-type]  # all of them are plain
    if staged.on_reading is not None:
        for raw_key, raw in zip(page.raw_keys, raw_values, strict=True):
            key = parse_key(raw_key, staged.prefix)
            assert isinstance(key, CounterKey) and raw is not None  # noqa: PT018  # batches name nothing else; it is plain
            staged.on_reading(key, int(raw))


def _classify_page(
    staged: Staged, page: Page, values: Sequence[int | DeadLetter | None]
) -> tuple[list[bytes], list[bytes | None]]:
    """Count a page of readings key by key; returns row starts and values of those to be staged."""
    starts: list[bytes] = []
    good: list[bytes | None] = []
    if page.date in staged.live:
        counters = [b"%d" % value if isinstance(value, int) else b"" for value in values]
        staged.readings.append(PackedReading.of(page, counters))
    for raw_key, start, value in zip(page.raw_keys, page.row_prefixes(), values, strict=True):
        key = parse_key(raw_key, staged.prefix)
        assert isinstance(key, CounterKey)  # batches name nothing else
        reading = staged.by_date[key.date]
        if isinstance(value, DeadLetter):
            reading.dead_letters += 1
            if len(staged.dead_letters) < MAX_DEAD_LETTERS:
                staged.dead_letters.append(with_date(value, key.date))
            continue
        if raw_key in staged.open_keys:
            staged.healed.append(raw_key)
        if value is None:
            reading.expired += 1
            continue
        reading.read += 1
        starts.append(start)
        good.append(b"%d" % value)
        if staged.on_reading is not None:
            staged.on_reading(key, value)
    return starts, good


def copy_rows(row_prefixes: Sequence[bytes], values: Sequence[bytes | None]) -> bytes:
    """Rows as COPY's text format takes them; None is NULL."""
    texts = [_NULL if value is None else value for value in values] if None in values else values
    return b"".join([start + value + b"\n" for start, value in zip(row_prefixes, texts, strict=True)])  # type: ignore[operator]
