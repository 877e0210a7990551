"""The keys of batches, a page at a time: as Redis takes them, and as the rows that they become."""

from __future__ import annotations

import datetime as dt
import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from operator import attrgetter
from typing import Final, NamedTuple, TypeVar

from merchant_usage.model.batches import Group
from merchant_usage.model.keys import CounterKey, iso

# More keys a MGET gains nothing (measured), and a page bounds what one reply may weigh.
PAGE: Final = 1000

# What COPY's text format gives a meaning to.
_COPY_SPECIAL: Final = re.compile(r"[\\\t\n\r]")
_COPY_ESCAPES: Final = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}


Item = TypeVar("Item")


def pages(items: Iterable[Item], size: int = PAGE) -> Iterator[list[Item]]:
    """Cut a stream into lists of at most `size`."""
    stream = iter(items)
    while page := list(islice(stream, size)):
        yield page


def branches(items: Iterable[Item], number: int) -> list[Iterator[Item]]:
    """A stream for each of several readers. What all of them have read is let go: itertools.tee keeps the last 57."""
    stream = iter(items)
    waiting: list[deque[Item]] = [deque() for _ in range(number)]

    def branch(own: deque[Item]) -> Iterator[Item]:
        while True:
            if not own:
                try:
                    item = next(stream)
                except StopIteration:
                    return
                for each in waiting:
                    each.append(item)
            yield own.popleft()

    return [branch(own) for own in waiting]


class Page(NamedTuple):
    """Some keys of one date that are read together: those of its groups, merchant by merchant."""

    date: dt.date
    groups: list[Group]
    raw_keys: list[bytes]

    def counter_keys(self) -> Iterator[CounterKey]:
        """The keys, taken apart, in the order of `raw_keys`."""
        for group in self.groups:
            yield from group.counter_keys()

    def row_prefixes(self) -> list[bytes]:
        """For each key what its row in COPY's text format begins with: all but the value."""
        starts: list[bytes] = []
        day = iso(self.date)
        for _, metric_types, merchant_ids in self.groups:
            heads = [f"{_escape(merchant)}\t{day}\t".encode() for merchant in merchant_ids]
            ends = [f"{_escape(metric)}\t".encode() for metric in metric_types]
            starts += [head + end for head in heads for end in ends]
        return starts


def key_pages(groups: Iterable[Group], prefix: str, size: int = PAGE) -> Iterator[Page]:
    """Cut groups into pages of `size` keys, or a merchant's metric types more; each ends with its date.

    Keys and rows are put together from parts that were encoded and escaped once, never one by one.
    """
    for date, of_date in groupby(groups, key=attrgetter("date")):
        page = Page(date, [], [])
        for _, metric_types, merchant_ids in of_date:
            for first in range(0, len(metric_types), size):
                some = metric_types[first : first + size]
                done = 0
                while done < len(merchant_ids):
                    room = max(1, (size - len(page.raw_keys)) // len(some))
                    group = Group(date, some, merchant_ids[done : done + room])
                    page.groups.append(group)
                    page.raw_keys.extend(_raw_keys(group, prefix))
                    done += room
                    if len(page.raw_keys) + len(some) > size:
                        yield page
                        page = Page(date, [], [])
        if page.raw_keys:
            yield page


def _raw_keys(group: Group, prefix: str) -> list[bytes]:
    day = iso(group.date)
    starts = [f"{prefix}:{merchant}:{day}:".encode() for merchant in group.merchant_ids]
    ends = [metric.encode() for metric in group.metric_types]
    return [start + end for start in starts for end in ends]


def _escape(text: str) -> str:
    if _COPY_SPECIAL.search(text) is None:
        return text
    return _COPY_SPECIAL.sub(lambda match: _COPY_ESCAPES[match[0]], text)
