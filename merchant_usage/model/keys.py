"""The key grammar `{prefix}:{merchant_id}:{date}:{metric_type}`, built and parsed in this one place.

Keys stay bytes until here and text from here on. A merchant id may hold `:`, so a key is split twice from the
right, and ids are never normalised.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import compress
from typing import Any, NamedTuple

from merchant_usage.model.dead_letter import DeadLetter, Reason
from merchant_usage.model.long_text import KEPT_WHOLE, LongText
from merchant_usage.text import shown

# One row of the unique index must fit into a third of an 8 kB page (2704 bytes, PostgreSQL's btree limit).
MAX_MERCHANT_ID_BYTES = 1024
MAX_METRIC_TYPE_BYTES = 256

_DATE = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_GLOB_CHARACTERS = re.compile(r"([*?\[\]^\\-])")


class CounterKey(NamedTuple):
    """Whose usage, of which day, of what."""

    merchant_id: str
    date: dt.date
    metric_type: str

    def __str__(self) -> str:
        """How logs and errors name a counter."""
        return f"{shown(self.merchant_id)} {shown(self.metric_type)} of {self.date}"


def as_columns(keys: Iterable[CounterKey]) -> dict[str, list[Any]]:
    """Keys as the arrays that queries take: merchant_ids, dates, metric_types; and `days`, the dates, each once."""
    columns: dict[str, list[Any]] = {"merchant_ids": [], "dates": [], "metric_types": []}
    for key in keys:
        columns["merchant_ids"].append(key.merchant_id)
        columns["dates"].append(key.date)
        columns["metric_types"].append(key.metric_type)
    columns["days"] = sorted(set(columns["dates"]))
    return columns


def build_key(prefix: str, key: CounterKey) -> bytes:
    """The Redis key of a counter, as the API writes it."""
    merchant_id, date, metric_type = key
    return f"{prefix}:{merchant_id}:{iso(date)}:{metric_type}".encode()


@lru_cache(maxsize=4096)
def iso(date: dt.date) -> str:
    """`YYYY-MM-DD`. A run formats a handful of dates a million times."""
    return date.isoformat()


def match_pattern(prefix: str) -> bytes:
    """The glob for SCAN that finds all keys of a prefix, whatever characters the prefix holds."""
    return (_GLOB_CHARACTERS.sub(r"\\\1", prefix) + ":*").encode()


def parse_key(raw: bytes, prefix: str) -> CounterKey | DeadLetter:
    """Take a Redis key apart, or say why it is no usage key (`malformed_key`, `bad_date`)."""
    if len(raw) > KEPT_WHOLE or isinstance(raw, LongText):
        return DeadLetter.of_name(raw, Reason.MALFORMED_KEY, "longer than any usage key")
    head = _head(prefix)
    parts = raw[len(head) :].rsplit(b":", 2) if raw.startswith(head) else []
    if len(parts) != 3:
        return DeadLetter.of_name(raw, Reason.MALFORMED_KEY, f"expected {prefix}:merchant:YYYY-MM-DD:metric")
    raw_merchant, raw_date, raw_metric = parts
    date = parse_date(raw_date)
    # A scan meets millions of plain keys: these few tests say that nothing can be wrong with this one.
    if date is not None and raw.isascii() and len(raw) <= MAX_METRIC_TYPE_BYTES and b"\0" not in raw and all(parts):
        return CounterKey(raw_merchant.decode(), date, raw_metric.decode())
    for name, part, longest in (
        ("merchant id", raw_merchant, MAX_MERCHANT_ID_BYTES),
        ("date", raw_date, None),
        ("metric type", raw_metric, MAX_METRIC_TYPE_BYTES),
    ):
        if problem := _unstorable(part, longest):
            return DeadLetter.of_name(raw, Reason.MALFORMED_KEY, f"{name} {problem}")
    if date is None:
        return DeadLetter.of_name(raw, Reason.BAD_DATE, f"{raw_date.decode()[:40]!r} is not a date YYYY-MM-DD")
    return CounterKey(raw_merchant.decode(), date, raw_metric.decode())


class KeyColumns(NamedTuple):
    """A page of keys, part by part: a column each, in the order of the keys."""

    merchant_ids: list[str]
    days: list[str]
    metric_types: list[str]
    #: The date that each of the days stands for.
    dates: dict[str, dt.date]
    #: How many of the keys each of the days has.
    counts: Mapping[str, int]

    @classmethod
    def of_one(cls, key: CounterKey) -> KeyColumns:
        """A page of a single key."""
        day = iso(key.date)
        return cls([key.merchant_id], [day], [key.metric_type], {day: key.date}, {day: 1})

    def of(self, day: str) -> tuple[list[str], list[str]]:
        """The merchant ids and metric types of one day."""
        if len(self.dates) == 1:
            return self.merchant_ids, self.metric_types
        chosen = [other == day for other in self.days]
        return list(compress(self.merchant_ids, chosen)), list(compress(self.metric_types, chosen))


def parse_page(raw_values: Sequence[bytes], prefix: str) -> KeyColumns | None:
    """Take a page of keys apart. None if any key needs a look of its own.

    The same as `parse_key` for each, in a fraction of the time: nearly all is done for the whole page by loops in C.
    """
    # No part of a key this short can be too long.
    if max(map(len, raw_values), default=0) > MAX_METRIC_TYPE_BYTES:
        return None
    try:
        # Between two keys stands what no key can hold.
        text = b":\0:".join(raw_values).decode()
    except UnicodeDecodeError:
        return None
    if text.count("\0") >= max(1, len(raw_values)):
        return None
    columns = _columns(text, len(raw_values), prefix) or _columns_with_colons(text, len(raw_values), prefix)
    if columns is None or not all(map(all, columns)):
        return None
    merchant_ids, days, metric_types = columns
    counts = Counter(days)
    dates = {day: date for day in counts if (date := parse_date(day.encode())) is not None}
    return KeyColumns(merchant_ids, days, metric_types, dates, counts) if len(dates) == len(counts) else None


def _columns(text: str, number: int, prefix: str) -> tuple[list[str], list[str], list[str]] | None:
    """The columns of a page on which no merchant id holds a colon: then each key has as many parts."""
    parts = text.split(":")
    head = prefix.split(":")
    width = len(head) + 4
    if len(parts) != width * number - 1 or parts[width - 1 :: width].count("\0") != number - 1:
        return None
    if any(parts[i::width].count(part) != number for i, part in enumerate(head)):
        return None
    merchant_ids, days, metric_types = (parts[len(head) + i :: width] for i in range(3))
    return merchant_ids, days, metric_types


def _columns_with_colons(text: str, number: int, prefix: str) -> tuple[list[str], list[str], list[str]] | None:
    merchant_ids: list[str] = []
    days: list[str] = []
    metric_types: list[str] = []
    head = f"{prefix}:"
    for key in text.split(":\0:") if number else ():
        parts = key[len(head) :].rsplit(":", 2)
        if len(parts) != 3 or not key.startswith(head):
            return None
        merchant_ids.append(parts[0])
        days.append(parts[1])
        metric_types.append(parts[2])
    return merchant_ids, days, metric_types


@lru_cache(maxsize=8)
def _head(prefix: str) -> bytes:
    return prefix.encode() + b":"


def why_no_merchant_id(merchant_id: str) -> str | None:
    """Why no counter can be of a merchant of this id; None if one can."""
    return _unstorable(merchant_id.encode(errors="surrogatepass"), MAX_MERCHANT_ID_BYTES)


def why_no_metric_type(metric_type: str) -> str | None:
    """Why no counter can be of this metric; None if one can."""
    return _unstorable(metric_type.encode(errors="surrogatepass"), MAX_METRIC_TYPE_BYTES)


def _unstorable(part: bytes, longest: int | None) -> str | None:
    """Why PostgreSQL cannot hold or index this part of a key; None if it can."""
    if not part:
        return "is empty"
    if longest is not None and len(part) > longest:
        return f"has {len(part)} bytes, more than {longest}"
    if b"\0" in part:
        return "holds a NUL"
    try:
        part.decode()
    except UnicodeDecodeError:
        return "is not valid UTF-8"
    return None


# A scan meets a handful of dates a million times.
@lru_cache(maxsize=4096)
def parse_date(raw: bytes) -> dt.date | None:
    """A real calendar day written `YYYY-MM-DD` in ASCII digits, or None."""
    if not _DATE.fullmatch(raw):
        return None
    try:
        return dt.date.fromisoformat(raw.decode())
    except ValueError:
        return None
