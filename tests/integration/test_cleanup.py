"""Nothing is deleted unproven: only what PostgreSQL holds to the last unit, in one atomic step."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.client import Pipeline

from local.servers import Valkey
from merchant_usage.model.dates import Scope, oldest_kept
from merchant_usage.settings import OnRegression
from merchant_usage.steps.cleanup import (
    Cleaned,
    OldDates,
    TimeToLive,
    _watch_and_delete,
    clean_up,
    delete_stale,
    inspect_ttl,
)
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw, settings

OLD = YESTERDAY - dt.timedelta(days=30)
PASSWORD = "made-up"


@pytest.fixture(params=["scripts", "no scripts"])
def client(request: pytest.FixtureRequest, valkey: Valkey, redis_client: redis.Redis) -> Iterator[redis.Redis]:
    """A user who may run scripts, and one who may not: then WATCH must do."""
    rules = ["~usage:*", "+scan", "+mget", "+get", "+type", "+del", "+watch", "+unwatch", "+multi", "+exec"]
    rules += ["+eval"] if request.param == "scripts" else []
    redis_client.execute_command("ACL", "SETUSER", "cleaner", "reset", "on", f">{PASSWORD}", *rules)
    with redis.Redis(port=valkey.port, username="cleaner", password=PASSWORD) as cleaner:
        yield cleaner
    redis_client.execute_command("ACL", "DELUSER", "cleaner")


@pytest.fixture
def stored(usage: Usage) -> Usage:
    """Old counters that are stored."""
    usage.write({key("acme", OLD): 5, key("a:b é", OLD): 6, key("acme", YESTERDAY): 7})
    usage.aggregate(OLD, YESTERDAY)
    return usage


KEYS = [key("acme", OLD), key("a:b é", OLD), key("acme", YESTERDAY)]


def in_redis(usage: Usage) -> set[bytes]:
    return {name for name in usage.client.scan_iter() if isinstance(name, bytes)}


def test_stored_keys_of_proven_dates_are_deleted(stored: Usage, client: redis.Redis) -> None:
    rows = stored.rows()
    assert delete_stale(client, stored.conn, KEYS, [OLD], "usage") == Cleaned(deleted=2, kept=0)
    assert in_redis(stored) == {raw(key("acme", YESTERDAY))}
    assert stored.rows() == rows
    assert stored.conn.execute("SELECT count(*) FROM usage_deletion").fetchone() == (0,)


def test_a_key_that_comes_back_after_it_was_deleted_is_added(stored: Usage, client: redis.Redis) -> None:
    assert delete_stale(client, stored.conn, KEYS, [OLD], "usage").deleted == 2
    stored.client.incrby(raw(key("acme", OLD)), 5000)
    assert stored.verdicts(stored.aggregate(OLD)) == {OLD: "verified"}
    assert stored.rows()[key("acme", OLD)] == 5005
    assert delete_stale(client, stored.conn, KEYS, [OLD], "usage").deleted == 1
    stored.client.incrby(raw(key("acme", OLD)), 1)
    stored.aggregate(OLD)
    assert stored.rows()[key("acme", OLD)] == 5006


@pytest.mark.parametrize(
    ("after", "value", "letters"),
    [
        pytest.param(None, 5, [], id="had been deleted"),
        pytest.param(5, 5, [], id="had not been deleted"),
        pytest.param(5000, 5000, [5], id="nobody knows"),
    ],
)
def test_a_clean_up_that_was_cut_short_is_brought_to_its_end(
    stored: Usage, after: int | None, value: int, letters: list[int]
) -> None:
    stored.conn.execute("INSERT INTO usage_deletion VALUES ('acme', %s, 'queries', 5)", [OLD])
    if after is None:
        stored.client.delete(raw(key("acme", OLD)))
    else:
        stored.write({key("acme", OLD): after})
    stored.aggregate(OLD)
    assert stored.rows()[key("acme", OLD)] == value
    # What is carried, should a person say that the counter had begun anew.
    bases = stored.conn.execute("SELECT postgres_value FROM usage_dead_letter WHERE resolved_at IS NULL").fetchall()
    assert [base for (base,) in bases] == letters
    assert stored.conn.execute("SELECT count(*) FROM usage_deletion").fetchone() == (0,)
    if after is None:
        stored.write({key("acme", OLD): 7})
        stored.aggregate(OLD)
        assert stored.rows()[key("acme", OLD)] == 12


def test_dates_that_are_not_proven_are_left(stored: Usage, client: redis.Redis) -> None:
    assert delete_stale(client, stored.conn, KEYS, [], "usage") == Cleaned()
    assert len(in_redis(stored)) == 3


def test_dry_run_tells_and_leaves(stored: Usage, client: redis.Redis) -> None:
    before = stored.everything()
    stored.write({key("acme", OLD): 5})
    assert delete_stale(client, stored.conn, KEYS, [OLD], "usage", dry_run=True) == Cleaned(deleted=2, kept=0)
    assert stored.everything() == before


@pytest.mark.parametrize("value", [6, 4, b"x", b"05"], ids=["grew", "fell", "broke", "is written in another way"])
def test_value_that_differs_survives(stored: Usage, client: redis.Redis, value: int | bytes) -> None:
    stored.write({key("acme", OLD): value})
    assert delete_stale(client, stored.conn, KEYS, [OLD], "usage") == Cleaned(deleted=1, kept=1)
    assert raw(key("acme", OLD)) in in_redis(stored)


def test_key_that_was_never_stored_survives(stored: Usage, client: redis.Redis) -> None:
    stored.write({key("new", OLD): 1})
    assert delete_stale(client, stored.conn, [key("new", OLD)], [OLD], "usage") == Cleaned(deleted=0, kept=1)
    assert raw(key("new", OLD)) in in_redis(stored)


@pytest.mark.parametrize("dry_run", [True, False], ids=["dry run", "for real"])
def test_key_of_another_type_survives_and_stops_nobody(stored: Usage, client: redis.Redis, dry_run: bool) -> None:
    stored.client.delete(raw(key("acme", OLD)))
    stored.client.rpush(raw(key("acme", OLD)), 5)
    cleaned = delete_stale(client, stored.conn, KEYS, [OLD], "usage", dry_run=dry_run)
    assert cleaned == Cleaned(deleted=1, kept=1)
    assert raw(key("acme", OLD)) in in_redis(stored)


def test_key_that_is_gone_is_no_matter(stored: Usage, client: redis.Redis) -> None:
    stored.client.delete(raw(key("acme", OLD)))
    assert delete_stale(client, stored.conn, KEYS, [OLD], "usage").deleted == 1


def test_carried_counter_is_compared_without_what_is_carried(stored: Usage, client: redis.Redis) -> None:
    stored.write({key("acme", OLD): 2})
    stored.aggregate(OLD, on_regression=OnRegression.CARRY)
    assert stored.rows()[key("acme", OLD)] == 7
    assert delete_stale(client, stored.conn, KEYS, [OLD], "usage") == Cleaned(deleted=2, kept=0)


def test_watch_sees_an_increment(stored: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    name = raw(key("acme", OLD))
    multi = Pipeline.multi

    def count_meanwhile(pipeline: Any) -> None:
        stored.client.incr(name)
        multi(pipeline)

    monkeypatch.setattr(Pipeline, "multi", count_meanwhile)
    assert not _watch_and_delete(stored.client, name, b"5")
    assert stored.client.get(name) == b"6"


def test_scan_takes_old_dates_along_only_when_clean_up_is_on(usage: Usage) -> None:
    usage.write({key("acme", OLD): 5, key("acme", YESTERDAY): 7})
    assert usage.verdicts(usage.aggregate(YESTERDAY)) == {YESTERDAY: "verified"}
    assert usage.verdicts(usage.aggregate(YESTERDAY, delete_stale_keys=True)) == {
        OLD: "verified",
        YESTERDAY: "verified",
    }
    assert usage.rows() == {key("acme", OLD): 5, key("acme", YESTERDAY): 7}
    # Never for a run that asks for some merchants.
    proof = usage.aggregate(YESTERDAY, delete_stale_keys=True, merchants=("acme",))
    assert usage.verdicts(proof) == {YESTERDAY: "verified"}


def test_day_within_the_retention_is_not_old(usage: Usage) -> None:
    oldest = YESTERDAY - dt.timedelta(days=6)
    usage.write({key("acme", oldest): 5, key("acme", oldest - dt.timedelta(days=1)): 6})
    stored = usage.store_only(YESTERDAY, delete_stale_keys=True)
    assert stored.plan.scopes == (
        Scope(oldest - dt.timedelta(days=1), settled=True),
        Scope(YESTERDAY, settled=True),
    )


@pytest.mark.parametrize("deletes", [True, False], ids=["on", "off"])
def test_only_verified_dates_past_the_retention_are_deleted_and_only_if_that_is_on(
    stored: Usage, deletes: bool
) -> None:
    chosen = settings(delete_stale_keys=deletes)
    oldest = key("acme", oldest_kept(TODAY, chosen))
    stored.write({oldest: 1})
    dates = OldDates.of([OLD, oldest.date, YESTERDAY], NOW, chosen)
    assert dates.are_among([oldest.date, TODAY])
    assert not dates.are_among([YESTERDAY, TODAY])
    done = clean_up(stored.client, stored.conn, lambda: [*KEYS, oldest], dates, chosen)
    assert in_redis(stored) == {raw(each) for each in [*KEYS, oldest] if not deletes or each.date != OLD}
    # Yesterday's key has no TTL either, but days to get one.
    assert done.to_json() == {
        "deleted": 2 if deletes else 0,
        "kept": 0,
        "without_ttl": 1 if deletes else 3,
        "expiring": 0,
    }


def test_keys_that_never_expire_or_soon_will_are_told(usage: Usage) -> None:
    usage.write({key("forever"): 1, key("lost soon"): 2, key("stored"): 3, key("young"): 4})
    usage.aggregate(merchants=("stored",))
    for name, seconds in {"lost soon": 3600, "stored": 3600, "young": 6 * 86_400}.items():
        usage.client.expire(raw(key(name)), seconds)
    names = [key(name) for name in ("forever", "lost soon", "stored", "young", "gone")]
    found = inspect_ttl(usage.client, usage.conn, names, "usage")
    assert (found.without, found.examples_without) == (1, [str(key("forever"))])
    assert (found.expiring, found.examples_expiring) == (1, [str(key("lost soon"))])
    assert inspect_ttl(usage.client, usage.conn, [], "usage") == TimeToLive()


def test_a_user_who_may_not_ask_for_a_ttl_fails_nothing(stored: Usage, client: redis.Redis) -> None:
    assert inspect_ttl(client, stored.conn, KEYS, "usage") == TimeToLive()
    assert inspect_ttl(stored.client, stored.conn, KEYS, "usage").without == len(KEYS)
