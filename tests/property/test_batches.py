"""Whatever a scan returns, in whatever order and however often: the batches name each key once."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from merchant_usage.model.batches import Batch, Census, deal
from merchant_usage.model.keys import CounterKey

DAY = dt.date(2026, 11, 23)
some_keys = st.builds(
    CounterKey,
    merchant_id=st.one_of(st.sampled_from(["a", "b", "c", "d:e"]), st.text(st.characters(exclude_categories=["Cs"]))),
    date=st.integers(0, 3).map(lambda days: DAY + dt.timedelta(days=days)),
    metric_type=st.sampled_from(["queries", "calls", "seconds", "é"]),
)


@given(st.data(), st.lists(some_keys, max_size=60), st.integers(1, 8), st.integers(1, 70), st.integers(0, 4))
def test_batches_name_exactly_the_keys(
    data: st.DataObject, keys: list[CounterKey], at_most: int, keys_each: int, live_days: int
) -> None:
    repeated = data.draw(st.permutations(keys + data.draw(st.lists(st.sampled_from(keys)) if keys else st.just([]))))
    live = {DAY + dt.timedelta(days=days) for days in range(live_days)}
    census = Census()
    for key in repeated:
        census.add(key)
    batches = census.batches(live, at_most, keys_each)

    assert Counter(key for batch in batches for key in batch.counter_keys()) == Counter(set(keys))
    merchants = {key.merchant_id for key in keys}
    if len(merchants) <= at_most:
        assert len(batches) == len(merchants), "one a merchant"
    else:
        assert len(batches) == min(at_most, -(-len(set(keys)) // keys_each))
    # Nobody is in two batches: then no two tasks ever write the same row.
    assert Counter(merchant for batch in batches for merchant in batch.merchant_ids) == Counter(merchants)
    for batch in batches:
        assert batch.live_dates == live & set(batch.dates)
        assert batch.key_count == len(list(batch.counter_keys()))
        assert Batch.from_json(json.loads(json.dumps(batch.to_json()))) == batch
        assert len(batch.name) <= 250
    for day in range(4):
        date = DAY + dt.timedelta(days=day)
        assert census.key_count(date) == len({key for key in keys if key.date == date})
        assert census.merchant_count(date) == len({key.merchant_id for key in keys if key.date == date})


@given(st.lists(some_keys, min_size=1, max_size=60), st.permutations(range(60)))
def test_order_of_the_scan_does_not_matter(keys: list[CounterKey], order: list[int]) -> None:
    one, other = Census(), Census()
    for key in keys:
        one.add(key)
    for index in order:
        other.add(keys[index % len(keys)])
    for index in range(len(keys)):
        other.add(keys[index])
    sorted_keys = [[sorted(batch.counter_keys()) for batch in census.batches((), 3)] for census in (one, other)]
    assert sorted_keys[0] == sorted_keys[1]


@given(st.lists(st.integers(1, 1000), max_size=200), st.integers(1, 40))
def test_deal_is_exact_in_number_and_balanced(weights: list[int], at_most: int) -> None:
    weight_of = {f"m{i:04}": weight for i, weight in enumerate(weights)}
    dealt = deal(list(weight_of), weights, at_most)
    assert len(dealt) == min(len(weights), at_most)
    assert all(dealt)
    assert [merchant for batch in dealt for merchant in batch] == list(weight_of)
    heaviest = max((sum(weight_of[merchant] for merchant in batch) for batch in dealt), default=0)
    assert heaviest <= sum(weights) / at_most + max(weights, default=0) or len(weights) <= at_most


@given(st.lists(some_keys, max_size=40), st.sets(st.sampled_from(["a", "b", "c", "d:e", "nobody"])))
def test_part_of_some_merchants_and_halves(keys: list[CounterKey], chosen: set[str]) -> None:
    census = Census()
    for key in keys:
        census.add(key)
    for batch in census.batches((), 1):
        part = batch.only(chosen)
        assert Counter(part.counter_keys()) == Counter(k for k in batch.counter_keys() if k.merchant_id in chosen)
        first, second = batch.halves()
        assert Counter([*first.counter_keys(), *second.counter_keys()]) == Counter(batch.counter_keys())
        assert abs(len(first.merchant_ids) - len(second.merchant_ids)) <= 1
