"""Batches: as many as may be, of like weight, in order, each key once, small in XCom, named for people."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from merchant_usage.model.batches import Batch, Census, Group, deal
from tests.support import TODAY, YESTERDAY, key


def batch_of(*merchants: str, metrics: tuple[str, ...] = ("queries",)) -> Batch:
    return Batch((Group(YESTERDAY, metrics, merchants),))


@pytest.mark.parametrize(
    ("weights", "at_most", "dealt"),
    [
        pytest.param([], 4, [], id="nobody"),
        pytest.param([1], 4, [1], id="one"),
        pytest.param([9, 1, 1, 1], 4, [1, 1, 1, 1], id="a batch each up to the limit"),
        pytest.param([1] * 5, 4, [1, 1, 2, 1], id="one more than the limit"),
        pytest.param([1] * 100, 4, [25] * 4, id="all alike"),
        pytest.param([100, *[1] * 99], 4, [1, 33, 33, 33], id="a giant first"),
        pytest.param([*[1] * 99, 100], 4, [50, 48, 1, 1], id="a giant last"),
        pytest.param([1, 1, 1, 1000, 1, 1, 1], 3, [3, 1, 3], id="a giant in the middle"),
        pytest.param([7, 7, 7], 1, [3], id="one batch for all"),
    ],
)
def test_deal(weights: list[int], at_most: int, dealt: list[int]) -> None:
    merchants = [f"m{i:03}" for i in range(len(weights))]
    batches = deal(merchants, weights, at_most)
    assert [len(batch) for batch in batches] == dealt
    assert [merchant for batch in batches for merchant in batch] == merchants


def test_census_takes_a_key_once() -> None:
    census = Census()
    for counter in [key("acme"), key("acme"), key("acme", TODAY), key("acme", metric_type="calls"), key("acme")]:
        census.add(counter)
    (batch,) = census.batches({TODAY}, 32)
    assert sorted(batch.counter_keys()) == sorted([key("acme"), key("acme", TODAY), key("acme", metric_type="calls")])
    assert (census.key_count(YESTERDAY), census.key_count(TODAY), batch.key_count) == (2, 1, 3)
    assert census.merchant_count(YESTERDAY) == 1
    assert census.key_count(dt.date(2020, 1, 1)) == census.merchant_count(dt.date(2020, 1, 1)) == 0


def test_batches_tell_their_live_dates_and_no_others() -> None:
    census = Census()
    census.add(key("both", YESTERDAY))
    census.add(key("both", TODAY))
    census.add(key("old", YESTERDAY))
    both, old = census.batches({TODAY}, 32)
    assert (both.merchant_ids, both.live_dates, both.dates) == (["both"], frozenset({TODAY}), [YESTERDAY, TODAY])
    assert (old.merchant_ids, old.live_dates) == (["old"], frozenset())


def test_merchants_are_dealt_in_order_whatever_the_scan_said() -> None:
    census = Census()
    for merchant in ("zeta", "acme", "mid", "beta"):
        census.add(key(merchant))
    assert [batch.merchant_ids for batch in census.batches((), 2)] == [["acme", "beta"], ["mid", "zeta"]]


def test_merchants_with_the_same_metrics_share_a_group() -> None:
    census = Census()
    for number in range(1000):
        for metric in ("queries", "calls", "seconds"):
            census.add(key(f"m{number:03}", metric_type=metric))
    batches = census.batches((), 4)
    assert [len(batch.groups) for batch in batches] == [1] * 4
    # XCom carries each merchant once, and never a value.
    assert sum(len(json.dumps(batch.to_json())) for batch in batches) < 1000 * len('"m000", ') + 4 * 300


def test_xcom_round_trip_through_json() -> None:
    whole = Batch(
        (
            Group(YESTERDAY, ("queries", "a:b"), ("acme", "a:b:c", "é 🎉 %*", "x\ny", '"quoted"')),
            Group(TODAY, ("q",), ("acme",)),
        ),
        frozenset({TODAY}),
    )
    assert Batch.from_json(json.loads(json.dumps(whole.to_json()))) == whole


@pytest.mark.parametrize(
    ("batch", "name"),
    [
        pytest.param(batch_of("acme"), "acme", id="one merchant"),
        pytest.param(batch_of("beta", "acme"), "acme … beta (2 merchants)", id="two merchants"),
        pytest.param(batch_of("a\nb\x1b"), r"a\nb\x1b", id="control characters"),
        pytest.param(batch_of("a" * 512 + "b" * 512), "a" * 40 + "…" + "b" * 39, id="long id"),
    ],
)
def test_name(batch: Batch, name: str) -> None:
    assert batch.name == name


@pytest.mark.parametrize("letter", ["\x01", "\U000e0001", "\u202e", "🎉", "x"])
def test_name_fits_where_airflow_keeps_it(letter: str) -> None:
    # rendered_map_index is varchar(250).
    long = letter * (1024 // len(letter.encode()))
    assert len(batch_of(long).name) <= 250
    assert len(batch_of(long, long[:-1]).name) <= 250


def test_halves_are_the_whole() -> None:
    whole = Batch(
        (Group(YESTERDAY, ("q",), ("a", "b", "c")), Group(TODAY, ("q", "r"), ("c", "d", "e"))), frozenset({TODAY})
    )
    first, second = whole.halves()
    assert (first.merchant_ids, second.merchant_ids) == (["a", "b"], ["c", "d", "e"])
    assert sorted([*first.counter_keys(), *second.counter_keys()]) == sorted(whole.counter_keys())
    assert first.live_dates == second.live_dates == whole.live_dates


def test_merchants_with_the_same_metrics_share_memory_and_others_take_no_more() -> None:
    """Whatever the order: sets on the way to a merchant's own are not kept."""
    census = Census()
    for number in range(2000):
        # 41 is a prime, so each merchant has all of them, in one of 1640 orders.
        for i in range(41):
            census.add_all(YESTERDAY, [f"m{number:04}"], [f"metric_{(number + i * (number % 40 + 1)) % 41}"])
    assert len(census._shared) <= 1024
    assert len({id(mask) for mask in census._masks[YESTERDAY].values()}) < 200
