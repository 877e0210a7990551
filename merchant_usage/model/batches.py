"""Deals merchants into batches of like weight, and carries them through XCom in few bytes.

A batch names merchants, dates and metric types, never values: those are read when the batch is stored.
"""

from __future__ import annotations

import datetime as dt
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, repeat
from math import ceil
from typing import Any, Final, NamedTuple, TypeVar

from merchant_usage.model.keys import CounterKey
from merchant_usage.text import shown

# Metric types told apart by bits: far more than an API counts, and 64 bytes a merchant at most.
MAX_BITS: Final = 512
# Sets of metric types of which one object is kept for all merchants: all that ten metric types can be combined to.
MAX_SHARED: Final = 1024

Result = TypeVar("Result")


class Group(NamedTuple):
    """Merchants that have the same metric types on a date: how a million keys become a few lines."""

    date: dt.date
    metric_types: tuple[str, ...]
    merchant_ids: tuple[str, ...]

    def counter_keys(self) -> Iterator[CounterKey]:
        """The keys, merchant by merchant."""
        for merchant in self.merchant_ids:
            for metric in self.metric_types:
                yield CounterKey(merchant, self.date, metric)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one mapped task stores. `live_dates` are those of its dates that may still grow."""

    groups: tuple[Group, ...]
    live_dates: frozenset[dt.date] = frozenset()
    #: Which batch of which attempt of its run this is: readings are kept by these two.
    number: int = 0
    attempt: int = 1

    @property
    def merchant_ids(self) -> list[str]:
        """The merchants, sorted, each once."""
        return sorted({merchant for group in self.groups for merchant in group.merchant_ids})

    @property
    def range(self) -> tuple[str, str]:
        """The first merchant and the last, in the order of their code points, which is that of their UTF-8 too."""
        merchants = [group.merchant_ids for group in self.groups]
        return min(map(min, merchants)), max(map(max, merchants))

    @property
    def dates(self) -> list[dt.date]:
        """The usage dates, sorted, each once."""
        return sorted({group.date for group in self.groups})

    @property
    def key_count(self) -> int:
        """How many keys the batch names."""
        return sum(len(group.metric_types) * len(group.merchant_ids) for group in self.groups)

    @property
    def name(self) -> str:
        """What the UI calls the mapped task: `acme`, or `acme … zeta (312 merchants)`."""
        merchants = self.merchant_ids
        if len(merchants) == 1:
            return shown(merchants[0])
        return f"{shown(merchants[0])} … {shown(merchants[-1])} ({len(merchants)} merchants)"

    def counter_keys(self) -> Iterator[CounterKey]:
        """The keys, merchant by merchant within a group."""
        for group in self.groups:
            yield from group.counter_keys()

    def only(self, merchants: Iterable[str]) -> Batch:
        """The part of this batch that concerns these merchants."""
        wanted = set(merchants)
        kept = (
            group._replace(merchant_ids=tuple(m for m in group.merchant_ids if m in wanted)) for group in self.groups
        )
        return replace(self, groups=tuple(group for group in kept if group.merchant_ids))

    def of_date(self, date: dt.date) -> Batch:
        """The part of this batch that concerns this date."""
        groups = tuple(group for group in self.groups if group.date == date)
        return replace(self, groups=groups, live_dates=self.live_dates & {date})

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches with half of the merchants each."""
        merchants = self.merchant_ids
        middle = len(merchants) // 2
        return self.only(merchants[:middle]), self.only(merchants[middle:])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "name": self.name,
            "number": self.number,
            "attempt": self.attempt,
            "live_dates": sorted(date.isoformat() for date in self.live_dates),
            "groups": [[group.date.isoformat(), *map(list, group[1:])] for group in self.groups],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Batch:
        """The batch that `to_json` wrote down."""
        return cls(
            groups=tuple(
                Group(dt.date.fromisoformat(date), tuple(metrics), tuple(merchants))
                for date, metrics, merchants in data["groups"]
            ),
            live_dates=frozenset(map(dt.date.fromisoformat, data["live_dates"])),
            number=data["number"],
            attempt=data["attempt"],
        )


class Census:
    """Collects the keys of a scan: for each date and merchant the set of metric types, as bits of one integer.

    Sets of bits make a key that comes twice harmless, take about 100 bytes a merchant, and merchants that
    share their metric types are found by comparing integers. Metric types beyond `MAX_BITS` are kept by name: should
    they be made up without end, no merchant's integer grows with them.
    """

    def __init__(self) -> None:
        #: Each metric type's bit, in the order of their bits.
        self._bit_of: dict[str, int] = {}
        #: One object for each set of bits, shared by the merchants that have it.
        self._shared = _Shared()
        self._masks: dict[dt.date, dict[str, int]] = defaultdict(dict)
        self._rare: dict[dt.date, dict[str, set[str]]] = defaultdict(dict)

    def add(self, key: CounterKey) -> None:
        """Note a key."""
        masks = self._masks[key.date]
        bit = self._bit_of.get(key.metric_type)
        if bit is None and len(self._bit_of) < MAX_BITS:
            bit = self._bit_of[key.metric_type] = 1 << len(self._bit_of)
        if bit is None:
            self._rare[key.date].setdefault(key.merchant_id, set()).add(key.metric_type)
        masks[key.merchant_id] = masks.get(key.merchant_id, 0) | (bit or 0)

    def add_all(self, date: dt.date, merchant_ids: Iterable[str], metric_types: Iterable[str]) -> None:
        """Note keys of one date, in two columns."""
        metric_types = list(metric_types)
        bits = list(map(self._bit_of.get, metric_types))
        if None in bits:  # a metric type for the first time, or one that has no bit
            for merchant, metric in zip(merchant_ids, metric_types, strict=True):
                self.add(CounterKey(merchant, date, metric))
            return
        masks = self._masks[date]
        known, shared = masks.get, self._shared
        for merchant, bit in zip(merchant_ids, bits, strict=True):
            masks[merchant] = shared[known(merchant, 0) | bit]  # type: ignore[operator]  # none is None

    def key_count(self, date: dt.date) -> int:
        """Different keys of a date."""
        rare = sum(map(len, self._rare.get(date, {}).values()))
        return rare + sum(mask.bit_count() for mask in self._masks.get(date, {}).values())

    def merchant_count(self, date: dt.date) -> int:
        """Different merchants of a date."""
        return len(self._masks.get(date, {}))

    def groups(self, date: dt.date) -> list[Group]:
        """All keys of a date."""
        return list(self._groups(date, sorted(self._masks.get(date, ())), _Decoder(list(self._bit_of))))

    def drop(self, date: dt.date) -> None:
        """Forget the keys of a date."""
        self._masks.pop(date, None)
        self._rare.pop(date, None)

    def absent(self, merchant_ids: Iterable[str]) -> list[str]:
        """Those of the merchants that have no key on any date."""
        return [merchant for merchant in merchant_ids if not any(merchant in masks for masks in self._masks.values())]

    def batches(self, live_dates: Iterable[dt.date], at_most: int, keys_each: int = 1) -> list[Batch]:
        """All keys noted, one batch a merchant up to `at_most` merchants, else batches of like weight.

        Args:
            at_most: how many batches there may be.
            keys_each: how many keys a batch takes before there is another one; more if there would be too many batches.
        """
        live = frozenset(live_dates)
        metric_types = _Decoder(list(self._bit_of))
        batches = []
        everyone = self._merchants()
        if len(everyone) > at_most:
            at_most = min(at_most, ceil(sum(map(self.key_count, self._masks)) / keys_each))
        for merchants in deal(everyone, self.weights(everyone), at_most):
            groups = tuple(
                group for date in sorted(self._masks) for group in self._groups(date, merchants, metric_types)
            )
            batches.append(Batch(groups, live & {group.date for group in groups}))
        return batches

    def _merchants(self) -> list[str]:
        """The merchants of all dates, in order. Of one date without a set of them: there may be 100 000."""
        first, *others = self._masks.values() or ({},)
        return sorted(set(first).union(*others) if others else first)

    def weights(self, merchants: Sequence[str]) -> Iterator[int]:
        """How many keys each of these merchants has, all dates together."""
        weights = [map(int.bit_count, map(masks.get, merchants, repeat(0))) for masks in self._masks.values()]
        weights += [map(len, map(rare.get, merchants, repeat(()))) for rare in self._rare.values()]
        return map(sum, zip(*weights, strict=True))

    def _groups(self, date: dt.date, merchants: Iterable[str], metric_types: _Decoder) -> Iterator[Group]:
        """What these merchants have on a date, those that have the same together."""
        masks, rare = self._masks[date], self._rare.get(date, {})
        sharing: dict[int, list[str]] = defaultdict(list)
        for merchant in merchants:
            if merchant in rare:
                yield Group(date, tuple(sorted({*rare[merchant], *metric_types[masks[merchant]]})), (merchant,))
            elif merchant in masks:
                sharing[masks[merchant]].append(merchant)
        for mask, alike in sharing.items():
            yield Group(date, metric_types[mask], tuple(alike))


class _Shared(dict[int, int]):
    """Keeps the first of equal integers, and forgets all of them before they are too many."""

    def __missing__(self, number: int) -> int:
        if len(self) >= MAX_SHARED:
            self.clear()
        self[number] = number
        return number


class _Decoder(dict[int, tuple[str, ...]]):
    """The metric types that a mask's bits stand for, worked out once a mask."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._names = names

    def __missing__(self, mask: int) -> tuple[str, ...]:
        self[mask] = tuple(sorted(self._names[bit] for bit in _bits(mask)))
        return self[mask]


def _bits(mask: int) -> Iterator[int]:
    return (i for i, digit in enumerate(reversed(f"{mask:b}")) if digit == "1")


def deal(merchants: Sequence[str], weights: Iterable[int], at_most: int) -> list[Sequence[str]]:
    """Cut an ordered list of merchants into runs of neighbours whose keys are about as many.

    Neighbours stay together because the table is in their order: two batches then never write the same
    index page. No batch weighs more than the average and its heaviest merchant.
    """
    if len(merchants) <= at_most:
        return [[merchant] for merchant in merchants]
    ends = array("q", accumulate(weights))
    dealt: list[Sequence[str]] = []
    start = dealt_weight = 0
    for batches_left in range(at_most, 1, -1):
        share = (ends[-1] - dealt_weight) / batches_left
        # A batch ends before the merchant with whom it would stray further from its fair share than without,
        # or when every batch still to come needs one of the merchants left.
        candidates = range(start + 1, len(merchants) - batches_left + 1)
        within = bisect_right(candidates, dealt_weight + share, key=lambda i: (ends[i - 1] + ends[i]) / 2)
        end = start + 1 + within
        dealt.append(merchants[start:end])
        start, dealt_weight = end, ends[end - 1]
    dealt.append(merchants[start:])
    return dealt


def current_results(batch_ids: Iterable[str], results: Iterable[tuple[str, Result]]) -> list[Result]:
    """Of results, each with the id of its batch, those of these batches: one each at most.

    A scan that is repeated may deal fewer batches than before. Airflow keeps the results of mapped tasks that are no
    more, and they must not stand in for those of batches that were not stored.
    """
    wanted = set(batch_ids)
    return list({batch_id: result for batch_id, result in results if batch_id in wanted}.values())
