"""What may take usage from Redis before it is read is said: keys that are evicted, or do not live long enough."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from psycopg import Connection

from local.servers import Valkey
from merchant_usage.alerts.collect import gather_risks
from merchant_usage.model.risk import Risk, RiskKind, ServerState, SourceState
from merchant_usage.model.run import Plan, Run
from merchant_usage.sink.source import known_servers, remember_servers
from merchant_usage.source.memory import server_states
from merchant_usage.steps.preview import preview
from merchant_usage.steps.scan import scan
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw, settings

WEEK = 7 * 24 * 3600
JUNK = "x" * 10_000


@pytest.fixture(scope="module")
def evicting_server(server_folder: Path) -> Iterator[Valkey]:
    """A Redis with little memory that evicts what has a TTL."""
    config = ["appendonly no", "maxmemory 8mb", "maxmemory-policy volatile-lru"]
    with Valkey(server_folder / "evicting-valkey", extra_config=config) as server:
        yield server


@pytest.fixture
def evicting(evicting_server: Valkey, database: Connection) -> Iterator[Usage]:
    """Verbs for it; it is empty, and has evicted nothing as far as it knows."""
    with redis.Redis.from_url(evicting_server.url) as client:
        client.flushall()
        client.config_resetstat()
        yield Usage(client, database, count(1))


def evict(usage: Usage) -> int:
    """Fill its memory with what is none of ours; returns how many keys it has evicted in all."""
    for number in range(2000):
        usage.client.set(f"junk {number}", JUNK, ex=WEEK)
    usage.client.delete(*(f"junk {number}" for number in range(2000)))  # else any request may evict some more
    return evicted(usage)


def evicted(usage: Usage) -> int:
    stats: Any = usage.client.info("stats")
    return int(stats["evicted_keys"])


def risks(usage: Usage, *dates: dt.date, **changes: Any) -> dict[RiskKind, str]:
    """What a scan finds."""
    run = Run(usage.new_run_id(), "manual", dates or (YESTERDAY,), NOW)
    plan, _ = scan(usage.client, usage.conn, run, settings(**changes))
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert plan.source is not None
    return {risk.kind: risk.seen for risk in plan.source.risks}


def test_keys_evicted_since_the_run_before_are_said(evicting: Usage, logged: list[str]) -> None:
    evicting.write({key("acme"): 1})
    evicting.aggregate()
    assert not any("has evicted" in sentence for sentence in logged)
    number = evict(evicting)
    assert number > 0
    # A dry run, and one that does not come to its end, leave it for the next.
    preview(evicting.client, evicting.conn, Run("dry", "manual", (YESTERDAY,), NOW), settings())
    assert re.search(rf"127.0.0.1:\d+ has evicted {number:,} keys", risks(evicting)[RiskKind.EVICTED])
    evicting.aggregate()
    assert any(f"at risk: 127.0.0.1:{evicting_port(evicting)} has evicted {number:,} keys" in said for said in logged)
    assert RiskKind.EVICTED not in risks(evicting)
    (known,) = known_servers(evicting.conn).values()
    assert known.evicted_keys == number


def evicting_port(usage: Usage) -> int:
    return int(usage.client.connection_pool.connection_kwargs["port"])


def test_a_server_that_was_started_anew_counts_from_zero(evicting: Usage) -> None:
    evicting.write({key("acme"): 1})
    evicting.aggregate()
    evicting.conn.execute("UPDATE usage_source SET redis_run_id = 'before', evicted_keys = 1000000")
    assert RiskKind.EVICTED not in risks(evicting)
    number = evict(evicting)
    assert f"has evicted {number:,} keys" in risks(evicting)[RiskKind.EVICTED]


def test_a_policy_that_may_evict_is_said(evicting: Usage) -> None:
    evicting.write({key("acme"): 1})
    assert "(volatile-lru) evicts usage keys when memory is full" in risks(evicting)[RiskKind.MAY_EVICT]
    evicting.client.config_set("maxmemory-policy", "noeviction")
    assert RiskKind.MAY_EVICT not in risks(evicting)
    evicting.client.config_set("maxmemory-policy", "volatile-lru")
    evicting.client.config_set("maxmemory", 0)
    assert RiskKind.MAY_EVICT not in risks(evicting)
    evicting.client.config_set("maxmemory", "8mb")


def test_keys_without_a_ttl_are_said(usage: Usage) -> None:
    usage.write({key(f"m{n}"): n for n in range(20)})
    for n in range(19):
        usage.client.expire(raw(key(f"m{n}")), WEEK)
    assert risks(usage) == {
        RiskKind.WITHOUT_TTL: "1 of 20 usage keys that were looked at have no TTL, such as m19 queries of 2026-11-23. "
        "They stay until memory is full."
    }
    usage.client.expire(raw(key("m19")), WEEK)
    assert risks(usage) == {}


def test_keys_that_expire_before_the_next_run_are_said_of_days_that_grow(usage: Usage) -> None:
    usage.write({key("acme", TODAY): 1, key("old", YESTERDAY): 1})
    usage.client.expire(raw(key("acme", TODAY)), 1800)
    # Of a day that is over all was counted: its keys may go once they are read.
    usage.client.expire(raw(key("old", YESTERDAY)), 1800)
    found = risks(usage, TODAY, YESTERDAY)
    assert list(found) == [RiskKind.SHORT_TTL]
    assert found[RiskKind.SHORT_TTL].startswith(
        "1 of 2 usage keys that were looked at live for less than the 60 minutes"
    )
    assert "acme queries of 2026-11-24" in found[RiskKind.SHORT_TTL]
    assert risks(usage, TODAY, interval_ms=900_000) == {}


def test_a_run_of_some_merchants_does_not_look(usage: Usage) -> None:
    usage.write({key("acme"): 1})
    plan, _ = scan(usage.client, usage.conn, Run("r", "manual", (YESTERDAY,), NOW, ("acme",)), settings())
    assert plan.source is None


def test_who_may_not_ask_is_not_bothered(usage: Usage, valkey: Valkey, logged: list[str]) -> None:
    usage.write({key("acme"): 1})
    rights = ["~usage:*", "+scan", "+mget", "+get", "+type"]
    usage.client.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">word", *rights)
    try:
        with redis.Redis.from_url(re.sub("//.*@", "//reader:word@", valkey.url)) as client:
            reader = Usage(client, usage.conn, count(1))
            assert server_states(client) == []
            assert risks(reader) == {}
            assert reader.verdicts(reader.aggregate()) == {YESTERDAY: "verified"}
    finally:
        usage.client.execute_command("ACL", "DELUSER", "reader")
    assert not any("at risk" in sentence for sentence in logged)
    assert known_servers(usage.conn) == {}


def test_servers_long_gone_are_forgotten(database: Connection) -> None:
    one, other = ServerState("a:1", "x", 5), ServerState("b:1", "y", 7)
    remember_servers(database, [one, other], NOW)
    assert known_servers(database) == {"a:1": one, "b:1": other}
    remember_servers(database, [one._replace(evicted_keys=9)], NOW + dt.timedelta(days=31))
    assert known_servers(database) == {"a:1": one._replace(evicted_keys=9)}
    # A run that began before saw less.
    remember_servers(database, [one], NOW)
    assert known_servers(database) == {"a:1": one._replace(evicted_keys=9)}
    remember_servers(database, [], NOW)


def test_a_danger_is_told_once_while_it_lasts(database: Connection) -> None:
    evicts = Risk(RiskKind.MAY_EVICT, "the maxmemory-policy of a:1 (allkeys-lru) evicts usage keys.")
    short = Risk(RiskKind.SHORT_TTL, "1 of 2 usage keys live too short.")

    def told(*found: Risk, hours: int) -> list[str]:
        now = NOW + dt.timedelta(hours=hours)
        return [each.alert.what for each in gather_risks(database, SourceState((), found), "r", now)]

    assert told(evicts, hours=0) == ["The maxmemory-policy of a:1 (allkeys-lru) evicts usage keys."]
    assert told(evicts, short, hours=1) == ["1 of 2 usage keys live too short."]
    assert told(evicts, hours=2) == []
    assert told(evicts, short, hours=3) == [], "what comes and goes is told once a day"
    assert told(evicts, hours=100) == []
    assert told(evicts, short, hours=101) == ["1 of 2 usage keys live too short."]
    assert gather_risks(database, None, "r", NOW) == []
