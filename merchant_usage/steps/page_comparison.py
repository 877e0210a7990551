"""Puts what PostgreSQL holds of some keys beside what Redis holds, a page at a time, at the price of a look a page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

from psycopg import Connection, Cursor

from merchant_usage.model.pages import Page
from merchant_usage.model.pages import pages as lists_of
from merchant_usage.sink.queries import query
from merchant_usage.source.counters import all_plain_integers, read_pages
from merchant_usage.source.shards import RedisClient

# Pages that PostgreSQL is asked for in one statement. More gain little, and those that wait take memory.
PAGES_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class PageComparison:
    """A page of keys, what Redis answered, and what PostgreSQL holds: as `select_pages` tells it."""

    page: Page
    #: What MGET answered: bytes, or nil for a missing key and for another type alike.
    raw_values: Sequence[bytes | None]
    text: bytes
    rows: int
    #: Whether any of the rows carries something.
    carries: bool

    @property
    def equal(self) -> bool:
        """Whether each key is a good counter, and its row holds just that."""
        return (
            self.rows == len(self.raw_values)
            and all_plain_integers(self.raw_values)
            and self.text == self._text_of(self.raw_values)
        )

    def unequal(self) -> list[int]:
        """Which of the keys, by place, have no row, or not what Redis has. A negative value equals nothing."""
        pairs = zip(self._counters(), self.raw_values, strict=True)
        return [i for i, (counter, raw) in enumerate(pairs) if counter is None or counter != raw or raw[:1] == b"-"]

    def below(self, counters: Sequence[bytes]) -> list[int]:
        """Which of the keys, by place, have no row, or one whose counter may be less than one of these.

        Args:
            counters: digits for each key. Nothing where nothing is asked for; no number if a closer look is needed.
        """
        if self.rows == len(counters) and b"" not in counters and self.text == self._text_of(counters):
            return []
        pairs = zip(self._counters(), counters, strict=True)
        return [i for i, (held, asked) in enumerate(pairs) if asked and _may_be_less(held, asked)]

    def _text_of(self, counters: Sequence[bytes | None]) -> bytes:
        """The text that PostgreSQL gives if it holds these."""
        parts: list[bytes | None] = [None] * (2 * len(counters))
        names: list[bytes] = []
        for _, metric_types, merchant_ids in self.page.groups:
            first, *others = [f":{metric}:".encode() for metric in metric_types]
            names += [b":" + first, *others] * len(merchant_ids)
        parts[0::2] = names
        parts[1::2] = counters
        return b"".join(parts)  # type: ignore[arg-type]  # asked only if none is None

    def _counters(self) -> list[bytes | None]:
        """What PostgreSQL holds for each key, in decimal digits; None where there is no row, or no telling."""
        merchants = sum(len(group.merchant_ids) for group in self.page.groups)
        if self.text.count(b":") != merchants + 2 * self.rows:  # a name with a ':' in it
            return [None] * len(self.raw_values)
        _, *parts = self.text.split(b":")
        held: list[dict[bytes, bytes]] = []
        stream = iter(parts)
        for part in stream:
            if part:
                held[-1][part] = next(stream)
            else:
                held.append({})
        of_merchant = iter(held)
        counters: list[bytes | None] = []
        for _, metric_types, merchant_ids in self.page.groups:
            names = [metric.encode() for metric in metric_types]
            for _ in merchant_ids:
                counters += map(next(of_merchant).get, names)
        return counters


class _Asked(NamedTuple):
    """A page that PostgreSQL is asked for: its answer waits in the cursor, after those of the pages before."""

    page: Page
    cursor: Cursor

    @property
    def raw_keys(self) -> Sequence[bytes]:
        """The Redis keys."""
        return self.page.raw_keys


def compare_pages(
    client: RedisClient, conn: Connection, pages: Iterable[Page], suspects: Set[bytes] = frozenset()
) -> Iterator[PageComparison]:
    """Each page with what both hold. PostgreSQL and Redis are asked for the next while one is looked at.

    Args:
        suspects: keys whose values may be large.
    """
    with conn.pipeline():
        for asked, raw_values in read_pages(client, _ask_all(conn, pages), suspects):
            yield PageComparison(asked.page, raw_values, *_answer(asked.cursor))


def rows_held(conn: Connection, page: Page) -> int:
    """How many of the keys of a page have a row."""
    return _answer(_ask(conn, [page]))[1]


def _ask_all(conn: Connection, pages: Iterable[Page]) -> Iterator[_Asked]:
    for _, of_date in groupby(pages, key=attrgetter("date")):
        for some in lists_of(of_date, PAGES_AT_ONCE):
            cursor = _ask(conn, some)
            for page in some:
                yield _Asked(page, cursor)


def _ask(conn: Connection, pages: Sequence[Page]) -> Cursor:
    """Ask for pages of one date; the cursor has a row for each."""
    groups = [
        {"page": number, "first": min(metrics), "last": max(metrics), "merchant_ids": merchants}
        for number, page in enumerate(pages)
        for _, metrics, merchants in page.groups
    ]
    # Text, because psycopg takes fifty times as long for an array.
    parameters = {"groups": json.dumps(groups), "date": pages[0].date}
    return conn.cursor(binary=True).execute(query("select_pages"), parameters)


def _may_be_less(held: bytes | None, asked: bytes) -> bool:
    return held is None or not asked.isdigit() or int(held) < int(asked)


def _answer(cursor: Cursor) -> tuple[bytes, int, bool]:
    row = cursor.fetchone()
    assert row is not None  # there is one for each page, whether it has rows or not
    return row
