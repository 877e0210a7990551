"""What is done for a whole page says what the exact way says key by key, or steps aside, however hostile keys are."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from merchant_usage.model.batches import Batch, Census, Group
from merchant_usage.model.keys import CounterKey, build_key, parse_key, parse_page
from merchant_usage.model.pages import key_pages
from merchant_usage.source.counters import all_plain_integers, parse_value
from merchant_usage.steps.staging import copy_rows

DAY = "2026-11-23"
parts = st.one_of(
    st.sampled_from([b"acme", b"a:b", b"", b"\n", b"\xff", b"\0", b"x" * 300, "é🎉".encode(), b"a\nusage:b"]),
    st.binary(max_size=8),
    st.text(max_size=8).map(lambda text: text.encode(errors="surrogatepass")),
)
days = st.sampled_from([b"2026-11-23", b"2026-11-24", b"2026-02-30", b"2026-1-01", "\uff12026-11-23".encode(), b""])
hostile_keys = st.one_of(
    st.builds(lambda merchant, day, metric: b":".join([b"usage", merchant, day, metric]), parts, days, parts),
    st.binary(max_size=30),
)
good_parts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0:"), min_size=1, max_size=20)
good_merchants = st.lists(good_parts, min_size=1, max_size=3).map(":".join)
good_keys = st.builds(lambda merchant, metric: f"usage:{merchant}:{DAY}:{metric}".encode(), good_merchants, good_parts)


@given(st.lists(good_keys, max_size=8), st.lists(hostile_keys, max_size=3), st.sampled_from(["usage", "u.*e", "a:b"]))
@example([b"usage:a:2026-11-23:q\nusage:b:2026-11-23:q"], [], "usage")
@example([b"usage:a:2026-11-23:q\n"], [], "usage")
@example([b"usage:a:2026-11-23:q"], [b""], "usage")
@example([b"usage:a\r:2026-11-23:q\x85"], [], "usage")
@example([b"usage:a:2026-11-23:q", b"usage:b:2026-11-24:q", b"usage:c:2026-11-23:r"], [], "usage")
# Parts that would be good if keys were parted elsewhere.
@example([], [b"usage:a:2026-11-23:b:usage", b"x:2026-11-24:c"], "usage")
@example([], [b"usage:a:2026-11-23:b:\0:usage:c:2026-11-24:d"], "usage")
@example([b"usage:a:2026-11-23:q"], [b"usage:a:2026-11-23:b:2026-11-24", b"usage:2026-11-23:c"], "usage")
def test_a_page_of_keys(good: list[bytes], hostile: list[bytes], prefix: str) -> None:
    page = good + hostile
    at_once = parse_page(page, prefix)
    one_by_one = [parse_key(raw, prefix) for raw in page]
    if not all(isinstance(key, CounterKey) for key in one_by_one):
        assert at_once is None
        return
    if not hostile and prefix == "usage":
        assert at_once is not None
    # It may step aside for a good key (a long one), and if it does not it is right.
    if at_once is not None:
        merchants, days, metrics, dates, counts = at_once
        parted = zip(merchants, map(dates.get, days), metrics, strict=True)
        assert list(parted) == one_by_one
        for day, date in dates.items():
            of_day = [(key.merchant_id, key.metric_type) for key in one_by_one if key.date == date]  # type: ignore[union-attr]
            assert list(zip(*at_once.of(day), strict=True)) == of_day
            assert counts[day] == len(of_day)


values = st.one_of(
    st.none(),
    st.integers(-(2**64), 2**64).map(lambda number: b"%d" % number),
    st.sampled_from([b"", b"007", b"1_000", b" 1", b"1\n", "٣".encode(), b"+1", b"-0", b"9" * 18, b"9" * 19]),
    st.binary(max_size=6),
)


@given(st.lists(values, max_size=6))
def test_a_page_of_values(raw_values: list[bytes | None]) -> None:
    if all_plain_integers(raw_values):
        assert [parse_value(b"key", raw or b"") for raw in raw_values] == [int(raw or b"") for raw in raw_values]
    elif (
        raw_values
        and None not in raw_values
        and all(raw == b"%d" % number for number, raw in zip(_numbers(raw_values), raw_values, strict=True))
    ):
        assert max(_numbers(raw_values)) >= 10**18, "it steps aside for what is odd, not for what is good"


def _numbers(raw_values: list[bytes | None]) -> list[int]:
    numbers = [parse_value(b"key", raw or b"") for raw in raw_values]
    return [number if isinstance(number, int) else -1 for number in numbers]


METRICS = ["queries", "a\tb", "back\\slash", "new\nline", "é"]

some_keys = st.builds(
    CounterKey,
    merchant_id=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6),
    date=st.sampled_from([dt.date(2026, 11, 23), dt.date(2026, 11, 24)]),
    metric_type=st.sampled_from(METRICS),
)


def _copied(key: CounterKey) -> list[bytes]:
    """The columns of a key in COPY's text format, by the book: every special character escaped, one after the other."""
    columns = []
    for text in (key.merchant_id, str(key.date), key.metric_type):
        for character, escape in (("\\", r"\\"), ("\t", r"\t"), ("\n", r"\n"), ("\r", r"\r")):
            text = text.replace(character, escape)
        columns.append(text.encode())
    return columns


@given(st.lists(some_keys, max_size=30), st.integers(1, 7))
def test_pages_of_a_batch_name_its_keys(keys: list[CounterKey], size: int) -> None:
    census = Census()
    for key in keys:
        census.add_all(key.date, [key.merchant_id], [key.metric_type])
    for batch in census.batches((), 2):
        expected = {build_key("usage", key): b"\t".join(_copied(key)) + b"\t" for key in batch.counter_keys()}
        pages = list(key_pages(batch.groups, "usage", size))
        assert sorted(raw for page in pages for raw in page.raw_keys) == sorted(expected)
        for page in pages:
            assert page.row_prefixes() == [expected[raw] for raw in page.raw_keys]
            assert {parse_key(raw, "usage").date for raw in page.raw_keys} == {page.date}  # type: ignore[union-attr]
            assert len(page.raw_keys) < 2 * size
        for page, following in pairwise(pages):
            assert len(page.raw_keys) + len(METRICS) > size or page.date != following.date
        first, last = batch.range
        assert (first, last) == (batch.merchant_ids[0], batch.merchant_ids[-1])
        assert first.encode() == min(merchant.encode() for merchant in batch.merchant_ids)
        assert last.encode() == max(merchant.encode() for merchant in batch.merchant_ids)


def test_a_row_of_copy() -> None:
    batch = Batch((Group(dt.date(2026, 11, 23), ("a\tb", "c\\d"), ("new\nline", "car\rriage")),))
    (page,) = key_pages(batch.groups, "usage")
    assert copy_rows(page.row_prefixes(), [b"1", None, b"3", b"4"]) == (
        b"new\\nline\t2026-11-23\ta\\tb\t1\n"
        b"new\\nline\t2026-11-23\tc\\\\d\t\\N\n"
        b"car\\rriage\t2026-11-23\ta\\tb\t3\n"
        b"car\\rriage\t2026-11-23\tc\\\\d\t4\n"
    )
