"""What a run read of live dates, a page of keys in one row: how it is written down, and taken apart again."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from merchant_usage.model.batches import Group
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.pages import Page

# Before what the whole value of a row must be, and not its counter: it carries something.
WHOLE: Final = b"="


class PackedReading(NamedTuple):
    """What was read of a page.

    Attributes:
        page: the page's digest.
        keys: whose counters they are, as JSON.
        counters: what their rows must hold at least, with a comma between each two, in the order of the page's keys.
            Nothing for a key of which nothing good was read.
        number: how many are not nothing.
    """

    date: dt.date
    page: bytes
    keys: str
    counters: str
    number: int

    @classmethod
    def of(cls, page: Page, counters: Sequence[bytes]) -> PackedReading:
        """Pack a page.

        Args:
            counters: in decimal digits, in the order of the page's keys; empty where nothing good was read.
        """
        keys = [[group.metric_types, group.merchant_ids] for group in page.groups]
        number = len(counters) - counters.count(b"")
        return cls(page.date, digest(page), json.dumps(keys, ensure_ascii=False), b",".join(counters).decode(), number)

    def with_carried(self, carrying: Mapping[CounterKey, int]) -> PackedReading:
        """The same, if some rows carry something: of these the whole value is said.

        Args:
            carrying: what they hold. The reading may be from before it was carried.
        """
        parts = self.counters.split(",")
        for i, key in enumerate(_keys(self.date, self.keys)):
            if parts[i] and key in carrying:
                parts[i] = f"{WHOLE.decode()}{carrying[key]}"
        return self._replace(counters=",".join(parts))


def digest(page: Page) -> bytes:
    """Tells a page of keys from any other: the SHA-256 of its keys."""
    # No key holds a NUL.
    return hashlib.sha256(b"\0".join(page.raw_keys)).digest()


def unpack(date: dt.date, keys: str, counters: str) -> Iterator[tuple[CounterKey, int]]:
    """The keys of a packed page that were read, and what their rows must hold at least."""
    for key, counter in zip(_keys(date, keys), counters.encode().split(b","), strict=True):
        if counter:
            yield key, int(counter.removeprefix(WHOLE))


def lower(date: dt.date, keys: str, counters: str, accepted: Mapping[CounterKey, int]) -> str:
    """The counters of a packed page, with no more demanded of a row than was accepted."""
    parts = counters.encode().split(b",")
    for i, key in enumerate(_keys(date, keys)):
        most = accepted.get(key)
        if most is not None and parts[i] and int(parts[i].removeprefix(WHOLE)) > most:
            parts[i] = WHOLE + b"%d" % most
    return b",".join(parts).decode()


def _keys(date: dt.date, keys: str) -> Iterator[CounterKey]:
    for metric_types, merchant_ids in json.loads(keys):
        yield from Group(date, metric_types, merchant_ids).counter_keys()
