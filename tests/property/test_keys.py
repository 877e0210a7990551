"""Keys and values: any text a merchant may be called survives, and no bytes in Redis can stop a scan."""

from __future__ import annotations

import datetime as dt
import hashlib

from hypothesis import example, given
from hypothesis import strategies as st

from merchant_usage.model.dead_letter import DeadLetter, Reason
from merchant_usage.model.keys import CounterKey, build_key, parse_key
from merchant_usage.source.counters import MAX_VALUE, parse_value
from merchant_usage.text import shown


def text(most_bytes: int, without: str = "") -> st.SearchStrategy[str]:
    """All that PostgreSQL can hold and index: UTF-8 without NUL, not empty, not too long."""
    letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0" + without)
    return st.text(letters, min_size=1).filter(lambda value: len(value.encode()) <= most_bytes)


counter_keys = st.builds(CounterKey, merchant_id=text(1024), date=st.dates(), metric_type=text(256, without=":"))
prefixes = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(counter_keys, prefixes)
@example(CounterKey(":", dt.date.min, " "), "usage:")
@example(CounterKey("2026-11-23:q", dt.date.max, "2026-11-23"), "*")
def test_a_key_that_was_built_is_parsed_back(key: CounterKey, prefix: str) -> None:
    assert parse_key(build_key(prefix, key), prefix) == key


# Pieces that look like keys find more than bytes at random do.
pieces = st.sampled_from([b"usage", b":", b"::", b"2026-11-23", b"2026-02-30", b"\0", b"\xff", b"q", b"\xed\xa0\x80"])
hostile = st.one_of(st.binary(max_size=3000), st.lists(st.one_of(pieces, st.binary(max_size=5))).map(b"".join))


@given(hostile)
@example(b"usage:" + b"x" * 2_000_000 + b":2026-11-23:q")
def test_no_bytes_break_the_parser(raw: bytes) -> None:
    parsed = parse_key(raw, "usage")
    if isinstance(parsed, DeadLetter):
        assert parsed.redis_key == raw[:1024]
        assert parsed.identity == hashlib.sha256(raw).digest()
        assert parsed.reason in {Reason.MALFORMED_KEY, Reason.BAD_DATE}
        assert parsed.detail
    else:
        # What was understood is exactly what is there: no two keys are taken for one.
        assert build_key("usage", parsed) == raw


def is_plain_number(raw: bytes) -> int | None:
    """The oracle, slow and plain: nothing but ASCII digits, and the number fits."""
    if raw and all(byte in range(0x30, 0x3A) for byte in raw):
        number = 0
        for byte in raw:
            number = number * 10 + byte - 0x30
        return number if number < 2**63 else None
    return None


numeric = st.one_of(
    st.integers().map(lambda number: str(number).encode()),
    st.integers(MAX_VALUE - 5, MAX_VALUE + 5).map(lambda number: str(number).encode()),
    st.text("0123456789+-_ .e\n\u0661\u00b2", max_size=25).map(str.encode),
    st.binary(max_size=25),
    st.tuples(st.integers(0, 30), st.integers(0, 2**64)).map(lambda parts: b"0" * parts[0] + str(parts[1]).encode()),
)


@given(numeric)
def test_value_agrees_with_the_oracle(raw: bytes) -> None:
    value = parse_value(b"key", raw)
    expected = is_plain_number(raw)
    if expected is None:
        assert isinstance(value, DeadLetter)
        digits = raw.removeprefix(b"-")
        assert (value.reason is Reason.NOT_AN_INTEGER) == (not digits or not digits.isdigit())
    else:
        assert value == expected
        assert type(value) is int


@given(st.text())
def test_shown_ids_are_short_and_printable(identifier: str) -> None:
    told = shown(identifier)
    assert told.isprintable()
    assert len(told) <= 80
