"""One bad key never stops the others, is written down with its reason, and is tried again until it is good or gone."""

from __future__ import annotations

import datetime as dt

import pytest

from merchant_usage.model.dead_letter import MAX_DETAIL, Reason
from merchant_usage.sink import dead_letters
from merchant_usage.steps import scan
from tests.support import NOW, TODAY, TOMORROW, YESTERDAY, Letter, Usage, key, raw

LONG_AGO = YESTERDAY - dt.timedelta(days=100)


def only(usage: Usage) -> Letter:
    (letter,) = usage.letters()
    return letter


@pytest.mark.parametrize(
    ("name", "value", "reason", "date"),
    [
        pytest.param(b"usage:acme", b"1", Reason.MALFORMED_KEY, None, id="too few parts"),
        pytest.param(b"usage:\xff\xfe:2026-11-23:q", b"1", Reason.MALFORMED_KEY, None, id="not UTF-8"),
        pytest.param(b"usage:a\0b:2026-11-23:q", b"1", Reason.MALFORMED_KEY, None, id="NUL"),
        pytest.param(b"usage::2026-11-23:q", b"1", Reason.MALFORMED_KEY, None, id="empty merchant"),
        pytest.param(b"usage:" + b"x" * 1025 + b":2026-11-23:q", b"1", Reason.MALFORMED_KEY, None, id="long id"),
        pytest.param(b"usage:" + b"y" * 100_000, b"1", Reason.MALFORMED_KEY, None, id="key of 100 kB"),
        pytest.param(b"usage:acme:2026-02-30:q", b"1", Reason.BAD_DATE, None, id="no such day"),
        pytest.param(b"usage:acme:2026-11-25:q", b"1", Reason.FUTURE_DATE, TOMORROW, id="tomorrow"),
        pytest.param(b"usage:acme:9999-12-31:q", b"1", Reason.FUTURE_DATE, dt.date.max, id="the last day of all"),
        pytest.param(b"usage:acme:2026-11-23:q", b"1_000", Reason.NOT_AN_INTEGER, YESTERDAY, id="not an integer"),
        pytest.param(b"usage:acme:2026-11-23:q", b"\0\xff", Reason.NOT_AN_INTEGER, YESTERDAY, id="binary value"),
        pytest.param(b"usage:acme:2026-11-23:q", b"", Reason.NOT_AN_INTEGER, YESTERDAY, id="empty value"),
        pytest.param(b"usage:acme:2026-11-23:q", b"x" * 10**6, Reason.NOT_AN_INTEGER, YESTERDAY, id="value of 1 MB"),
        pytest.param(b"usage:acme:2026-11-23:q", b"-1", Reason.NEGATIVE, YESTERDAY, id="negative"),
        pytest.param(b"usage:acme:2026-11-23:q", b"9223372036854775808", Reason.OUT_OF_RANGE, YESTERDAY, id="2^63"),
        pytest.param(b"usage:acme:2026-11-23:q", b"9" * 5000, Reason.OUT_OF_RANGE, YESTERDAY, id="5000 digits"),
    ],
)
def test_poison_gets_its_reason_and_stops_nobody(
    usage: Usage, name: bytes, value: bytes, reason: Reason, date: dt.date | None
) -> None:
    good = {key("acme"): 1, key("zeta"): 2}
    usage.write(good)
    usage.client.set(name, value)
    proof = usage.aggregate()
    assert usage.rows() == good
    letter = only(usage)
    assert (letter.redis_key, letter.reason, letter.usage_date) == (name[:1024], reason, date)
    assert (letter.attempts, letter.resolved) == (1, False)
    assert 0 < len(letter.detail) <= MAX_DETAIL
    assert usage.verdicts(proof) == {YESTERDAY: "verified"}
    assert proof.reports[0].counts.dead_letters == (1 if date == YESTERDAY else 0)


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        ("list", "RPUSH {} 1"),
        ("set", "SADD {} 1"),
        ("hash", "HSET {} a 1"),
        ("zset", "ZADD {} 1 a"),
        ("stream", "XADD {} * a 1"),
    ],
)
def test_key_of_another_type(usage: Usage, kind: str, command: str) -> None:
    usage.write({key("zeta"): 2})
    name = raw(key("acme"))
    usage.client.execute_command(*command.format(name.decode()).split())
    proof = usage.aggregate()
    assert only(usage)[:4] == (name, Reason.WRONG_TYPE, f"the key holds a {kind}, not a counter", YESTERDAY)
    assert usage.rows() == {key("zeta"): 2}
    assert usage.verdicts(proof) == {YESTERDAY: "verified"}


def test_all_poisons_at_once(usage: Usage) -> None:
    values = {"not": b"x", "neg": b"-5", "big": b"9" * 40}
    usage.write({key(name): value for name, value in values.items()} | {key(f"m{n}"): n for n in range(50)})
    usage.client.rpush(raw(key("list")), 1)
    usage.client.mset({b"usage:\xff:2026-11-23:q": 1, b"usage:a:2026-13-01:q": 1, raw(key("b", TOMORROW)): 1})
    usage.aggregate(max_mapped_tasks=1)
    assert usage.rows() == {key(f"m{n}"): n for n in range(50)}
    assert {letter.reason for letter in usage.letters()} == {str(r) for r in Reason} - {
        "counter_regressed",
        "on_two_servers",
        "too_late",
    }


def test_each_run_tries_again_and_counts(usage: Usage) -> None:
    usage.write({key("acme"): "x"})
    usage.client.set("usage:malformed", 1)
    for attempt in (1, 2, 3):
        usage.aggregate()
        assert [letter.attempts for letter in usage.letters()] == [attempt, attempt]


@pytest.mark.parametrize(
    ("run_date", "poisoned"),
    [
        pytest.param(YESTERDAY, YESTERDAY, id="date of the run"),
        pytest.param(TODAY, YESTERDAY, id="another date"),
        pytest.param(TODAY, LONG_AGO, id="date long ago"),
    ],
)
@pytest.mark.parametrize("poison", [b"x", b"-1", None], ids=["text", "negative", "list"])
def test_key_that_became_good_is_aggregated_and_its_letter_closed(
    usage: Usage, run_date: dt.date, poisoned: dt.date, poison: bytes | None
) -> None:
    counter = key("acme", poisoned)
    if poison is None:
        usage.client.rpush(raw(counter), 1)
    else:
        usage.write({counter: poison})
    usage.aggregate(poisoned)
    assert not only(usage).resolved
    usage.client.delete(raw(counter))
    usage.write({counter: 7, key("other", poisoned): 1})
    proof = usage.aggregate(run_date, run_id="mending")
    assert usage.rows()[counter] == 7
    assert only(usage).resolved
    assert usage.verdicts(proof)[poisoned] == "verified"
    # A run over other dates takes the mended merchant's along, and nobody else's.
    assert (key("other", poisoned) in usage.rows()) == (run_date == poisoned)
    assert usage.ledger("mending")[poisoned] == ("verified", None)


@pytest.mark.parametrize("run_date", [YESTERDAY, TODAY], ids=["date of the run", "another date"])
def test_key_that_is_gone_is_resolved(usage: Usage, run_date: dt.date) -> None:
    usage.write({key("acme"): "x", key("other", TODAY): 1})
    usage.client.set("usage:malformed", 1)
    usage.aggregate()
    assert [letter.resolved for letter in usage.letters()] == [False, False]
    usage.client.delete(raw(key("acme")), "usage:malformed")
    usage.aggregate(run_date)
    assert [letter.resolved for letter in usage.letters()] == [True, True]


def test_key_that_is_bad_in_another_way(usage: Usage) -> None:
    usage.write({key("acme"): "x"})
    usage.aggregate()
    usage.write({key("acme"): "-1"})
    usage.aggregate()
    assert {letter.reason: letter.attempts for letter in usage.letters()} == {"not_an_integer": 1, "negative": 1}
    usage.write({key("acme"): "1"})
    usage.aggregate()
    assert [letter.resolved for letter in usage.letters()] == [True, True]


def test_key_that_is_bad_once_more_opens_a_new_letter(usage: Usage) -> None:
    for value in ("x", "1", "y"):
        usage.write({key("acme"): value})
        usage.aggregate()
    assert [(letter.attempts, letter.resolved) for letter in usage.letters()] == [(1, True), (1, False)]


def test_day_to_come_is_aggregated_when_it_has_come(usage: Usage) -> None:
    usage.write({key("acme", TOMORROW): 3})
    usage.aggregate(TODAY)
    assert only(usage)[1:4] == (Reason.FUTURE_DATE, f"{TOMORROW} is after today, {TODAY}", TOMORROW)
    assert usage.rows() == {}
    usage.aggregate(TOMORROW, now=NOW + dt.timedelta(days=1))
    assert usage.rows() == {key("acme", TOMORROW): 3}
    assert only(usage).resolved


def test_run_of_some_merchants_tries_no_others_letters(usage: Usage) -> None:
    usage.write({key("acme", LONG_AGO): "x", key("other"): 2})
    usage.aggregate(LONG_AGO)
    usage.write({key("acme", LONG_AGO): 1})
    usage.aggregate(YESTERDAY, merchants=("other",))
    assert usage.rows() == {key("other"): 2}
    assert not only(usage).resolved


def test_flood_is_bounded_and_closes_no_letter_by_mistake(usage: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    usage.client.mset({f"usage:bad {n}": 1 for n in range(10)})
    usage.write({key("acme"): 1})
    for most in (3, 1):  # the second run keeps fewer, and knows nothing of the others
        monkeypatch.setattr(scan, "MAX_DEAD_LETTERS_A_SCAN", most)
        usage.aggregate()
        assert usage.rows() == {key("acme"): 1}
    assert len(usage.letters()) == 3
    assert not any(letter.resolved for letter in usage.letters())


def test_in_a_flood_those_that_are_gone_are_resolved(usage: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MAX_DEAD_LETTERS_A_SCAN", 5)
    for turn in range(4):
        usage.client.mset({f"usage:bad {turn} {n}": 1 for n in range(20)})
        usage.aggregate()
        still_there = set(usage.client.keys())
        still_open = {letter.redis_key for letter in usage.letters() if not letter.resolved}
        assert still_open <= still_there
        assert 0 < len(still_open) <= 5 * (turn + 1)
        gone = sorted(still_there)[: len(still_there) // 2]
        usage.client.delete(*gone, *(name for name in sorted(still_open)[::2]))
    usage.client.flushall()
    usage.aggregate()
    assert all(letter.resolved for letter in usage.letters())


def test_open_letters_are_bounded_in_bytes(usage: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MAX_OPEN_BYTES", 5000)
    for turn in range(3):
        usage.client.mset({b"usage:%d" % turn + b"x" * 900 + b"%d" % n: 1 for n in range(4)})
        usage.aggregate()
    assert len(usage.letters()) == 8
