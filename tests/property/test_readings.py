"""What was read of a page is taken apart as it was packed, whatever the ids."""

from __future__ import annotations

import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from merchant_usage.model.batches import Census
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.pages import key_pages
from merchant_usage.model.readings import PackedReading, lower, unpack

DAYS = [dt.date(2026, 11, 23), dt.date(2026, 11, 24)]
merchants = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
metrics = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0:"), min_size=1, max_size=4)
keys = st.builds(CounterKey, merchants, st.sampled_from(DAYS), metrics)
counters = st.one_of(st.none(), st.integers(0, 2**63 - 1))


@given(
    st.dictionaries(keys, counters, min_size=1, max_size=12),
    st.dictionaries(keys, st.integers(0, 2**63 - 1), max_size=3),
    st.integers(0, 2**63 - 1),
    st.integers(1, 5),
)
def test_readings(
    read: dict[CounterKey, int | None], carrying: dict[CounterKey, int], accepted: int, size: int
) -> None:
    # Some of those that carry were read, too.
    carrying |= {key: value + 1 for key, value in list(read.items())[::3] if value is not None}
    census = Census()
    for key in read:
        census.add(key)
    (batch,) = census.batches(DAYS, 1)
    pages = list(key_pages(batch.groups, "usage", size))
    digits = {key: b"" if value is None else b"%d" % value for key, value in read.items()}
    as_read = [PackedReading.of(page, [digits[key] for key in page.counter_keys()]) for page in pages]
    packed = [page.with_carried(carrying) for page in as_read]

    expected = {key: carrying.get(key, value) for key, value in read.items() if value is not None}
    unpacked = [pair for one in packed for pair in unpack(one.date, one.keys, one.counters)]
    assert dict(unpacked) == expected
    assert len(unpacked) == sum(one.number for one in packed) == len(expected)
    assert len({one.page for one in packed}) == len(pages)

    chosen = dict.fromkeys(list(read)[::2], accepted)
    lowered = [lower(one.date, one.keys, one.counters, chosen) for one in packed]
    assert dict(
        pair for one, after in zip(packed, lowered, strict=True) for pair in unpack(one.date, one.keys, after)
    ) == {key: min(value, accepted) if key in chosen else value for key, value in expected.items()}
