"""Brings readings of Redis next to the table they are compared with: COPY into a temporary table."""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from psycopg import Connection

from include.usage.counters import RedisClient, pages, read_page, with_date
from include.usage.dead_letters import DeadLetter
from include.usage.keys import CounterKey, build_key
from include.usage.queries import query

# Dead letters kept of one pass (a transaction's share of a batch): enough to see what is wrong, and bounded.
MAX_DEAD_LETTERS: Final = 1000

# What COPY's text format gives a meaning to.
_COPY_SPECIAL = re.compile(r"[\\\t\n\r]")
_COPY_ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}


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
            lines = []
            for key, raw_key, value in zip(page, raw_keys, read_page(client, raw_keys), strict=True):
                if isinstance(value, DeadLetter):
                    staged.by_date[key.date].dead_letters += 1
                    if len(staged.dead_letters) < MAX_DEAD_LETTERS:
                        staged.dead_letters.append(with_date(value, key.date))
                    continue
                if raw_key in open_keys:
                    staged.healed.append(raw_key)
                reading = staged.by_date[key.date]
                if value is None:
                    reading.expired += 1
                    if keep_gone:
                        lines.append(_line(key, r"\N"))
                    continue
                reading.read += 1
                reading.total += value
                lines.append(_line(key, value))
                if on_reading is not None:
                    on_reading(key, value)
            copy.write("".join(lines))
    conn.execute(query("analyze_staging"))
    return staged


def _line(key: CounterKey, value: int | str) -> str:
    return f"{_escape(key.merchant_id)}\t{key.date}\t{_escape(key.metric_type)}\t{value}\n"


def _escape(text: str) -> str:
    if _COPY_SPECIAL.search(text) is None:
        return text
    return _COPY_SPECIAL.sub(lambda match: _COPY_ESCAPES[match[0]], text)
