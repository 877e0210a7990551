"""The tree, the chain and the bytes below: what is not the same has not the same hash, and a path proves a leaf."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import replace
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from merchant_usage.model.keys import MAX_MERCHANT_ID_BYTES, MAX_METRIC_TYPE_BYTES
from merchant_usage.model.seal import NOTHING, SIZE, Counter, Seal, Tree, leaf_of, path_of, root_by, text_bytes
from merchant_usage.sink import seals
from tests.support import YESTERDAY, Usage

letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ids = st.text(letters | st.sampled_from(":,;0123456789\n\t "), min_size=1)
values = st.integers(0, 2**63 - 1)
counters = st.lists(st.builds(Counter, ids, values, values), min_size=1, max_size=4, unique_by=lambda each: each[0])
merchants = st.tuples(ids, counters.map(lambda some: tuple(sorted(some))))
leaf_lists = st.lists(st.binary(min_size=SIZE, max_size=SIZE), max_size=40)


def root_as_in_the_standard(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, but for the leaves, which are hashed already."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    middle = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = root_as_in_the_standard(leaves[:middle]), root_as_in_the_standard(leaves[middle:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(*parts: bytes) -> bytes:
    tree = Tree()
    for part in parts:
        tree.add(part)
    return tree.root


@given(leaf_lists, st.integers(0, 40))
def test_root_is_that_of_the_standard_however_the_leaves_come(leaves: list[bytes], cut: int) -> None:
    expected = root_as_in_the_standard(leaves)
    assert root_of(b"".join(leaves)) == root_of(b"".join(leaves[:cut]), b"".join(leaves[cut:])) == expected


@given(leaf_lists.filter(bool), st.data())
def test_path_leads_from_its_leaf_to_the_root_and_from_no_other(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = path_of(b"".join(leaves), index)
    root = root_of(b"".join(leaves))
    assert root_by(leaves[index], path) == root
    assert len(path) <= len(leaves).bit_length()
    assert root_by(hashlib.sha256(leaves[index]).digest(), path) != root


@given(leaf_lists, st.data())
def test_any_other_list_has_another_root(leaves: list[bytes], data: st.DataObject) -> None:
    other = data.draw(st.permutations(leaves) | st.just(leaves[:-1]) | st.just([*leaves, *leaves[-1:]]) | leaf_lists)
    assert (root_of(b"".join(leaves)) == root_of(b"".join(other))) == (leaves == other)


@given(st.lists(ids), st.lists(ids))
def test_texts_one_after_another_are_not_confused(some: list[str], others: list[str]) -> None:
    assert (b"".join(map(text_bytes, some)) == b"".join(map(text_bytes, others))) == (some == others)


@given(merchants, merchants)
def test_merchants_that_differ_have_leaves_that_differ(
    one: tuple[str, tuple[Counter, ...]], other: tuple[str, tuple[Counter, ...]]
) -> None:
    assert (leaf_of(*one) == leaf_of(*other)) == (one == other)


seal_rows = st.builds(
    Seal,
    number=st.integers(1, 10**9),
    date=st.dates(),
    version=st.integers(1, 1000),
    sealed_at=st.datetimes(min_value=dt.datetime(2020, 1, 1), timezones=st.just(dt.UTC)),  # noqa: DTZ001 - timezones=
    run_id=ids,
    counters=values,
    total=st.integers(0, 10**30),
    root=st.binary(min_size=SIZE, max_size=SIZE),
    reason=ids,
    previous=st.just(NOTHING),
)


@given(seal_rows, seal_rows)
def test_seals_that_differ_have_chains_that_differ(one: Seal, other: Seal) -> None:
    assert (one.expected_chain == other.expected_chain) == (one == other)
    assert replace(one, previous=b"\1" * SIZE).expected_chain != one.expected_chain


@given(seal_rows)
def test_checkpoint_is_read_as_it_was_written(seal: Seal) -> None:
    complete = replace(seal, chain=seal.expected_chain)
    assert Seal.from_json(complete.to_json()) == complete


stored_ids = ids.filter(lambda text: len(text.encode()) <= MAX_MERCHANT_ID_BYTES)
stored_metrics = ids.filter(lambda text: ":" not in text and len(text.encode()) <= MAX_METRIC_TYPE_BYTES)
stored = st.dictionaries(
    stored_ids, st.dictionaries(stored_metrics, st.tuples(values, values), min_size=1, max_size=3), max_size=8
)


@given(stored)
def test_postgresql_hashes_what_we_do(usage: Usage, rows: dict[str, dict[str, tuple[int, int]]]) -> None:
    usage.conn.execute("TRUNCATE merchant_usage")
    with usage.conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value, carried)"
            " VALUES (%s, %s, %s, %s, %s)",
            [
                (merchant, YESTERDAY, metric, *held)
                for merchant, metrics in rows.items()
                for metric, held in metrics.items()
            ],
        )
    expected = {
        merchant: leaf_of(merchant, [Counter(metric, *held) for metric, held in metrics.items()])
        for merchant, metrics in rows.items()
    }
    with usage.conn.transaction():
        pages = [*seals.stored_leaves(usage.conn, YESTERDAY)]
    found = [*chain.from_iterable(page.merchant_ids for page in pages)]
    assert found == sorted(expected, key=str.encode)
    assert b"".join(page.leaves for page in pages) == b"".join(expected[merchant] for merchant in found)
    assert sum(page.counters for page in pages) == sum(map(len, rows.values()))
