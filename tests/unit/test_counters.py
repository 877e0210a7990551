"""A counter's value is ASCII digits within a bigint, and nothing else."""

from __future__ import annotations

import pytest

from merchant_usage.model.dead_letter import MAX_DETAIL, DeadLetter, Reason
from merchant_usage.source.counters import MAX_VALUE, parse_value


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        pytest.param(b"0", 0, id="zero"),
        pytest.param(b"1", 1, id="one"),
        pytest.param(b"007", 7, id="leading zeros"),
        pytest.param(b"0" * 63 + b"7", 7, id="63 leading zeros"),
        pytest.param(b"0" * 64, 0, id="64 zeros"),
        pytest.param(b"999999999999999999", 10**18 - 1, id="18 digits"),
        pytest.param(b"1000000000000000000", 10**18, id="19 digits"),
        pytest.param(b"9223372036854775806", MAX_VALUE - 1, id="2^63-2"),
        pytest.param(b"9223372036854775807", MAX_VALUE, id="2^63-1"),
    ],
)
def test_good_value(raw: bytes, value: int) -> None:
    assert parse_value(b"key", raw) == value


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"", Reason.NOT_AN_INTEGER, id="empty"),
        pytest.param(b"1_000", Reason.NOT_AN_INTEGER, id="underscore"),
        pytest.param(b" 1", Reason.NOT_AN_INTEGER, id="space before"),
        pytest.param(b"1 ", Reason.NOT_AN_INTEGER, id="space after"),
        pytest.param(b"1\n", Reason.NOT_AN_INTEGER, id="newline after"),
        pytest.param("\u0661".encode(), Reason.NOT_AN_INTEGER, id="arabic digit"),
        pytest.param("²".encode(), Reason.NOT_AN_INTEGER, id="superscript"),
        pytest.param(b"+1", Reason.NOT_AN_INTEGER, id="plus"),
        pytest.param(b"--1", Reason.NOT_AN_INTEGER, id="two minuses"),
        pytest.param(b"-", Reason.NOT_AN_INTEGER, id="minus alone"),
        pytest.param(b"1.0", Reason.NOT_AN_INTEGER, id="decimal point"),
        pytest.param(b"1e3", Reason.NOT_AN_INTEGER, id="exponent"),
        pytest.param(b"0x10", Reason.NOT_AN_INTEGER, id="hexadecimal"),
        pytest.param(b"NaN", Reason.NOT_AN_INTEGER, id="NaN"),
        pytest.param(b"1\0", Reason.NOT_AN_INTEGER, id="NUL"),
        pytest.param(b"\xff", Reason.NOT_AN_INTEGER, id="no UTF-8"),
        pytest.param(b"-0", Reason.NEGATIVE, id="minus zero"),
        pytest.param(b"-1", Reason.NEGATIVE, id="minus one"),
        pytest.param(b"-" + b"9" * 5000, Reason.NEGATIVE, id="minus 5000 digits"),
        pytest.param(b"9223372036854775808", Reason.OUT_OF_RANGE, id="2^63"),
        pytest.param(b"9" * 19, Reason.OUT_OF_RANGE, id="19 nines"),
        pytest.param(b"0" * 30 + b"9223372036854775808", Reason.OUT_OF_RANGE, id="2^63 with zeros before"),
        pytest.param(b"9" * 5000, Reason.OUT_OF_RANGE, id="5000 digits"),
        # Redis itself counts on from neither, and of a longer value not all may be known.
        pytest.param(b"0" * 64 + b"7", Reason.OUT_OF_RANGE, id="64 leading zeros"),
        pytest.param(b"0" * 5000, Reason.OUT_OF_RANGE, id="5000 zeros"),
    ],
)
def test_bad_value_says_why(raw: bytes, reason: Reason) -> None:
    letter = parse_value(b"key", raw)
    assert isinstance(letter, DeadLetter)
    assert (letter.redis_key, letter.reason) == (b"key", reason)
    assert letter.detail.startswith(f"the value is {repr(raw[:60])[1:]}")
    assert len(letter.detail) < MAX_DETAIL
