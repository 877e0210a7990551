"""A cluster at rest: everything that one server's counters go through, on three primaries."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack

import pytest

from local.connections import redis_connection
from merchant_usage.connections import redis_from_url
from merchant_usage.driver_errors import explained
from merchant_usage.errors import RedisRefused, UsageMismatch
from merchant_usage.model.dead_letter import DeadLetter, Reason
from merchant_usage.sink.source import known_servers
from merchant_usage.source import cluster, counters, memory
from merchant_usage.source.counters import scan_pages
from merchant_usage.steps import cleanup
from tests.cluster.servers import Cluster
from tests.cluster.usage import ClusterUsage
from tests.support import PROJECT, TODAY, TOMORROW, YESTERDAY, key, raw

# What must lie on each node, so that a test means all of them.
SOME = 300


def test_everything_is_stored_from_every_primary(usage: ClusterUsage, steady: Cluster) -> None:
    good = {
        key(merchant, day, metric): n
        for n, (merchant, day, metric) in enumerate(
            (merchant, day, metric)
            for merchant in [*(f"m{n}" for n in range(SOME)), "{a}", "{}", "x{a}y", "}{", "a:b", "é", "a b"]
            for day in (YESTERDAY, TODAY)
            for metric in ("queries", "{b}", "bytes")
        )
    }
    usage.write(good)
    bad = {
        raw(key("words")): (b"twelve", Reason.NOT_AN_INTEGER),
        raw(key("{a}", metric_type="minus")): (b"-1", Reason.NEGATIVE),
        raw(key("huge")): (b"9223372036854775808", Reason.OUT_OF_RANGE),
        b"usage:{nothing}": (b"1", Reason.MALFORMED_KEY),
        b"usage:\xff:2026-11-24:queries": (b"1", Reason.MALFORMED_KEY),
        b"usage:acme:2026-02-30:queries": (b"1", Reason.BAD_DATE),
        raw(key("acme", TOMORROW)): (b"1", Reason.FUTURE_DATE),
    }
    for name, (value, _) in bad.items():
        usage.client.set(name, value)
    wrong_types = [raw(key(merchant)) for merchant in ("list", "{a}list", "another list")]
    for name in wrong_types:
        usage.client.lpush(name, 1)
    proof = usage.aggregate(YESTERDAY, TODAY, scan_count=10)
    assert all(primary.client.dbsize() > SOME for primary in steady.primaries)
    assert usage.rows() == good
    assert usage.verdicts(proof) == {YESTERDAY: "verified", TODAY: "verified"}
    assert {letter.redis_key: letter.reason for letter in usage.letters()} == {
        **{name: str(reason) for name, (_, reason) in bad.items()},
        **dict.fromkeys(wrong_types, str(Reason.WRONG_TYPE)),
    }
    before = usage.row_versions()
    usage.aggregate(YESTERDAY, TODAY, run_id="again")
    assert usage.row_versions() == before


def test_every_verdict_on_every_primary(usage: ClusterUsage) -> None:
    """Each fate is met by 30 merchants, wherever their slots are. What is gone on a live day has fallen to nothing."""
    fates = ("match", "growing", "gone", "regressed")
    of = {fate: [key(f"{fate} {n}", TODAY) for n in range(30)] for fate in fates}
    usage.write(dict.fromkeys((counter for some in of.values() for counter in some), 10))
    stored = usage.store_only(TODAY)
    usage.write(dict.fromkeys(of["growing"], 11))
    usage.write(dict.fromkeys(of["regressed"], 9))
    for counter in of["gone"]:
        usage.client.delete(raw(counter))
    (report,) = usage.prove(stored).reports
    assert report.keys == {"match": 30, "growing": 30, "regressed": 60}
    assert {letter.redis_key for letter in usage.letters()} == set(map(raw, of["regressed"] + of["gone"]))


def test_missing_and_behind_are_named(usage: ClusterUsage) -> None:
    usage.write({key(f"m{n}"): 10 for n in range(30)})
    stored = usage.store_only()
    usage.conn.execute("DELETE FROM merchant_usage WHERE merchant_id = 'm7'")
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 9 WHERE merchant_id = 'm8'")
    with pytest.raises(UsageMismatch) as raised:
        usage.prove(stored)
    assert raised.value.total == 2
    assert "Redis has 10, PostgreSQL has no row, this run read 10 (missing)" not in str(raised.value)
    assert "Redis has 10, PostgreSQL has no row (missing)" in str(raised.value)
    assert "Redis has 10, PostgreSQL has 9 (behind)" in str(raised.value)


def test_stale_keys_are_deleted_only_as_they_were_proven(usage: ClusterUsage) -> None:
    old = YESTERDAY - dt.timedelta(days=20)
    keys = [key(f"m{n}", old) for n in range(60)]
    usage.write(dict.fromkeys(keys, 5))
    usage.aggregate(old)
    grown = keys[:6]
    usage.write(dict.fromkeys(grown, 6))
    assert cleanup.delete_stale(usage.client, usage.conn, keys, [old], "usage", dry_run=True).deleted == 54
    cleaned = cleanup.delete_stale(usage.client, usage.conn, keys, [old], "usage")
    assert (cleaned.deleted, cleaned.kept) == (54, 6)
    assert [counter for counter in keys if usage.client.exists(raw(counter))] == grown


def test_keys_without_a_ttl_are_found(usage: ClusterUsage) -> None:
    keys = [key(f"m{n}") for n in range(30)]
    usage.write(dict.fromkeys(keys, 5))
    for counter in keys[:10]:
        usage.client.expire(raw(counter), 60)
    found = cleanup.inspect_ttl(usage.client, usage.conn, keys, "usage")
    assert (found.without, found.expiring) == (20, 10)


def test_primaries_are_scanned_at_once(usage: ClusterUsage, steady: Cluster) -> None:
    usage.write({key(f"m{n}"): 1 for n in range(3 * SOME)})
    pages = scan_pages(usage.client, "usage", 10)
    filled = [page for page in pages if page]
    order = [steady.primaries.index(steady.owner(page[0])) for page in filled]
    assert {*order[:10]} == {*order[-10:]} == {0, 1, 2}


def test_scan_that_is_given_up_leaves_no_connection(usage: ClusterUsage, steady: Cluster) -> None:
    def connections() -> int:
        return sum(len(primary.client.client_list()) for primary in steady.primaries)

    before = connections()
    pages = scan_pages(usage.client, "usage", 10)
    next(pages)
    assert connections() == before + 3
    pages.close()
    assert connections() == before


def test_replicas_are_never_read(usage: ClusterUsage, steady: Cluster) -> None:
    for node in steady.nodes:
        node.client.config_resetstat()
    usage.write({key(f"m{n}"): 1 for n in range(SOME)})
    usage.aggregate()
    read = {"cmdstat_get", "cmdstat_scan", "cmdstat_type"}
    assert all(read & {*node.client.info("commandstats")} for node in steady.primaries)
    assert not any(read & {*node.client.info("commandstats")} for node in steady.replicas)


NEEDED = ["command", "cluster|slots", "cluster|nodes", "scan", "get", "type"]


@pytest.mark.parametrize(
    ("allowed", "missing"),
    [
        pytest.param(NEEDED, None, id="all that is needed"),
        pytest.param([*NEEDED, "info"], None, id="and info"),
        *(
            pytest.param([name for name in NEEDED if name != missing], missing, id=f"no {missing}")
            for missing in NEEDED
            if missing != "cluster|slots"  # then redis-py takes it for no cluster
        ),
    ],
)
def test_what_a_user_of_the_cluster_must_be_allowed(
    usage: ClusterUsage, steady: Cluster, allowed: list[str], missing: str | None
) -> None:
    usage.write({key(f"m{n}"): 1 for n in range(SOME)})
    usage.client.lpush(raw(key("list")), 1)
    for primary in steady.primaries:
        primary.client.execute_command(
            "ACL", "SETUSER", "reader", "reset", "on", ">word", "~usage:*", *(f"+{name}" for name in allowed)
        )
    url = steady.url.replace(f":{steady.primaries[0].password}@", "reader:word@")
    try:
        with ExitStack() as stack:
            if missing is not None:
                stack.enter_context(pytest.raises(RedisRefused, match=f"permissions to run the '{re.escape(missing)}'"))
            stack.enter_context(explained())
            client = stack.enter_context(redis_from_url({"USAGE_REDIS_URL": url}))
            proof = ClusterUsage(client, usage.conn, usage._numbers).aggregate()  # type: ignore[arg-type]
            assert usage.verdicts(proof) == {YESTERDAY: "verified"}
    finally:
        for primary in steady.primaries:
            primary.client.execute_command("ACL", "DELUSER", "reader")


def test_command_line_on_a_cluster(usage: ClusterUsage, steady: Cluster, database_url: str) -> None:
    usage.write({key(f"m{n}"): 1 for n in range(SOME)})
    command = [sys.executable, "-m", "merchant_usage", "aggregate", "--date", str(YESTERDAY), "--json"]
    environment = {**os.environ, "USAGE_REDIS_URL": steady.url, "USAGE_POSTGRES_URL": database_url}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["dates"][0]["verdict"] == "verified"
    assert len(usage.rows()) == SOME


def test_airflow_connection_of_a_cluster(usage: ClusterUsage, steady: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    from merchant_usage.orchestration.connections import usage_redis

    usage.write({key(f"m{n}"): 1 for n in range(SOME)})
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_REDIS", redis_connection(steady.url))
    with usage_redis() as client:
        ClusterUsage(client, usage.conn, usage._numbers).aggregate()  # type: ignore[arg-type]
    assert len(usage.rows()) == SOME


@pytest.mark.parametrize("may_ask_for_beginnings", [True, False])
def test_huge_names_and_values_are_cut(
    usage: ClusterUsage, monkeypatch: pytest.MonkeyPatch, may_ask_for_beginnings: bool
) -> None:
    good = {key(f"m{n}"): n for n in range(SOME)}
    usage.write(good)
    names = [b"usage:" + b"x" * (9 * 2**20) + b"%d" % n for n in range(4)]
    for name in names:
        usage.client.set(name, 1)
    bad = {key(f"huge{n}"): b"9" * (9 * 2**20) for n in range(4)} | {key("empty"): b""}
    usage.write(bad)
    if not may_ask_for_beginnings:
        monkeypatch.setattr(cluster, "_WITHOUT_GETRANGE", {usage.client})
    longest: list[int] = []
    parse_value = counters.parse_value

    def parsing(key: bytes, value: bytes) -> int | DeadLetter:
        longest.append(len(value))
        return parse_value(key, value)

    monkeypatch.setattr(counters, "parse_value", parsing)
    usage.aggregate()
    assert usage.rows() == good
    assert max(longest) <= 1024
    digests = usage.conn.execute("SELECT redis_key_sha256 FROM usage_dead_letter WHERE reason = 'malformed_key'")
    assert {digest for (digest,) in digests} == {hashlib.sha256(name).digest() for name in names}
    assert {letter.redis_key: letter.reason for letter in usage.letters() if letter.reason != "malformed_key"} == {
        **{raw(counter): "out_of_range" for counter in bad},
        raw(key("empty")): "not_an_integer",
    }


def test_each_primary_says_whether_it_evicts(usage: ClusterUsage, steady: Cluster) -> None:
    usage.write({key("acme"): 1})
    usage.aggregate()
    servers = {f"127.0.0.1:{primary.port}" for primary in steady.primaries}
    assert {state.server for state in memory.server_states(usage.client)} == servers
    assert set(known_servers(usage.conn)) == servers
