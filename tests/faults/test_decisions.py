"""Counters that fall more than once, around a decision: found by the state machine, told here step by step."""

from __future__ import annotations

import pytest

from merchant_usage.model.dead_letter import Reason
from merchant_usage.sink import dead_letters
from merchant_usage.steps import scan
from merchant_usage.steps.resolve import Decided, Decision, Ruling, decide
from tests.support import TODAY, YESTERDAY, Usage, key, raw

ACME = key("acme", TODAY)


def counts(usage: Usage, *readings: int) -> None:
    """Redis holds one value after the other, and a run reads each."""
    for value in readings:
        usage.write({ACME: value})
        usage.aggregate(TODAY)


def open_regressions(usage: Usage) -> list[str]:
    return [
        letter.detail for letter in usage.letters() if letter.reason == Reason.COUNTER_REGRESSED and not letter.resolved
    ]


def decided(usage: Usage, decision: Decision) -> int:
    (one,) = decide(usage.client, usage.conn, Ruling(decision, "tester"), "usage", key=raw(ACME)).decided
    assert isinstance(one, Decided)
    assert one.after == usage.rows()[ACME]
    return one.after


def test_kept_counter_that_overtakes_and_falls_is_flagged_again(usage: Usage) -> None:
    """The decision to keep 100 over 5 says nothing about 150 over 50."""
    counts(usage, 100, 5)
    assert decided(usage, Decision.KEEP) == 100
    counts(usage, 99, 150)
    assert open_regressions(usage) == []
    counts(usage, 50)
    assert open_regressions(usage) == ["Redis has 50, PostgreSQL has 150"]
    assert usage.rows()[ACME] == 150


@pytest.mark.parametrize("seen_by", ["the upsert", "verify"])
def test_fall_after_overtaking_is_no_match(usage: Usage, seen_by: str) -> None:
    counts(usage, 100, 5)
    decided(usage, Decision.KEEP)
    counts(usage, 150)
    stored = usage.store_only(TODAY)
    usage.write({ACME: 50})
    proof = usage.prove(stored) if seen_by == "verify" else usage.aggregate(TODAY)
    assert usage.verdicts(proof) == {TODAY: "mismatch"}


def test_carry_after_overtaking_and_falling_again_lowers_nothing(usage: Usage) -> None:
    counts(usage, 100, 5, 150, 3)
    assert decided(usage, Decision.CARRY) == 253, "what it had reached each time, and what it has now"
    counts(usage, 10)
    assert (usage.rows()[ACME], usage.carried(ACME)) == (260, 250)


@pytest.mark.parametrize(("decision", "value"), [(Decision.KEEP, 150), (Decision.ACCEPT, 150), (Decision.CARRY, 250)])
def test_key_that_overtook_and_is_gone_counts_as_it_was_last_seen(usage: Usage, decision: Decision, value: int) -> None:
    counts(usage, 100, 5, 150)
    usage.client.delete(raw(ACME))
    assert decided(usage, decision) == value


def test_flood_of_bad_keys_hides_no_regression(usage: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "MAX_OPEN", 3)
    monkeypatch.setattr(scan, "KEYS_WORTH_A_BATCH", 1)
    counts(usage, 100)
    usage.write({key(f"m{n}", YESTERDAY): "x" for n in range(10)})
    usage.aggregate(YESTERDAY)
    usage.aggregate(YESTERDAY)
    assert len(usage.letters()) < 10
    counts(usage, 5)
    assert open_regressions(usage) == ["Redis has 5, PostgreSQL has 100"]
    assert decided(usage, Decision.CARRY) == 105


def test_accepting_a_lower_value_does_not_refute_a_run_that_is_under_way(usage: Usage) -> None:
    """It read 100 and stored it; then Redis fell, another run flagged it, and a person accepted."""
    usage.write({ACME: 100})
    stored = usage.store_only(TODAY)
    counts(usage, 5)
    assert decided(usage, Decision.ACCEPT) == 5
    assert usage.verdicts(usage.prove(stored)) == {TODAY: "verified"}
