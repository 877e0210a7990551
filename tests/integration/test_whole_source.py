"""A server that holds only a part of the counters, or a copy of them, is refused before anything is read or written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis

from local.servers import Postgres, Sentinel, Valkey, free_port
from merchant_usage.connections import postgres_from_url, redis_from_url
from merchant_usage.errors import PostgresUnavailable, RedisRefused, RedisUnavailable, UsageError
from merchant_usage.model.run import Attempt
from merchant_usage.sink import ledger, schema
from merchant_usage.source.server import require_whole_source
from tests.integration.test_command_line import DAY
from tests.support import NOW, PROJECT, Usage, key

#: What reads counters, and so needs all of them.
READERS = {
    "aggregate": ["aggregate", "--date", str(DAY)],
    "dry run": ["aggregate", "--date", str(DAY), "--dry-run"],
    "verify": ["verify", "--date", str(DAY)],
    "status": ["status", str(DAY), "--live"],
}
CLUSTER = "The usage_redis connection points to one node of a Redis Cluster"
SENTINEL = "The usage_redis connection points to a Redis Sentinel"
REPLICA = "The usage_redis connection points to a replica"


@pytest.fixture(scope="module")
def node(server_folder: Path) -> Iterator[Valkey]:
    """A node that has some of a cluster's slots."""
    lines = ["appendonly no", "cluster-enabled yes", f"cluster-port {free_port()}"]
    with Valkey(server_folder / "node-of-a-cluster", extra_config=lines) as server:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8000)
        yield server


@pytest.fixture(scope="module")
def replica(valkey: Valkey) -> Iterator[Valkey]:
    with Valkey(extra_config=[f"replicaof 127.0.0.1 {valkey.port}", f"masterauth {valkey.password}"]) as server:
        yield server


def run(database_url: str, redis_url: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "USAGE_REDIS_URL": redis_url, "USAGE_POSTGRES_URL": database_url}
    return subprocess.run(
        [sys.executable, "-m", "merchant_usage", *command],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@dataclass
class Refused:
    """A reader's way with a server: it says one sentence, and nothing is stored."""

    usage: Usage
    database_url: str

    def by(self, redis_url: str, command: Sequence[str], sentence: str) -> None:
        self.usage.write({key("acme", DAY): 5})
        ended = run(self.database_url, redis_url, command)
        assert ended.returncode == 3, ended.stderr
        (error,) = re.findall("^error: (.*)", ended.stderr, re.MULTILINE)
        assert error.startswith(sentence)
        assert self.usage.rows() == {}
        assert not {verdict for (verdict,) in self.usage.conn.execute("SELECT verdict FROM usage_run")} - {None}


@pytest.fixture
def refused(usage: Usage, database_url: str) -> Refused:
    return Refused(usage, database_url)


@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_every_reader_refuses_a_node_of_a_cluster(refused: Refused, node: Valkey, command: list[str]) -> None:
    refused.by(node.url, command, CLUSTER)


@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_every_reader_refuses_a_replica(refused: Refused, replica: Valkey, command: list[str]) -> None:
    refused.by(replica.url, command, REPLICA)


@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_every_reader_refuses_a_sentinel(refused: Refused, sentinel: Sentinel, command: list[str]) -> None:
    refused.by(sentinel.url, command, SENTINEL)
    # One that is asked as a node of a cluster is none.
    refused.by(
        f"{sentinel.url}?cluster=true", command, "The usage_redis connection says `cluster`, but the server is no"
    )


def refusal(server: Valkey | Sentinel, user: str = "") -> UsageError:
    url = server.url.replace(f":{server.password}@", user) if user else server.url
    with redis_from_url({"USAGE_REDIS_URL": url}) as client, pytest.raises(UsageError) as raised:
        require_whole_source(client, "usage")
    return raised.value


def test_what_can_pass_heals(node: Valkey, replica: Valkey) -> None:
    assert type(refusal(node)) is RedisRefused
    assert not refusal(node).heals
    assert type(refusal(replica)) is RedisUnavailable
    assert refusal(replica).heals


def test_sentinel_tells_where_the_primary_is(sentinel: Sentinel, valkey: Valkey) -> None:
    assert type(refusal(sentinel)) is RedisRefused
    assert str(refusal(sentinel)) == (
        "The usage_redis connection points to a Redis Sentinel, which holds no counters. Point it to the primary that "
        f"it watches: usage is at 127.0.0.1:{valkey.port}."
    )


class Reticent(Valkey):
    """Knows some commands by no name. Without HELLO only the older protocol is to be had."""

    def __init__(self, hidden: Sequence[str], config: Sequence[str] = ()) -> None:
        renamed = [f'rename-command {name} ""' for name in hidden]
        super().__init__(extra_config=["appendonly no", *renamed, *config])

    @property
    def url(self) -> str:
        return f"{super().url}?protocol=2"


@pytest.mark.parametrize("hidden", [(), ("HELLO",), ("INFO",), ("HELLO", "INFO")], ids=" and ".join)
def test_node_of_a_cluster_is_known_whatever_command_is_renamed(hidden: Sequence[str]) -> None:
    cluster = ["cluster-enabled yes", f"cluster-port {free_port()}"]
    with Reticent(hidden, cluster) as server:
        assert str(refusal(server)).startswith(CLUSTER)


@pytest.mark.parametrize("hidden", [(), ("HELLO",), ("INFO",)], ids=" and ".join)
def test_replica_is_known_whatever_command_is_renamed(valkey: Valkey, hidden: Sequence[str]) -> None:
    primary = [f"replicaof 127.0.0.1 {valkey.port}", f"masterauth {valkey.password}"]
    with Reticent(hidden, primary) as server:
        assert str(refusal(server)).startswith(REPLICA)


def test_server_that_says_nothing_of_itself_is_read(usage: Usage) -> None:
    with Reticent(("HELLO", "INFO")) as server, redis_from_url({"USAGE_REDIS_URL": server.url}) as client:
        client.set("usage:acme:2026-11-23:queries", 7)  # type: ignore[union-attr]  # one server
        read = Usage(client, usage.conn, usage._numbers)  # type: ignore[arg-type]  # one server, no cluster
        assert set(read.verdicts(read.aggregate()).values()) == {"verified"}
        assert read.rows() == {key("acme"): 7}


@pytest.mark.parametrize("prefix", ["usage", "{usage}"])
def test_user_of_few_rights_learns_it_too(node: Valkey, replica: Valkey, prefix: str) -> None:
    for server, sentence in ((node, CLUSTER), (replica, REPLICA)):
        with redis.Redis.from_url(server.url) as admin:
            rights = ("+scan", "+mget", "+get", "+type")
            admin.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">word", f"~{prefix}:*", *rights)
        assert str(refusal(server, "reader:word@")).startswith(sentence)


def test_server_that_fails_over_between_two_steps_is_refused(usage: Usage, replica: Valkey) -> None:
    """What was scanned on the primary is not read from a copy, nor proven by one."""
    usage.write({key("acme"): 5})
    stored = usage.store_only()
    with redis.Redis.from_url(replica.url) as client:
        other = Usage(client, usage.conn, usage._numbers)
        with pytest.raises(RedisUnavailable, match=REPLICA):
            other.prove(stored)
    assert usage.ledger(stored.plan.run_id)[stored.plan.scopes[0].date][0] is None


@pytest.fixture(scope="module")
def standby(server_folder: Path) -> Iterator[str]:
    """A PostgreSQL that takes no writes, with our tables in it."""
    with Postgres(server_folder / "standby") as server:
        with psycopg.connect(server.url, autocommit=True) as conn:
            schema.migrate(conn)
        server.stop()
        (server.folder / "data" / "standby.signal").touch()
        server._complete = lambda: None  # type: ignore[method-assign]  # it would make a database
        server.start()
        yield server.url


@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_every_reader_refuses_a_standby(
    valkey: Valkey, redis_client: redis.Redis, standby: str, command: list[str]
) -> None:
    redis_client.set(f"usage:acme:{DAY}:queries", 1)
    ended = run(standby, valkey.url, command)
    assert ended.returncode == 3, ended.stderr
    assert "error: The usage_postgres connection points to a standby, which takes no writes" in ended.stderr


def test_status_and_dead_letters_are_read_from_a_standby(valkey: Valkey, standby: str) -> None:
    """They answer from the ledger, which a copy has as well."""
    for command in (["status", str(DAY)], ["dead-letters"]):
        ended = run(standby, valkey.url, command)
        assert ended.returncode == 0, ended.stderr


def test_writing_to_a_standby_is_told_as_such(standby: str) -> None:
    with (
        pytest.raises(PostgresUnavailable, match="takes no writes, because this is a standby") as raised,
        postgres_from_url({"USAGE_POSTGRES_URL": standby}) as conn,
    ):
        ledger.fail(conn, Attempt("a run", 1), "an error", NOW)
    assert raised.value.heals
