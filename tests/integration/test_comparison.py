"""A page of keys beside its rows: equal is said of nothing that is not, and what is unequal is named, however odd."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from merchant_usage.model.batches import Batch, Census, Group
from merchant_usage.model.keys import CounterKey, parse_key
from merchant_usage.model.pages import key_pages
from merchant_usage.sink.queries import query
from merchant_usage.source.counters import all_plain_integers
from merchant_usage.steps.page_comparison import PAGES_AT_ONCE, PageComparison, compare_pages, rows_held
from tests.support import TODAY, YESTERDAY, Usage, key, raw

METRICS = ["a", "b", "1", "-", "back\\slash", 'quo"te', "new\nline", "é", "𝄞", "￿"]
some_keys = st.builds(
    key,
    st.sampled_from(["acme", "a:b", 'quo"te', "{}", "null", "back\\slash", "é", "new\nline", "%s"]),
    st.sampled_from([YESTERDAY, TODAY]),
    st.sampled_from(METRICS),
)
counters = st.sampled_from(["0", "1", "12", "9223372036854775807", "007", "-5", "", "x", "1:b:2"])


def compare(usage: Usage, keys: Iterable[CounterKey], size: int = 1000) -> list[PageComparison]:
    census = Census()
    for name in keys:
        census.add(name)
    (batch,) = census.batches((), 1)
    with usage.conn.transaction():
        usage.conn.execute(query("prepare_batch"))
        return list(compare_pages(usage.client, usage.conn, key_pages(batch.groups, "usage", size)))


def unequal(usage: Usage, keys: Iterable[CounterKey], size: int = 1000) -> set[CounterKey]:
    """The keys that are told unequal; each page that has none must say that it is equal, and no other."""
    found = set()
    for both in compare(usage, keys, size):
        of_page = {parse_key(both.page.raw_keys[i], "usage") for i in both.unequal()}
        assert both.equal is (not of_page and all_plain_integers(both.raw_values))
        found |= of_page
    return found  # type: ignore[return-value]  # keys that were built can be parsed


def insert(usage: Usage, rows: dict[CounterKey, int | None], carried: int = 0) -> None:
    for name, value in rows.items():
        usage.conn.execute(
            "INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value, carried)"
            " VALUES (%s, %s, %s, %s, %s)",
            (*name, value, carried),
        )


@given(
    redis=st.dictionaries(some_keys, counters, min_size=1, max_size=25),
    stored=st.dictionaries(some_keys, st.sampled_from([0, 1, 12, -5, 2**63 - 1]), max_size=25),
    same=st.booleans(),
    size=st.integers(1, 12),
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@example(redis={key("acme"): "1"}, stored={}, same=True, size=5)
@example(redis={key("acme"): "-5", key("beta"): "1"}, stored={key("acme"): -5, key("beta"): 1}, same=False, size=5)
def test_what_is_unequal_is_told_key_by_key(
    usage: Usage, redis: dict[CounterKey, str], stored: dict[CounterKey, int], same: bool, size: int
) -> None:
    if same:  # else equal pages would be rare
        stored |= {name: int(value) for name, value in redis.items() if value.isdigit() and len(value) < 19}
    usage.client.flushall()
    usage.conn.execute("TRUNCATE merchant_usage")
    usage.write(redis)
    insert(usage, dict(stored))
    assert unequal(usage, redis, size) == {
        name for name, value in redis.items() if str(stored.get(name)) != value or value.startswith("-")
    }


def test_equal_rows_and_nothing_else(usage: Usage) -> None:
    usage.write({key("acme", metric_type=metric): 5 for metric in METRICS})
    insert(usage, dict.fromkeys((key("acme", metric_type=metric) for metric in METRICS), 5))
    # Beside the keys, not among them.
    insert(usage, {key("acme", TODAY, "a"): 7, key("acm"): 7, key("acme", metric_type="🎉"): 7})
    (both,) = compare(usage, [key("acme", metric_type=metric) for metric in METRICS])
    assert both.equal
    assert both.unequal() == []


def test_what_is_carried_is_not_the_counter(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("beta"): 105})
    insert(usage, {key("acme"): 105, key("beta"): 105}, carried=100)
    assert unequal(usage, [key("acme"), key("beta")]) == {key("beta")}


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param({"a:1:b": 2}, id="one row for two"),
        pytest.param({"a": 1, "a:1:b": 2}, id="one more"),
        pytest.param({"a:1": 1, "b": 2}, id="as many"),
        pytest.param({"a": 1, "b:2": 2}, id="as many, the last"),
        pytest.param({"a:1:": 2, "b": 2}, id="with an empty part"),
    ],
)
def test_rows_under_names_with_a_colon_forge_nothing(usage: Usage, rows: dict[str, int]) -> None:
    """No counter can have such a name, but a table that the application made may hold anything."""
    keys = {key("acme", metric_type=metric): number for metric, number in (("a", 1), ("b", 2))}
    usage.write(keys)
    insert(usage, {key("acme", metric_type=metric): value for metric, value in rows.items()})
    right = {name for name, value in keys.items() if rows.get(name.metric_type) == value}
    told = unequal(usage, keys)
    # Once a name is odd each key of the page may be told: whoever asks looks at its row.
    assert told >= set(keys) - right
    assert told


def test_a_value_and_a_name_with_a_colon_forge_nothing_together(usage: Usage) -> None:
    a, z = key("acme", metric_type="a"), key("acme", metric_type="z")
    usage.write({a: "1:m", z: 3})
    insert(usage, {a: 1, key("acme", metric_type="m:z"): 3})
    assert unequal(usage, [a, z]) == {a, z}


def test_rows_without_a_number_are_unequal(usage: Usage) -> None:
    usage.conn.execute("ALTER TABLE merchant_usage ALTER metric_value DROP NOT NULL")
    usage.write({key("acme"): 5, key("acme", metric_type="other"): 6})
    insert(usage, {key("acme"): None, key("acme", metric_type="other"): 6})
    assert key("acme") in unequal(usage, [key("acme"), key("acme", metric_type="other")])


def test_keys_that_are_gone_or_of_another_type(usage: Usage) -> None:
    names = [key("gone"), key("list"), key("fine")]
    insert(usage, dict.fromkeys(names, 5))
    usage.client.rpush(raw(key("list")), 1)
    usage.write({key("fine"): 5})
    assert unequal(usage, names) == {key("gone"), key("list")}


def test_a_merchant_with_more_metric_types_than_a_page(usage: Usage) -> None:
    counted = {key("acme", metric_type=f"m{n:04}"): n for n in range(2500)}
    usage.write(counted)
    insert(usage, dict(counted))
    pages = compare(usage, counted)
    assert [len(both.raw_values) for both in pages] == [1000, 1000, 500]
    assert all(both.equal for both in pages)
    usage.write({key("acme", metric_type="m1500"): 0})
    assert unequal(usage, counted) == {key("acme", metric_type="m1500")}


def test_rows_held(usage: Usage) -> None:
    batch = Batch((Group(YESTERDAY, ("a", "c"), ("acme", "beta")),))
    (page,) = key_pages(batch.groups, "usage")
    assert rows_held(usage.conn, page) == 0
    insert(usage, {key("acme", metric_type="a"): 1, key("beta", metric_type="c"): 1, key("gamma", metric_type="a"): 1})
    assert rows_held(usage.conn, page) == 2


def test_pages_that_are_asked_for_together_are_told_apart(usage: Usage) -> None:
    merchants = tuple(f"m{n}" for n in range(2 * PAGES_AT_ONCE + 1))
    counters = {key(merchant, date): n for n, merchant in enumerate(merchants) for date in (YESTERDAY, TODAY)}
    usage.write(counters)
    usage.store_only(YESTERDAY, TODAY)
    wrong = {key("m2", YESTERDAY), key(f"m{PAGES_AT_ONCE}", TODAY)}
    for each in wrong:
        usage.write({each: 1000})
    groups = [Group(date, ("queries",), merchants) for date in (YESTERDAY, TODAY)]
    compared = list(compare_pages(usage.client, usage.conn, key_pages(groups, "usage", size=1)))
    assert [next(both.page.counter_keys()) for both in compared] == [
        key(m, group.date) for group in groups for m in merchants
    ]
    assert {next(both.page.counter_keys()) for both in compared if not both.equal} == wrong
    assert [both.rows for both in compared] == [1] * len(counters)
