"""A cluster that is resharded or fails over while it is read: exact results or a red run, never a silent miss.

Each scan here is interrupted at a moment at which the change does the most harm: the receiving node has been
scanned, the keys that move have not been.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any

import pytest
import redis
from psycopg import Connection
from redis.crc import key_slot

from merchant_usage.connections import redis_from_url
from merchant_usage.driver_errors import explained
from merchant_usage.errors import ClusterChanged, RedisUnavailable
from merchant_usage.model.keys import CounterKey
from merchant_usage.source import cluster
from merchant_usage.source.counters import scan_pages
from merchant_usage.steps import scan
from tests.cluster.servers import QUICK_NODE_TIMEOUT_MS, Cluster, Node, add_node, wait_until
from tests.cluster.usage import ClusterUsage
from tests.support import YESTERDAY, key, raw

COUNTERS = 600


@dataclass
class World:
    """A cluster in which the first primary, the source, holds most keys: it is scanned last."""

    cluster: Cluster
    conn: Connection
    expected: dict[CounterKey, int]
    numbers: count[int]

    @property
    def source(self) -> Node:
        return self.cluster.primaries[0]

    @property
    def target(self) -> Node:
        return self.cluster.primaries[1]

    @property
    def running(self) -> Node:
        """Some node that no test kills."""
        return self.cluster.primaries[2]

    def aggregate(self) -> str:
        """A run with a client of its own, as each task of Airflow has; returns the verdict."""
        url = self.running.url + "?cluster=true&socket_timeout=2"
        with explained(), redis_from_url({"USAGE_REDIS_URL": url}) as client:
            usage = ClusterUsage(client, self.conn, self.numbers)  # type: ignore[arg-type]
            return usage.verdicts(usage.aggregate(scan_count=10))[YESTERDAY]

    def stored(self) -> dict[CounterKey, int]:
        found = self.conn.execute("SELECT merchant_id, date, metric_type, metric_value FROM merchant_usage")
        return {CounterKey(*row[:3]): row[3] for row in found}

    def assert_exact(self) -> None:
        """The next run finds all."""
        assert self.aggregate() == "verified"
        assert self.stored() == self.expected


@pytest.fixture
def world(changing: Cluster, database: Connection) -> World:
    expected = {
        counter: n + 1
        for n, counter in enumerate(map(key, map(str, range(4 * COUNTERS))))
        if changing.owner(raw(counter)) is changing.primaries[0] or n < COUNTERS // 10
    }
    expected[key("{gone astray}")] = 7
    with redis_from_url({"USAGE_REDIS_URL": changing.url}) as client:
        ClusterUsage(client, database, count(1)).write(expected)  # type: ignore[arg-type]
    changing.replicate()
    return World(changing, database, expected, count(1))


class Interrupted:
    """A scan that hears of each page, and lets things happen in between."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.seen: set[bytes] = set()
        self.before: Callable[[], Any] = lambda: None
        self.steps: list[tuple[Callable[[], bool], Callable[[], Any]]] = []
        monkeypatch.setattr(scan, "scan_pages", self._pages)

    def when(self, condition: Callable[[], bool], do: Callable[[], Any]) -> None:
        """Do this between two pages, as soon as the condition holds and all steps before have been done."""
        self.steps.append((condition, do))

    def _pages(self, *arguments: Any) -> Iterator[list[bytes]]:
        self.before()
        for page in scan_pages(*arguments):
            yield page
            self.seen.update(page)
            if self.steps and self.steps[0][0]():
                self.steps.pop(0)[1]()

    def of(self, node: Node, keys: Sequence[bytes] | set[bytes]) -> set[bytes]:
        return {name for name in keys if self.world.cluster.owner(name) is node}

    def others_are_done(self) -> bool:
        """All keys but the source's have been seen, and one page of its."""
        others = {raw(counter) for counter in self.world.expected} - self.of_source
        return others <= self.seen and bool(self.of_source & self.seen)

    @property
    def of_source(self) -> set[bytes]:
        return self.of(self.world.source, set(map(raw, self.world.expected)))

    def unseen_slot(self) -> int:
        """A slot of the source that is yet to be scanned, in the middle of those."""
        slots = sorted({key_slot(name) for name in self.of_source - self.seen})
        assert len(slots) > 20
        return slots[len(slots) // 2]


@pytest.fixture
def interrupted(world: World, monkeypatch: pytest.MonkeyPatch) -> Interrupted:
    return Interrupted(world, monkeypatch)


def is_red(world: World, error: type[RedisUnavailable] = ClusterChanged, match: str | None = None) -> None:
    """The run fails with an error that Airflow tries again, and stores nothing that is not true."""
    with pytest.raises(error, match=match) as raised:
        world.aggregate()
    assert raised.value.heals
    stored = world.stored()
    assert stored == {counter: value for counter, value in world.expected.items() if counter in stored}


def moved_by_the_server(cluster: Cluster, slot: int, source: Node, target: Node) -> None:
    """Valkey 9 moves a slot as a whole."""
    source.say("MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
    wait_until(lambda: target.owns(slot))
    cluster.agree()


@pytest.mark.parametrize(
    "move",
    [
        pytest.param(Cluster.move_slot, id="key by key"),
        pytest.param(moved_by_the_server, id="by the server"),
        pytest.param(Cluster.move_keys, id="not to the end"),
    ],
)
def test_slot_moves_to_a_node_that_has_been_scanned(
    world: World, interrupted: Interrupted, move: Callable[..., Any]
) -> None:
    moved: list[int] = []

    def reshard() -> None:
        moved.append(interrupted.unseen_slot())
        move(world.cluster, moved[0], world.source, world.target)

    interrupted.when(interrupted.others_are_done, reshard)
    is_red(world, match="resharded or failed over")
    unseen = set(map(raw, world.expected)) - interrupted.seen
    assert unseen, "the moment was wrong: nothing was missed"
    assert {key_slot(name) for name in unseen} == set(moved)
    if move is Cluster.move_keys:
        is_red(world, match=f"slot {moved[0]} is being moved")
        world.cluster.close_migration(moved[0], world.target)
    world.cluster.agree()
    world.assert_exact()


def test_keys_go_and_come_back(world: World, interrupted: Interrupted) -> None:
    """The map of the slots is the same before and after, and has been in between."""
    moved: list[int] = []

    def send() -> None:
        moved.append(interrupted.unseen_slot())
        world.cluster.move_keys(moved[0], world.source, world.target)

    def mark_unsent() -> None:
        world.source.say("SETSLOT", moved[0], "STABLE")
        assert world.cluster.send_keys(moved[0], world.target, world.source) > 0
        world.target.say("SETSLOT", moved[0], "STABLE")

    def is_past() -> bool:
        return any(key_slot(name) > moved[0] for name in interrupted.of(world.source, interrupted.seen))

    interrupted.when(interrupted.others_are_done, send)
    interrupted.when(is_past, mark_unsent)
    is_red(world, match="keys were moved from one node to another")
    unseen = set(map(raw, world.expected)) - interrupted.seen
    assert {key_slot(name) for name in unseen} == set(moved), "the moment was wrong: nothing was missed"
    world.assert_exact()


def test_slot_goes_and_comes_back(world: World, interrupted: Interrupted) -> None:
    """The same owners before and after: only the epochs tell."""

    def there_and_back() -> None:
        slot = interrupted.unseen_slot()
        moved_by_the_server(world.cluster, slot, world.source, world.target)
        moved_by_the_server(world.cluster, slot, world.target, world.source)

    interrupted.when(interrupted.others_are_done, there_and_back)
    is_red(world, match="epoch")
    world.cluster.agree()
    world.assert_exact()


def test_new_node_gets_a_slot(world: World, interrupted: Interrupted) -> None:
    """A node that nobody scans."""
    node = add_node(world.source.folder.with_name("new"), world.cluster.nodes)
    try:
        join(world.cluster, node)

        def reshard() -> None:
            world.cluster.move_slot(interrupted.unseen_slot(), world.source, node)

        interrupted.when(interrupted.others_are_done, reshard)
        is_red(world)
        world.cluster.primaries.append(node)
        world.cluster.agree()
        world.assert_exact()
    finally:
        node.close()


def join(cluster: Cluster, node: Node) -> None:
    """Let a node into the cluster, without a slot."""
    known = len(cluster.nodes) + 1
    cluster.primaries[0].say("MEET", "127.0.0.1", node.port, node.cluster_port)
    wait_until(lambda: all(len(other.ask("NODES").splitlines()) == known for other in [*cluster.nodes, node]))
    wait_until(lambda: "cluster_state:ok" in node.ask("INFO"))


def test_migration_is_open_when_the_run_begins(world: World) -> None:
    slot = key_slot(raw(key("{gone astray}")))
    source = world.cluster.owner(raw(key("{gone astray}")))
    target = next(node for node in world.cluster.primaries if node is not source)
    assert world.cluster.move_keys(slot, source, target, most=1) == 1
    is_red(world, match=f"slot {slot} is being moved")
    world.cluster.close_migration(slot, target)
    world.cluster.agree()
    world.assert_exact()


@pytest.mark.parametrize("change", ["a new node", "failover"])
def test_layout_has_changed_since_the_client_came(world: World, interrupted: Interrupted, change: str) -> None:
    """All nodes agree on an owner that this client does not know, and would not scan."""
    with ExitStack() as stack:
        if change == "failover":
            interrupted.before = lambda: world.cluster.fail_over(world.source)
        else:
            node = add_node(world.source.folder.with_name("new"), world.cluster.nodes)
            stack.callback(node.close)
            join(world.cluster, node)
            interrupted.before = lambda: world.cluster.move_slot(interrupted.unseen_slot(), world.source, node)

        def change_and_agree(how: Callable[[], Any] = interrupted.before) -> None:
            how()
            world.cluster.agree()

        interrupted.before = change_and_agree
        is_red(world, match="that was not a primary before")
        interrupted.before = lambda: None
        world.assert_exact()


def test_nodes_do_not_agree(world: World) -> None:
    """A slot that its owner gave up, which nobody else knows."""
    empty = next(slot for slot in range(5000) if world.source.say("COUNTKEYSINSLOT", slot) == 0)
    world.source.say("DELSLOTS", empty)
    is_red(world, match="do not agree on who owns which slots")
    world.source.say("ADDSLOTS", empty)
    world.cluster.agree()
    world.assert_exact()


@pytest.mark.parametrize("who", ["a primary under way", "a primary that is done"])
def test_replica_takes_over(world: World, interrupted: Interrupted, who: str) -> None:
    """The old primary answers SCAN as a replica, while it throws away what it has to take the new one's."""
    primary = world.source if who == "a primary under way" else world.target
    interrupted.when(interrupted.others_are_done, lambda: world.cluster.fail_over(primary))
    is_red(world, match="resharded or failed over")
    world.cluster.agree()
    world.assert_exact()


@pytest.mark.parametrize("who", ["a primary under way", "a primary that is done"])
def test_primary_is_killed(world: World, interrupted: Interrupted, who: str) -> None:
    primary = world.source if who == "a primary under way" else world.target
    interrupted.when(interrupted.others_are_done, primary.kill)
    is_red(world, RedisUnavailable, match=f"127.0.0.1:{primary.port}")
    is_red(world, RedisUnavailable)
    world.cluster.replace_killed(primary)
    world.assert_exact()


def test_primary_hangs(world: World, interrupted: Interrupted) -> None:
    """One node that does not answer is an error, not a shorter result."""
    interrupted.when(interrupted.others_are_done, lambda: os.kill(world.source.pid, signal.SIGSTOP))
    try:
        is_red(world, RedisUnavailable, match=f"127.0.0.1:{world.source.port}")
    finally:
        os.kill(world.source.pid, signal.SIGCONT)
    world.cluster.agree()
    world.assert_exact()


def test_primary_is_down_when_the_run_begins(world: World) -> None:
    world.source.kill()
    is_red(world, RedisUnavailable)
    assert world.stored() == {}
    world.cluster.replace_killed(world.source)
    world.assert_exact()


class Values:
    """Lets something happen just before a page of values is asked for, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[Callable[[], Any]] = []
        ask_owners = cluster._ask_owners

        def asking(*arguments: Any) -> None:
            if self.steps:
                self.steps.pop(0)()
            ask_owners(*arguments)

        monkeypatch.setattr(cluster, "_ask_owners", asking)


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> Values:
    """Runs `steps` one by one: the first before the upsert's page of values, the second before verification's."""
    return Values(monkeypatch)


@pytest.mark.parametrize("reading", [pytest.param(0, id="first"), pytest.param(1, id="second")])
def test_slot_has_moved_when_values_are_read(world: World, values: Values, reading: int) -> None:
    """The client asks the old owner, and follows: nothing is lost by that, so nothing is red."""
    slot = key_slot(raw(key("{gone astray}")))
    source = world.cluster.owner(raw(key("{gone astray}")))
    target = next(node for node in world.cluster.primaries if node is not source)
    values.steps = [lambda: None] * reading + [lambda: world.cluster.move_slot(slot, source, target)]
    world.assert_exact()
    assert not values.steps


@pytest.mark.parametrize("reading", [pytest.param(0, id="first"), pytest.param(1, id="second")])
@pytest.mark.parametrize("to", ["another primary", "a new node"])
def test_slot_is_being_moved_when_values_are_read(world: World, values: Values, to: str, reading: int) -> None:
    """Half of its keys are here and half are there: each is read where it is."""
    pair = [key("{gone astray}"), key("{gone astray}", metric_type="bytes")]
    world.expected[pair[1]] = 8
    slot, source = key_slot(raw(pair[0])), world.cluster.owner(raw(pair[0]))
    with redis.RedisCluster.from_url(world.source.url) as client:
        client.set(raw(pair[1]), 8)
    target = next(node for node in world.cluster.primaries if node is not source)
    if to == "a new node":
        target = add_node(world.source.folder.with_name("new"), world.cluster.nodes)
        join(world.cluster, target)

    def half() -> None:
        assert world.cluster.move_keys(slot, source, target, most=1) == 1

    values.steps = [lambda: None] * reading + [half]
    try:
        world.assert_exact()
        assert not values.steps
    finally:
        if to == "a new node":
            target.close()


def test_replica_takes_over_while_values_are_read(world: World, values: Values) -> None:
    values.steps = [lambda: world.cluster.fail_over(world.source)]
    world.assert_exact()
    assert not values.steps


def test_primary_is_killed_while_values_are_read(world: World, values: Values) -> None:
    """Its replica is in its place before the client's patience ends."""

    def kill() -> None:
        world.source.kill()
        world.cluster.set_node_timeout(QUICK_NODE_TIMEOUT_MS)

    values.steps = [kill]
    world.assert_exact()
    assert not values.steps


def test_primary_stays_away_while_values_are_read(
    world: World, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error, and not one key taken for gone."""
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 1)
    values.steps = [world.source.kill]
    is_red(world, RedisUnavailable, match=f"127.0.0.1:{world.source.port}")
    assert world.stored() == {}
    world.cluster.replace_killed(world.source)
    world.assert_exact()


def test_node_that_a_key_was_sent_to_is_not_there(
    world: World, values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The migration is open, and the node that holds the keys by now does not answer."""
    monkeypatch.setattr(cluster, "PATIENCE_SECONDS", 1)
    slot = key_slot(raw(key("{gone astray}")))
    source = world.cluster.owner(raw(key("{gone astray}")))
    target = next(node for node in world.cluster.primaries if node is not source)

    def lose() -> None:
        world.cluster.move_keys(slot, source, target)
        target.kill()

    values.steps = [lose]
    is_red(world, RedisUnavailable, match=str(target.port))
