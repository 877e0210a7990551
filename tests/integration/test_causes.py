"""Counters that went backwards in one go are one cause, however many they are."""

from __future__ import annotations

import datetime as dt

from merchant_usage.sink import causes
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.support import TODAY, YESTERDAY, Usage, key, raw

MANY = 3000


def later(usage: Usage, hours: int) -> None:
    """What was found so far was found some hours ago."""
    usage.conn.execute("UPDATE usage_dead_letter SET first_seen_at = first_seen_at - %s", [dt.timedelta(hours=hours)])


def test_nothing_waits(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate()
    assert causes.find(usage.conn) == []


def test_an_emptied_redis_is_one_cause(usage: Usage) -> None:
    usage.write({key(f"m{number}", date): 10 for number in range(MANY) for date in (YESTERDAY, TODAY)})
    usage.aggregate(YESTERDAY, TODAY)
    usage.client.flushall()
    usage.write({key(f"m{number}", TODAY): 1 for number in range(MANY)})
    usage.aggregate(YESTERDAY, TODAY)
    (cause,) = causes.find(usage.conn)
    assert cause.counters == MANY
    assert cause.dates == (TODAY,)
    assert (cause.redis, cause.stored, cause.gone) == (MANY, 10 * MANY, 0)
    assert len(cause.examples) == causes.EXAMPLES


def test_what_is_found_later_is_another_cause(usage: Usage) -> None:
    usage.write({key("acme"): 100, key("beta"): 200, key("gamma"): 300})
    usage.aggregate()
    usage.write({key("acme"): 5, key("beta"): 6})
    usage.aggregate()
    later(usage, 1)
    usage.client.delete(raw(key("gamma")))
    usage.write({key("delta"): 1})
    usage.aggregate()
    usage.write({key("delta"): 0})
    usage.aggregate()
    first, second = causes.find(usage.conn)
    assert (first.counters, first.redis, first.stored) == (2, 11, 300)
    assert first.letters[1] < second.letters[0]
    assert first.examples == (raw(key("beta")), raw(key("acme"))), "those that fell most come first"
    assert causes.find(usage.conn, first.letters) == [first]
    assert raw(key("delta")) in second.examples


def test_what_somebody_has_proposed_is_told(usage: Usage) -> None:
    usage.write({key("acme"): 100, key("beta"): 200})
    usage.aggregate()
    usage.write({key("acme"): 5, key("beta"): 6})
    usage.aggregate()
    alice, bob = (Ruling(Decision.ACCEPT, name, f"says {name}", approvals=2) for name in ("alice", "bob"))
    decide(usage.client, usage.conn, alice, "usage", date=YESTERDAY)
    usage.write({key("beta"): 4})
    decide(usage.client, usage.conn, bob, "usage", key=raw(key("beta")))
    (cause,) = causes.find(usage.conn)
    assert cause.proposals == (
        causes.Proposed("alice", 1, 100, 5, "says alice"),
        causes.Proposed("bob", 1, 200, 4, "says bob"),
    )
