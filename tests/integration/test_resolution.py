"""What a person decides of a counter that went backwards becomes the stored value, and the date can be verified."""

from __future__ import annotations

import pytest

from merchant_usage.errors import SettingsError
from merchant_usage.steps.resolve import Decided, Decision, Ruling, decide
from tests.support import YESTERDAY, Usage, key, raw

ACME = key("acme")


@pytest.fixture
def regressed(usage: Usage) -> Usage:
    """Two counters that were stored at 100 and 200, and stand at 5 and 6 now."""
    usage.write({ACME: 100, key("beta"): 200, key("fine"): 1})
    usage.aggregate()
    usage.write({ACME: 5, key("beta"): 6})
    usage.aggregate()
    return usage


@pytest.mark.parametrize(
    ("decision", "value", "carried", "after_growth"),
    [
        pytest.param(Decision.KEEP, 100, 0, 100, id="keep"),
        pytest.param(Decision.ACCEPT, 5, 0, 15, id="accept"),
        pytest.param(Decision.CARRY, 105, 100, 115, id="carry"),
    ],
)
def test_decision_on_one_key(regressed: Usage, decision: Decision, value: int, carried: int, after_growth: int) -> None:
    decided = decide(regressed.client, regressed.conn, Ruling(decision, "tester"), "usage", key=raw(ACME)).decided
    assert decided == [Decided(ACME, 100, value)]
    assert (regressed.rows()[ACME], regressed.carried(ACME)) == (value, carried)
    assert regressed.rows()[key("beta")] == 200
    assert {letter.redis_key: letter.resolved for letter in regressed.letters()} == {
        raw(ACME): True,
        raw(key("beta")): False,
    }
    # The other one still waits, so the date is not verified yet.
    assert regressed.verdicts(regressed.aggregate()) == {YESTERDAY: "mismatch"}
    regressed.write({key("beta"): 200, ACME: 15})
    assert regressed.verdicts(regressed.aggregate()) == {YESTERDAY: "mismatch"}, (
        "it is back, and nobody knows why it fell"
    )
    decide(regressed.client, regressed.conn, Ruling(Decision.KEEP, "tester"), "usage", key=raw(key("beta")))
    assert regressed.verdicts(regressed.aggregate()) == {YESTERDAY: "verified"}
    assert regressed.rows()[ACME] == after_growth


def test_kept_value_is_overtaken(regressed: Usage) -> None:
    decide(regressed.client, regressed.conn, Ruling(Decision.KEEP, "tester"), "usage", key=raw(ACME))
    regressed.write({ACME: 150})
    regressed.aggregate()
    assert regressed.rows()[ACME] == 150


def test_kept_counter_that_falls_again_is_flagged_again(regressed: Usage) -> None:
    decide(regressed.client, regressed.conn, Ruling(Decision.KEEP, "tester"), "usage", key=raw(ACME))
    regressed.write({ACME: 4})
    regressed.aggregate()
    assert [
        letter.detail for letter in regressed.letters() if letter.redis_key == raw(ACME) and not letter.resolved
    ] == ["Redis has 4, PostgreSQL has 100"]


def test_decision_on_a_date(regressed: Usage) -> None:
    decided = decide(
        regressed.client, regressed.conn, Ruling(Decision.CARRY, "tester"), "usage", date=YESTERDAY
    ).decided
    assert decided == [Decided(ACME, 100, 105), Decided(key("beta"), 200, 206)]
    assert regressed.verdicts(regressed.aggregate()) == {YESTERDAY: "verified"}


def test_counter_that_grew_until_the_decision_counts_as_it_is(regressed: Usage) -> None:
    regressed.write({ACME: 9})
    assert decide(
        regressed.client, regressed.conn, Ruling(Decision.CARRY, "tester"), "usage", key=raw(ACME)
    ).decided == [Decided(ACME, 100, 109)]


def test_key_that_is_gone_counts_as_it_was_last_seen(regressed: Usage) -> None:
    regressed.client.delete(raw(ACME))
    assert decide(
        regressed.client, regressed.conn, Ruling(Decision.CARRY, "tester"), "usage", key=raw(ACME)
    ).decided == [Decided(ACME, 100, 105)]


def test_carry_counts_from_what_was_stored_when_it_fell(regressed: Usage) -> None:
    """Redis overtook the stored value before anybody decided: nothing in it may count twice or be lost."""
    regressed.write({ACME: 150})
    regressed.aggregate()
    assert regressed.rows()[ACME] == 150
    decide(regressed.client, regressed.conn, Ruling(Decision.CARRY, "tester"), "usage", key=raw(ACME))
    assert (regressed.rows()[ACME], regressed.carried(ACME)) == (250, 100)


def test_broken_key_cannot_be_decided_and_holds_up_no_other(regressed: Usage) -> None:
    regressed.write({ACME: "x"})
    before = regressed.everything()
    with pytest.raises(SettingsError, match="cannot be decided: the value is 'x'"):
        decide(regressed.client, regressed.conn, Ruling(Decision.KEEP, "tester"), "usage", key=raw(ACME))
    assert regressed.everything() == before
    outcome = decide(regressed.client, regressed.conn, Ruling(Decision.KEEP, "tester"), "usage", date=YESTERDAY)
    assert [one.subject for one in outcome.decided] == [key("beta")]
    assert len(outcome.refused) == 1
    assert {letter.redis_key: letter.resolved for letter in regressed.letters()} == {
        raw(ACME): False,
        raw(key("beta")): True,
    }


def test_nothing_to_decide(regressed: Usage) -> None:
    with pytest.raises(SettingsError, match="No open counter_regressed for"):
        decide(regressed.client, regressed.conn, Ruling(Decision.KEEP, "tester"), "usage", key=raw(key("fine")))
