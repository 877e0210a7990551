"""Keys are built and parsed byte by byte as the API writes them."""

from __future__ import annotations

import datetime as dt
from fnmatch import fnmatchcase

import pytest
import redis

from merchant_usage.model.dead_letter import DeadLetter, Reason
from merchant_usage.model.keys import (
    MAX_MERCHANT_ID_BYTES,
    MAX_METRIC_TYPE_BYTES,
    CounterKey,
    build_key,
    match_pattern,
    parse_date,
    parse_key,
)
from merchant_usage.source.counters import scan_pages
from merchant_usage.text import shown

DATE = dt.date(2026, 11, 23)


@pytest.mark.parametrize(
    ("raw", "merchant", "metric"),
    [
        pytest.param(b"usage:acme:2026-11-23:queries", "acme", "queries", id="plain"),
        pytest.param(b"usage:a:b:c:2026-11-23:queries", "a:b:c", "queries", id="colons in the id"),
        pytest.param(b"usage::2026-11-23:queries:2026-11-23:q", ":2026-11-23:queries", "q", id="id like a key's end"),
        pytest.param(b"usage:usage:2026-11-23:q", "usage", "q", id="id is the prefix"),
        pytest.param(b"usage::::2026-11-23:q", "::", "q", id="id of colons"),
        pytest.param(b"usage: a b :2026-11-23: q ", " a b ", " q ", id="spaces stay"),
        pytest.param(b"usage:%41*[x]?\\:2026-11-23:q", "%41*[x]?\\", "q", id="glob and percent stay"),
        pytest.param("usage:e\u0301:2026-11-23:é".encode(), "e\u0301", "é", id="Unicode is not normalised"),
        pytest.param(b"usage:a\nb\t:2026-11-23:q\r", "a\nb\t", "q\r", id="control characters stay"),
    ],
)
def test_key_is_taken_apart_and_put_together(raw: bytes, merchant: str, metric: str) -> None:
    key = CounterKey(merchant, DATE, metric)
    assert parse_key(raw, "usage") == key
    assert build_key("usage", key) == raw


@pytest.mark.parametrize("prefix", ["app:usage", "u", "usage*", "é"])
def test_prefix_may_hold_anything(prefix: str) -> None:
    key = CounterKey("a:b", DATE, "q")
    assert parse_key(build_key(prefix, key), prefix) == key


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        pytest.param(b"", "expected usage:merchant:YYYY-MM-DD:metric", id="nothing"),
        pytest.param(b"usage", "expected usage:", id="prefix without colon"),
        pytest.param(b"usage:", "expected usage:", id="prefix alone"),
        pytest.param(b"usage:acme", "expected usage:", id="no date"),
        pytest.param(b"usage:2026-11-23:q", "expected usage:", id="no merchant"),
        pytest.param(b"usages:acme:2026-11-23:q", "expected usage:", id="another prefix"),
        pytest.param(b"Usage:acme:2026-11-23:q", "expected usage:", id="prefix in another case"),
        pytest.param(b"usage::2026-11-23:q", "merchant id is empty", id="empty merchant"),
        pytest.param(b"usage:acme::q", "date is empty", id="empty date"),
        pytest.param(b"usage:acme:2026-11-23:", "metric type is empty", id="empty metric"),
        pytest.param(b"usage:\xff:2026-11-23:q", "merchant id is not valid UTF-8", id="merchant not UTF-8"),
        pytest.param(b"usage:\xed\xa0\x80:2026-11-23:q", "merchant id is not valid UTF-8", id="surrogate"),
        pytest.param(b"usage:\xc0\xaf:2026-11-23:q", "merchant id is not valid UTF-8", id="overlong UTF-8"),
        pytest.param(b"usage:acme:2026-11-2\xff:q", "date is not valid UTF-8", id="date not UTF-8"),
        pytest.param(b"usage:acme:2026-11-23:\xe2\x82", "metric type is not valid UTF-8", id="metric cut in a letter"),
        pytest.param(b"usage:a\0b:2026-11-23:q", "merchant id holds a NUL", id="NUL in merchant"),
        pytest.param(b"usage:acme:2026-11-23\0:q", "date holds a NUL", id="NUL in date"),
        pytest.param(b"usage:acme:2026-11-23:\0", "metric type holds a NUL", id="NUL in metric"),
        pytest.param(b"usage:" + b"x" * 1025 + b":2026-11-23:q", "merchant id has 1025 bytes", id="merchant 1025"),
        pytest.param(b"usage:acme:2026-11-23:" + b"x" * 257, "metric type has 257 bytes", id="metric 257"),
    ],
)
def test_malformed_key_says_why(raw: bytes, told: str) -> None:
    letter = parse_key(raw, "usage")
    assert isinstance(letter, DeadLetter)
    assert (letter.redis_key, letter.reason, letter.usage_date) == (raw[:1024], Reason.MALFORMED_KEY, None)
    assert letter.detail.startswith(told)


@pytest.mark.parametrize(
    "date",
    [
        pytest.param("2026-02-29", id="no leap year"),
        pytest.param("2026-13-01", id="month 13"),
        pytest.param("2026-11-31", id="day 31 of 30"),
        pytest.param("0000-01-01", id="year 0"),
        pytest.param("2026-1-1", id="one digit"),
        pytest.param("20261123", id="no dashes"),
        pytest.param("2026-11-23T00", id="with a time"),
        pytest.param("2026-W47-1", id="ISO week"),
        pytest.param("\u0662\u0660\u0662\u0666-\u0661\u0661-\u0662\u0663", id="other digits"),
        pytest.param(" 2026-11-23", id="space before"),
        pytest.param("2026-11-23\n", id="newline after"),
        pytest.param("queries", id="a word"),
    ],
)
def test_bad_date(date: str) -> None:
    letter = parse_key(f"usage:acme:{date}:q".encode(), "usage")
    assert isinstance(letter, DeadLetter)
    assert letter.reason is Reason.BAD_DATE
    assert letter.detail == f"{date!r} is not a date YYYY-MM-DD"


def test_leap_day_is_a_date() -> None:
    assert parse_date(b"2028-02-29") == dt.date(2028, 2, 29)


@pytest.mark.parametrize("letter", ["x", "é", "🎉"])
def test_longest_parts_are_counted_in_bytes(letter: str) -> None:
    size = len(letter.encode())
    longest = CounterKey(letter * (MAX_MERCHANT_ID_BYTES // size), DATE, letter * (MAX_METRIC_TYPE_BYTES // size))
    assert parse_key(build_key("usage", longest), "usage") == longest
    for longer in (
        longest._replace(merchant_id=longest.merchant_id + letter),
        longest._replace(metric_type=longest.metric_type + letter),
    ):
        assert isinstance(parse_key(build_key("usage", longer), "usage"), DeadLetter)


def test_long_bad_date_is_cut() -> None:
    letter = parse_key(b"usage:acme:" + b"9" * 10_000 + b":q", "usage")
    assert isinstance(letter, DeadLetter)
    assert len(letter.detail) < 100


@pytest.mark.parametrize("prefix", ["usage", "us*age", "us?ge", "us[a]ge", "us[^a]ge", "us\\age", "us-age", "us:age"])
def test_pattern_finds_this_prefix_only(prefix: str, redis_client: redis.Redis) -> None:
    wanted = f"{prefix}:acme".encode()
    others = {name.encode() for name in ("usage", "usXage", "usXge", "usbge", "us\\age", "us-age", "usage:acme:x")}
    redis_client.mset(dict.fromkeys({wanted, *others}, "1"))
    found = {name for page in scan_pages(redis_client, prefix, 10) for name in page}
    assert found == {name for name in {wanted, *others} if name.startswith(prefix.encode() + b":")}
    assert wanted in found
    assert fnmatchcase("usage:acme", match_pattern("usage").decode())


@pytest.mark.parametrize(
    ("identifier", "as_shown"),
    [
        pytest.param("acme 🎉 %*", "acme 🎉 %*", id="printable"),
        pytest.param("a\nb", r"a\nb", id="newline"),
        pytest.param("\x1b[31m", r"\x1b[31m", id="terminal escape"),
        pytest.param("\u202e", r"\u202e", id="text direction"),
        pytest.param("x" * 80, "x" * 80, id="80 characters"),
        pytest.param("x" * 81 + "y", "x" * 40 + "…" + "x" * 38 + "y", id="82 characters"),
    ],
)
def test_id_cannot_forge_a_log_line(identifier: str, as_shown: str) -> None:
    assert shown(identifier) == as_shown
