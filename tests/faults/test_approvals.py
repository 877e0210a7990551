"""With two approvals nobody lowers a value alone, and nobody a value that two have not seen."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import psycopg
import pytest
import redis

from local.servers import Valkey
from merchant_usage.errors import SettingsError
from merchant_usage.model.run import Run
from merchant_usage.steps.resolve import Decided, Decision, Outcome, Proposed, Ruling, decide, decide_letters
from tests.faults.engine import Hear, Job, crash, heard, nothing
from tests.faults.leftovers import assert_nothing_left
from tests.support import NOW, TODAY, YESTERDAY, Connect, Usage, key, raw, settings

ACME, BETA = key("acme"), key("beta")
ALL_LETTERS = (0, 2**62)


@pytest.fixture
def regressed(usage: Usage) -> Usage:
    """Two counters that were stored at 100 and 200, and stand at 5 and 6 now."""
    usage.write({ACME: 100, BETA: 200, key("fine"): 1})
    usage.aggregate()
    usage.write({ACME: 5, BETA: 6})
    usage.aggregate()
    return usage


def by(person: str, decision: Decision = Decision.ACCEPT, reason: str | None = None) -> Ruling:
    return Ruling(decision, person, reason, approvals=2)


def says(usage: Usage, person: str, decision: Decision = Decision.ACCEPT, **which: Any) -> Outcome:
    chosen = which or {"key": raw(ACME)}
    return decide(usage.client, usage.conn, by(person, decision), "usage", **chosen)


def decisions(usage: Usage) -> list[tuple[Any, ...]]:
    return usage.conn.execute(
        "SELECT decision, decided_by, approved_by, value_before, value_after FROM usage_decision ORDER BY id"
    ).fetchall()


def test_what_one_accepts_changes_nothing_until_another_approves(regressed: Usage) -> None:
    rows = regressed.row_versions()
    first = decide(regressed.client, regressed.conn, by("alice", reason="a test"), "usage", key=raw(ACME))
    assert (first.decided, first.refused) == ([], [])
    assert first.waiting == [Proposed(ACME, "alice", 100, 5)]
    assert (regressed.row_versions(), decisions(regressed)) == (rows, [])
    assert regressed.verdicts(regressed.aggregate()) == {YESTERDAY: "mismatch"}
    second = decide(regressed.client, regressed.conn, by("bob", reason="I saw it"), "usage", key=raw(ACME))
    assert second.decided == [Decided(ACME, 100, 5, proposed_by="alice")]
    assert (regressed.rows()[ACME], regressed.rows()[BETA]) == (5, 200)
    assert decisions(regressed) == [("accept", "alice", "bob", 100, 5)]
    written = regressed.conn.execute(
        "SELECT d.reason, d.approval_reason, d.approved_at = d.decided_at, p.proposed_at < d.decided_at, l.decision"
        " FROM usage_decision AS d JOIN usage_proposal AS p ON p.id = d.proposal_id"
        " JOIN usage_dead_letter AS l ON l.id = p.letter_id AND l.resolved_at IS NOT NULL"
    ).fetchall()
    assert written == [("a test", "I saw it", True, True, "accept")]


@pytest.mark.parametrize("again", ["alice", " Alice ", "ALICE", "alice\u00a0"])
def test_the_same_person_is_refused_however_the_name_is_written(regressed: Usage, again: str) -> None:
    says(regressed, "alice")
    before = regressed.everything()
    with pytest.raises(SettingsError, match=r"alice has proposed already .* another person has to say the same"):
        says(regressed, again)
    assert regressed.everything() == before


def test_a_date_is_approved_as_a_whole(regressed: Usage) -> None:
    says(regressed, "alice")
    mixed = says(regressed, "alice", date=YESTERDAY)
    assert [(each.key, each.is_new) for each in mixed.waiting] == [(ACME, False), (BETA, True)]
    approved = says(regressed, "bob", date=YESTERDAY)
    assert [(each.before, each.after) for each in approved.decided] == [(100, 5), (200, 6)]
    assert regressed.verdicts(regressed.aggregate()) == {YESTERDAY: "verified"}


@pytest.mark.parametrize(("decision", "value"), [(Decision.KEEP, 100), (Decision.CARRY, 105)])
def test_another_decision_takes_the_place_of_a_proposal(regressed: Usage, decision: Decision, value: int) -> None:
    """Nothing is lowered by it, so that it takes one person: the one who had proposed, too."""
    says(regressed, "alice")
    assert says(regressed, "bob", decision).decided == [Decided(ACME, 100, value)]
    assert decisions(regressed) == [(str(decision), "bob", None, 100, value)]
    with pytest.raises(SettingsError, match="No open counter_regressed"):
        says(regressed, "bob")
    assert regressed.rows()[ACME] == value


def falls(usage: Usage) -> None:
    usage.write({ACME: 3})


def goes(usage: Usage) -> None:
    usage.client.delete(raw(ACME))


def overtakes(usage: Usage) -> None:
    usage.write({ACME: 150})
    usage.aggregate()


def is_edited(usage: Usage) -> None:
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 90 WHERE merchant_id = 'acme'")


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [(falls, 100, 3), (goes, 100, 5), (overtakes, 150, 150), (is_edited, 90, 5)],
)
def test_what_has_changed_since_is_proposed_anew(
    regressed: Usage, change: Callable[[Usage], None], before: int, after: int
) -> None:
    """The number would be another one, or lower from another: bob sees it, and alice has to agree."""
    says(regressed, "alice")
    change(regressed)
    (proposed,) = says(regressed, "bob").waiting
    assert (proposed.before, proposed.after, proposed.is_new) == (before, after, True)
    assert proposed.instead_of is not None
    assert (proposed.instead_of.before, proposed.instead_of.after) == (100, 5)
    assert regressed.rows()[ACME] == before
    with pytest.raises(SettingsError, match="bob has proposed already"):
        says(regressed, "bob")
    assert says(regressed, "alice").decided == [Decided(ACME, before, after, proposed_by="bob")]
    assert regressed.rows()[ACME] == after


def test_what_was_counted_since_is_added_by_the_next_run(usage: Usage) -> None:
    """A live counter grows while people talk: the approved number is stored, and what came on top is counted."""
    acme = key("acme", TODAY)
    usage.write({acme: 100})
    usage.aggregate(TODAY)
    usage.write({acme: 5})
    usage.aggregate(TODAY)
    says(usage, "alice", key=raw(acme))
    usage.write({acme: 9})
    usage.aggregate(TODAY)
    assert says(usage, "bob", key=raw(acme)).decided == [Decided(acme, 100, 5, proposed_by="alice")]
    assert usage.rows()[acme] == 5
    assert usage.verdicts(usage.aggregate(TODAY)) == {TODAY: "verified"}
    assert usage.rows()[acme] == 9


def test_a_proposal_does_not_outlive_its_fall(regressed: Usage) -> None:
    """The same numbers once more are another fall, of which nobody has said anything."""
    says(regressed, "alice")
    says(regressed, "bob", Decision.KEEP)
    regressed.write({ACME: 4})
    regressed.aggregate()
    regressed.write({ACME: 5})
    assert says(regressed, "bob").waiting == [Proposed(ACME, "bob", 100, 5)]
    assert regressed.rows()[ACME] == 100


def test_a_lost_key_is_approved_with_what_was_last_seen(regressed: Usage) -> None:
    regressed.client.delete(raw(ACME))
    says(regressed, "alice")
    assert says(regressed, "bob").decided == [Decided(ACME, 100, 5, proposed_by="alice")]


def test_letters_are_decided_as_far_as_they_were_asked_about(regressed: Usage) -> None:
    """An answer is carried out once, and touches no counter that fell afterwards."""
    ids = [row[0] for row in regressed.conn.execute("SELECT id FROM usage_dead_letter ORDER BY id")]
    asked = (ids[0], ids[-1])
    says(regressed, "dora", Decision.KEEP)
    regressed.write({ACME: 4})
    regressed.aggregate()
    outcome = decide_letters(regressed.client, regressed.conn, Ruling(Decision.ACCEPT, "alice"), "usage", asked)
    assert outcome.decided == [Decided(BETA, 200, 6)]
    assert (
        decide_letters(regressed.client, regressed.conn, Ruling(Decision.ACCEPT, "alice"), "usage", asked) == Outcome()
    )
    assert regressed.rows()[ACME] == 100


def at_once(usage: Usage, connect: Connect, redis_url: str, rulings: list[Ruling]) -> list[Outcome]:
    """Several people answer in the same moment, each by connections of their own."""
    barrier = Barrier(len(rulings))

    def answer(ruling: Ruling) -> Outcome:
        conn = connect()
        with redis.Redis.from_url(redis_url) as client:
            barrier.wait(30)
            return decide_letters(client, conn, ruling, "usage", ALL_LETTERS)

    with ThreadPoolExecutor(len(rulings)) as pool:
        outcomes = list(pool.map(answer, rulings))
    assert_nothing_left(usage.conn)
    return outcomes


@pytest.mark.parametrize("attempt", range(5))
def test_two_at_once_are_two_persons(regressed: Usage, connect: Connect, valkey: Valkey, attempt: int) -> None:
    del attempt
    outcomes = at_once(regressed, connect, valkey.url, [by("alice"), by("bob")])
    assert sorted(len(each.decided) for each in outcomes) == [0, 2]
    assert sorted(len(each.waiting) for each in outcomes) == [0, 2]
    assert {frozenset(row[1:3]) for row in decisions(regressed)} == {frozenset({"alice", "bob"})}
    assert (regressed.rows()[ACME], regressed.rows()[BETA]) == (5, 6)


@pytest.mark.parametrize("attempt", range(5))
def test_one_person_twice_at_once_is_one(regressed: Usage, connect: Connect, valkey: Valkey, attempt: int) -> None:
    del attempt
    rows = regressed.row_versions()
    outcomes = at_once(regressed, connect, valkey.url, [by("alice"), by(" Alice"), by("ALICE")])
    assert sorted(proposed.is_new for each in outcomes for proposed in each.waiting) == [False] * 4 + [True] * 2
    assert (regressed.row_versions(), decisions(regressed)) == (rows, [])


@pytest.mark.parametrize("attempt", range(5))
def test_two_who_approve_at_once_approve_once(regressed: Usage, connect: Connect, valkey: Valkey, attempt: int) -> None:
    del attempt
    says(regressed, "alice", date=YESTERDAY)
    outcomes = at_once(regressed, connect, valkey.url, [by("bob"), by("carol"), by("dora", Decision.KEEP)])
    assert sorted(len(each.decided) for each in outcomes) == [0, 0, 2]
    assert len(decisions(regressed)) == 2


def approve(job: Job, hear: Hear = nothing) -> None:
    """Bob approves all that wait."""
    with heard(job.redis_url, job.postgres_url, hear) as (client, conn):
        decide_letters(client, conn, by("bob"), "usage", ALL_LETTERS)


@pytest.mark.parametrize(
    ("moment", "is_done"),
    [
        pytest.param(["did:select_proposals"], False, id="before anything"),
        pytest.param(["did:decide_regression"], False, id="with a letter closed"),
        pytest.param(["did:insert_decision"], False, id="before the row is written"),
        pytest.param(["commit:set_rows"], False, id="before the commit"),
        pytest.param(["committed:set_rows"], True, id="after the commit"),
    ],
)
def test_an_approval_is_killed_and_given_again(
    regressed: Usage, valkey: Valkey, database_url: str, tmp_path: Path, moment: list[str], is_done: bool
) -> None:
    says(regressed, "alice", date=YESTERDAY)
    job = Job(valkey.url, database_url, Run("", "cli", (TODAY,), NOW), settings(), tmp_path)
    crash(approve, job, moment)
    assert regressed.rows()[ACME] == (5 if is_done else 100)
    for _ in range(2):
        approve(job)
    assert (regressed.rows()[ACME], regressed.rows()[BETA]) == (5, 6)
    assert decisions(regressed) == [("accept", "alice", "bob", 100, 5), ("accept", "alice", "bob", 200, 6)]
    assert_nothing_left(regressed.conn)


def test_nobody_approves_what_they_proposed_not_by_hand_either(regressed: Usage) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        regressed.conn.execute(
            "INSERT INTO usage_decision (decision, decided_by, approved_by) VALUES ('accept', 'alice', 'alice')"
        )
