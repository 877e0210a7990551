"""Several Redis servers that are no cluster: all are scanned, and each key is asked for where it lies."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import redis
from psycopg import Connection

from local.servers import Valkey, free_port
from merchant_usage.connections import redis_from_url
from merchant_usage.driver_errors import explained
from merchant_usage.errors import RedisRefused, RedisUnavailable, SettingsError
from merchant_usage.model.dead_letter import Reason
from merchant_usage.source.counters import scan_pages
from merchant_usage.source.inventory import describe_keys
from merchant_usage.source.memory import server_states
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps import cleanup
from tests.shards import ThreeServers, three_servers
from tests.support import PROJECT, TODAY, YESTERDAY, Usage, key, raw

SECRET = "s3cret-Pa55word"


@pytest.fixture(scope="module")
def started(server_folder: Path) -> Iterator[ThreeServers]:
    with three_servers(server_folder) as three:
        yield three


@pytest.fixture
def three(started: ThreeServers) -> ThreeServers:
    """The servers, without a key."""
    for client in started.clients:
        client.flushall()
    return started


@pytest.fixture
def client(three: ThreeServers) -> Iterator[RedisClient]:
    with redis_from_url({"USAGE_REDIS_URL": three.url}) as opened:
        yield opened


@pytest.fixture
def usage(client: RedisClient, database: Connection) -> Usage:
    return Usage(client, database, count(1))  # type: ignore[arg-type]  # it does as well as one server's


def test_every_server_is_scanned_and_read(usage: Usage, three: ThreeServers) -> None:
    good = {
        key(f"m{n}", day, metric): n
        for n, day in enumerate((YESTERDAY, TODAY) * 400)
        for metric in ("queries", "bytes", "a b")
    }
    three.write(good)
    for number, server in enumerate(three.clients):
        server.set(raw(key(f"words on {number}")), "twelve")
        server.set(b"usage:%d" % number, 1)
        server.lpush(raw(key(f"list on {number}")), 1)
        server.set(raw(key(f"empty on {number}")), "")
    proof = usage.aggregate(YESTERDAY, TODAY, scan_count=10)
    assert usage.rows() == good
    assert usage.verdicts(proof) == {YESTERDAY: "verified", TODAY: "verified"}
    assert {(letter.redis_key, letter.reason) for letter in usage.letters()} == {
        found
        for number in range(3)
        for found in (
            (raw(key(f"words on {number}")), "not_an_integer"),
            (b"usage:%d" % number, "malformed_key"),
            (raw(key(f"list on {number}")), "wrong_type"),
            (raw(key(f"empty on {number}")), "not_an_integer"),
        )
    }
    before = usage.row_versions()
    usage.aggregate(YESTERDAY, TODAY)
    assert usage.row_versions() == before


def test_servers_are_scanned_at_once(client: RedisClient, three: ThreeServers) -> None:
    for number, server in enumerate(three.clients):
        server.mset({f"usage:{number}:{n}": 1 for n in range(500)})
    order = [page[0].split(b":")[1] for page in scan_pages(client, "usage", 10) if page]
    assert {*order[:10]} == {*order[-10:]} == {b"0", b"1", b"2"}


def test_growing_and_falling_counters_are_told_wherever_they_lie(usage: Usage, three: ThreeServers) -> None:
    fates = ("match", "growing", "gone", "regressed")
    of = {fate: [key(f"{fate} {n}", TODAY) for n in range(30)] for fate in fates}
    three.write(dict.fromkeys((counter for some in of.values() for counter in some), 10))
    stored = usage.store_only(TODAY)
    three.write(dict.fromkeys(of["growing"], 11))
    three.write(dict.fromkeys(of["regressed"], 9))
    for counter in of["gone"]:
        three.clients[three.owner(counter)].delete(raw(counter))
    (report,) = usage.prove(stored).reports
    assert report.keys == {"match": 30, "growing": 30, "regressed": 60}
    assert {letter.redis_key for letter in usage.letters()} == set(map(raw, of["regressed"] + of["gone"]))


def addresses(three: ThreeServers) -> list[str]:
    return [f"127.0.0.1:{server.port}" for server in three.servers]


@pytest.mark.parametrize("second", [3, 7], ids=["another value", "the same value"])
@pytest.mark.parametrize("date", [YESTERDAY, TODAY], ids=["over", "live"])
def test_a_counter_on_two_servers_is_never_summed(
    usage: Usage, three: ThreeServers, second: int, date: dt.date
) -> None:
    """Nobody knows whether one is a copy of the other, or both are parts: its date waits, and the others do not."""
    twice, single = key("twice", date), key("single", date)
    three.clients[0].set(raw(twice), 7)
    three.clients[2].set(raw(twice), second)
    three.write({single: 1})
    proof = usage.aggregate(date)
    assert usage.rows() == {single: 1}
    assert usage.verdicts(proof) == {date: "mismatch"}
    (letter,) = usage.letters()
    first, _, last = addresses(three)
    detail = f"it is on more than one server: '7' on {first}, '{second}' on {last}"
    assert letter[:4] == (raw(twice), Reason.ON_TWO_SERVERS, detail, date)

    three.clients[2].delete(raw(twice))
    proof = usage.aggregate(date)
    assert usage.rows() == {single: 1, twice: 7}
    assert usage.verdicts(proof) == {date: "verified"}
    assert [letter.resolved for letter in usage.letters()] == [True]


def test_a_counter_that_appears_on_a_second_server_stays_as_it_is_stored(usage: Usage, three: ThreeServers) -> None:
    counter = key("acme")
    three.clients[0].set(raw(counter), 7)
    usage.aggregate()
    three.clients[1].set(raw(counter), 9)
    assert usage.verdicts(usage.aggregate()) == {YESTERDAY: "mismatch"}
    assert usage.rows() == {counter: 7}
    assert [letter.reason for letter in usage.letters()] == [Reason.ON_TWO_SERVERS]


def test_a_counter_that_appears_on_a_second_server_before_it_is_verified(usage: Usage, three: ThreeServers) -> None:
    counter = key("acme")
    three.clients[0].set(raw(counter), 7)
    stored = usage.store_only()
    three.clients[1].set(raw(counter), 7)
    assert usage.verdicts(usage.prove(stored)) == {YESTERDAY: "mismatch"}
    assert [letter.reason for letter in usage.letters()] == [Reason.ON_TWO_SERVERS]


OLD = YESTERDAY - dt.timedelta(days=20)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_stale_keys_are_deleted_where_they_lie(usage: Usage, three: ThreeServers, scripts: bool) -> None:
    keys = [key(f"m{n}", OLD) for n in range(60)]
    three.write(dict.fromkeys(keys, 5))
    usage.aggregate(OLD)
    grown, twice = keys[:6], keys[6]
    three.write(dict.fromkeys(grown, 6))
    elsewhere = (three.owner(twice) + 1) % 3
    three.clients[elsewhere].set(raw(twice), 5)
    rights = ["~*", "+@all", *([] if scripts else ["-eval"])]
    for server in three.clients:
        server.execute_command("ACL", "SETUSER", "cleaner", "reset", "on", f">{SECRET}", *rights)
    url = ",".join(f"redis://cleaner:{SECRET}@{address}" for address in addresses(three))
    with redis_from_url({"USAGE_REDIS_URL": url}) as client:
        assert cleanup.delete_stale(client, usage.conn, keys, [OLD], "usage", dry_run=True).deleted == 53
        cleaned = cleanup.delete_stale(client, usage.conn, keys, [OLD], "usage")
    assert (cleaned.deleted, cleaned.kept) == (53, 7)
    assert three.everything() == {**dict.fromkeys(map(raw, grown), 1), raw(twice): 2}


def test_keys_without_a_ttl_are_found_on_every_server(usage: Usage, three: ThreeServers) -> None:
    keys = [key(f"m{n}") for n in range(30)]
    three.write(dict.fromkeys(keys, 5))
    for counter in keys[:10]:
        three.clients[three.owner(counter)].expire(raw(counter), 60)
    found = cleanup.inspect_ttl(usage.client, usage.conn, keys, "usage")
    assert (found.without, found.expiring) == (20, 10)


def test_every_server_tells_its_memory_and_its_keys(client: RedisClient, three: ThreeServers) -> None:
    three.clients[2].set("another", 1)
    assert [state.server for state in server_states(client)] == addresses(three)
    assert describe_keys(client) == "database 0 holds 1 key"


def test_one_that_is_down_fails_the_run(usage: Usage, three: ThreeServers) -> None:
    three.write({key(f"m{n}"): n for n in range(90)})
    port = free_port()
    url = f"{three.url},redis://:{SECRET}@127.0.0.1:{port}/0"
    with redis_from_url({"USAGE_REDIS_URL": url}) as client:
        usage.client = client  # type: ignore[assignment]  # as above
        with pytest.raises(redis.exceptions.ConnectionError, match=f"127.0.0.1:{port}") as raised:
            usage.aggregate(run_id="one is down")
    assert SECRET not in str(raised.value)
    assert usage.rows() == {}
    assert {verdict for verdict, _ in usage.ledger("one is down").values()} != {"verified"}


def test_one_that_goes_away_between_two_pages_fails_the_run(server_folder: Path) -> None:
    with three_servers(server_folder / "short-lived") as short_lived:
        for number, server in enumerate(short_lived.clients):
            server.mset({f"usage:{number}:{n}": 1 for n in range(500)})
        with redis_from_url({"USAGE_REDIS_URL": short_lived.url}) as client, explained():
            pages = scan_pages(client, "usage", 10)
            next(pages)
            short_lived.servers[1].stop()
            gone = f"127.0.0.1:{short_lived.servers[1].port}"
            with pytest.raises(redis.exceptions.ConnectionError, match=gone):
                list(pages)


@pytest.mark.parametrize("kind", ["node", "replica"])
def test_each_must_be_whole(three: ThreeServers, server_folder: Path, kind: str) -> None:
    as_node = ["cluster-enabled yes", f"cluster-port {free_port()}"]
    config = as_node if kind == "node" else [f"replicaof 127.0.0.1 {three.servers[0].port}"]
    with Valkey(server_folder / f"shard-{kind}", extra_config=["appendonly no", *config]) as other:
        url = f"{three.url},{other.url}"
        error = RedisRefused if kind == "node" else RedisUnavailable
        with redis_from_url({"USAGE_REDIS_URL": url}) as client:
            pages = scan_pages(client, "usage", 10)
            with pytest.raises(error, match=f"^127.0.0.1:{other.port}: The usage_redis connection points to"):
                list(pages)


def test_one_server_under_two_names_is_refused(three: ThreeServers) -> None:
    """All of its keys would be on two servers."""
    url = f"{three.url},{three.servers[1].url.replace('127.0.0.1', 'localhost')}"
    port = three.servers[1].port
    with redis_from_url({"USAGE_REDIS_URL": url}) as client:
        pages = scan_pages(client, "usage", 10)
        with pytest.raises(RedisRefused, match=f"127.0.0.1:{port} and localhost:{port} are one server"):
            list(pages)


def test_two_databases_of_a_server_are_two(three: ThreeServers) -> None:
    """Of applications that shard by database."""
    url = three.servers[0].url
    with redis_from_url({"USAGE_REDIS_URL": f"{url}, {url.removesuffix('0')}1"}) as client:
        assert [*scan_pages(client, "usage", 10)] == [[], []]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://:{s}@a:1/0,redis://:{s}@a:1/0", "it names a:1 twice"),
        ("redis://:{s}@a:1/2,redis://:{s}@b:1,redis://u@a:1?db=2", "it names a:1/2 twice"),
        ("redis://a:1,redis://:{s}@b:1/0?cluster=true", "it names several servers, and b:1 says that it is a cluster"),
        ("redis://:{s}@a:1/0,", ""),
        ("redis://:{s}@a:1/0,b:1", ""),
        (",redis://:{s}@a:1/0", ""),
    ],
)
def test_urls_that_do_not_fit_together(url: str, why: str) -> None:
    opened = redis_from_url({"USAGE_REDIS_URL": url.format(s=SECRET)})
    with pytest.raises(SettingsError, match=r"^USAGE_REDIS_URL is not a URL that can be used") as raised:
        opened.__enter__()
    assert str(raised.value).endswith(why)
    assert SECRET not in str(raised.value)


def test_a_comma_in_a_password_separates_nothing(three: ThreeServers) -> None:
    three.clients[0].execute_command("ACL", "SETUSER", "comma", "reset", "on", ">a,b", "~*", "+@all")
    with redis_from_url({"USAGE_REDIS_URL": f"redis://comma:a,b@{addresses(three)[0]}"}) as client:
        assert isinstance(client, redis.Redis)
        assert client.ping()


def test_command_line_on_three_servers(usage: Usage, three: ThreeServers, database_url: str) -> None:
    counters = {key(f"m{n}"): n for n in range(90)}
    three.write(counters)
    for command in (["aggregate"], ["verify"]):
        done = subprocess.run(
            [sys.executable, "-m", "merchant_usage", *command, "--date", str(YESTERDAY), "--json"],
            cwd=PROJECT,
            env={**os.environ, "USAGE_REDIS_URL": three.url, "USAGE_POSTGRES_URL": database_url},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["dates"][0]["verdict"] == "verified"
    assert usage.rows() == counters
