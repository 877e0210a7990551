"""Brings readings of Redis next to the table they are compared with: COPY into a temporary table."""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from psycopg import Connection

from include.usage.counters import RedisClient, pages, read_page, with_date
from include.usage.dead_letters import DeadLetter
from include.usage.keys import CounterKey, build_key, iso
from include.usage.queries import query

# Dead letters kept of one pass (a transaction's share of a batch): enough to see what is wrong, and bounded.
MAX_DEAD_LETTERS: Final = 1000

# What COPY's text format gives a meaning to.
_COPY_SPECIAL = re.compile(r"[\\\t\n\r]")
_COPY_ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
NULL: Final = r"\N"


@dataclass(slots=True)
class DateReading:
    """What was read of one date."""

    read: int = 0
    total: int = 0
    expired: int = 0
    dead_letters: int = 0


@dataclass(slots=True)
class Staged:
    """What a pass over some keys found besides the good values, which are in the temporary table.

    Of a flood of bad values the first are kept, all are counted.
    """

    by_date: dict[dt.date, DateReading] = field(default_factory=lambda: defaultdict(DateReading))
    dead_letters: list[DeadLetter] = field(default_factory=list)
    healed: list[bytes] = field(default_factory=list)


def stage(
    client: RedisClient,
    conn: Connection,
    keys: Iterable[CounterKey],
    prefix: str,
    *,
    open_keys: frozenset[bytes] | set[bytes] = frozenset(),
    keep_gone: bool = False,
    on_reading: Callable[[CounterKey, int], None] | None = None,
) -> Staged:
    """Read counters and COPY them into a new temporary table `usage_staged`, a page at a time.

    Needs a transaction, and lives as long as that. Memory stays flat, however many keys come.

    Args:
        open_keys: keys with an open dead letter; those now good or gone come back in `healed`.
        keep_gone: stage keys that are gone too, without a value.
        on_reading: called with every good value.
    """
    staged = Staged()
    conn.execute(query("create_staging"))
    with conn.cursor() as cursor, cursor.copy(query("copy_staging")) as copy:
        for page in pages(keys):
            raw_keys = [build_key(prefix, key) for key in page]
            values = read_page(client, raw_keys)
            if open_keys:
                staged.healed += [
                    raw_key
                    for raw_key, value in zip(raw_keys, values, strict=True)
                    if raw_key in open_keys and not isinstance(value, DeadLetter)
                ]
            good = _sort(staged, page, values, keep_gone=keep_gone)
            copy.write(copy_text(good))
            if on_reading is not None:
                for key, value in good:
                    if value is not None:
                        on_reading(key, value)
    conn.execute(query("analyze_staging"))
    return staged


def _sort(
    staged: Staged, page: Sequence[CounterKey], values: Sequence[int | DeadLetter | None], *, keep_gone: bool
) -> list[tuple[CounterKey, int | None]]:
    """Count a page of readings, and return those to be staged."""
    if set(map(type, values)) == {int} and len({key.date for key in page}) == 1:
        # Nearly every page: all good, and of one date.
        numbers: list[int] = values  # type: ignore[assignment]  # just looked
        reading = staged.by_date[page[0].date]
        reading.read += len(numbers)
        reading.total += sum(numbers)
        return list(zip(page, numbers, strict=True))
    good: list[tuple[CounterKey, int | None]] = []
    for key, value in zip(page, values, strict=True):
        reading = staged.by_date[key.date]
        if isinstance(value, DeadLetter):
            reading.dead_letters += 1
            if len(staged.dead_letters) < MAX_DEAD_LETTERS:
                staged.dead_letters.append(with_date(value, key.date))
        elif value is None:
            reading.expired += 1
            if keep_gone:
                good.append((key, None))
        else:
            reading.read += 1
            reading.total += value
            good.append((key, value))
    return good


def copy_text(readings: Sequence[tuple[CounterKey, int | None]]) -> str:
    """Readings as COPY's text format takes them; None is NULL."""
    text = "".join([f"{merchant}\t{iso(date)}\t{metric}\t{value}\n" for (merchant, date, metric), value in readings])
    # Looking once at the page is cheaper than at each id: if no id holds what COPY gives a meaning to, all is said.
    plain = text.count("\t") == 3 * len(readings) and text.count("\n") == len(readings)
    if plain and "\\" not in text and "\r" not in text and not any(value is None for _, value in readings):
        return text
    return "".join(
        f"{_escape(merchant)}\t{iso(date)}\t{_escape(metric)}\t{NULL if value is None else value}\n"
        for (merchant, date, metric), value in readings
    )


def _escape(text: str) -> str:
    if _COPY_SPECIAL.search(text) is None:
        return text
    return _COPY_SPECIAL.sub(lambda match: _COPY_ESCAPES[match[0]], text)
