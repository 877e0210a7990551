"""A real Redis Cluster on 127.0.0.1: three primaries, and replicas where a test wants them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import redis
from redis.crc import key_slot

from local.servers import Valkey, free_port
from local.servers.processes import write_private

SLOTS: Final = 16384
PRIMARIES: Final = 3
# What must come true within this time, or the test fails.
PATIENCE_SECONDS: Final = 30

# On a busy machine nobody may fail over just because a node was slow: tests that want it lower the timeout.
QUIET_NODE_TIMEOUT_MS: Final = 30_000
QUICK_NODE_TIMEOUT_MS: Final = 500


def wait_until(condition: Callable[[], bool]) -> None:
    """Ask again and again until it is true: a cluster tells nobody when it has come to an agreement."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("the cluster never got there")
        time.sleep(0.02)


class Node(Valkey):
    """One node, and a client of it alone."""

    def __init__(self, folder: Path) -> None:
        self.cluster_port = free_port()
        super().__init__(
            folder,
            extra_config=[
                "appendonly no",
                "cluster-enabled yes",
                f"cluster-port {self.cluster_port}",
                f"cluster-node-timeout {QUIET_NODE_TIMEOUT_MS}",
                "repl-diskless-sync-delay 0",
            ],
        )

    def start(self) -> None:
        super().start()
        self._extra_config += (f"masterauth {self.password}",)
        self.client = redis.Redis.from_url(self.url)
        self.client.config_set("masterauth", self.password)

    def stop(self) -> None:
        super().stop()
        self.client.close()

    @property
    def id(self) -> str:
        return str(self.say("MYID").decode())

    def say(self, *words: str | int) -> Any:
        """Send a CLUSTER command to this node."""
        return self.client.execute_command("CLUSTER", *words)

    def ask(self, what: str) -> str:
        """What this node answers to CLUSTER NODES or CLUSTER INFO, before redis-py takes it apart."""
        connection = self.client.connection_pool.get_connection()
        try:
            connection.send_command("CLUSTER", what)
            return str(connection.read_response().decode())
        finally:
            self.client.connection_pool.release(connection)

    def owners(self) -> dict[str, list[str]]:
        """Who owns which slots, as this node sees it, by node id."""
        lines = [line.split() for line in self.ask("NODES").splitlines()]
        return {f[0]: sorted(s for s in f[8:] if s[0] != "[") for f in lines if any(s[0] != "[" for s in f[8:])}

    def owns(self, slot: int) -> bool:
        """Whether this node takes itself for the owner of a slot."""
        ranges = (part.split("-") for part in self.owners().get(self.id, []))
        return any(int(first) <= slot <= int(last[-1] if last else first) for first, *last in ranges)

    def is_primary(self) -> bool:
        return bool(self.client.info("replication")["role"] == "master")


class Cluster:
    """Its primaries, in the order of their slots, and the replica of each."""

    def __init__(self, primaries: Sequence[Node], replicas: Sequence[Node]) -> None:
        self.primaries = list(primaries)
        self.replicas = list(replicas)

    @property
    def nodes(self) -> list[Node]:
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        return self.primaries[0].url + "?cluster=true"

    def owner(self, key: bytes) -> Node:
        """Whose key this is in the layout that the cluster began with."""
        return self.primaries[key_slot(key) * PRIMARIES // SLOTS]

    def agree(self) -> None:
        """Wait until all running nodes see the same owners."""
        wait_until(lambda: len({str(sorted(node.owners().items())) for node in self.nodes if node.running}) == 1)

    def set_node_timeout(self, milliseconds: int) -> None:
        for node in self.nodes:
            if node.running:
                node.client.config_set("cluster-node-timeout", milliseconds)

    def move_keys(self, slot: int, source: Node, target: Node, most: int = SLOTS) -> int:
        """Open the migration of a slot and move its keys, or some of them; returns how many. It stays open."""
        target.say("SETSLOT", slot, "IMPORTING", source.id)
        source.say("SETSLOT", slot, "MIGRATING", target.id)
        return self.send_keys(slot, source, target, most)

    def send_keys(self, slot: int, source: Node, target: Node, most: int = SLOTS) -> int:
        """Move keys of a slot whose migration is open."""
        keys = source.say("GETKEYSINSLOT", slot, most)
        if keys:
            source.client.execute_command(
                "MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "AUTH", target.password, "KEYS", *keys
            )
        return len(keys)

    def close_migration(self, slot: int, target: Node) -> None:
        """Give the slot to its new owner."""
        for node in (target, *(other for other in self.primaries if other is not target)):
            node.say("SETSLOT", slot, "NODE", target.id)

    def move_slot(self, slot: int, source: Node, target: Node) -> None:
        """Move a slot with all its keys, from beginning to end."""
        self.move_keys(slot, source, target)
        self.close_migration(slot, target)

    def fail_over(self, primary: Node) -> None:
        """Let its replica take over in good order, and wait until both have changed places."""
        replica = self.replicas[self.primaries.index(primary)]
        replica.say("FAILOVER")
        wait_until(lambda: replica.is_primary() and not primary.is_primary())

    def replace_killed(self, primary: Node) -> None:
        """Wait until the others have put a replica in the place of a primary that was killed."""
        replica = self.replicas[self.primaries.index(primary)]
        self.set_node_timeout(QUICK_NODE_TIMEOUT_MS)
        wait_until(replica.is_primary)
        self.set_node_timeout(QUIET_NODE_TIMEOUT_MS)
        self.agree()

    def replicate(self) -> None:
        """Wait until each replica has all that its primary has."""
        for primary in self.primaries:
            primary.client.execute_command("WAIT", 1, PATIENCE_SECONDS * 1000)


@contextmanager
def running_cluster(folder: Path, *, replicas: bool = False) -> Iterator[Cluster]:
    """Start a cluster in a folder, and end it."""
    with ExitStack() as stack:
        nodes: list[Node] = []
        for number in range(PRIMARIES * (2 if replicas else 1)):
            nodes.append(add_node(folder / f"node-{number}", nodes))
            stack.callback(nodes[-1].close)
        cluster = Cluster(nodes[:PRIMARIES], nodes[PRIMARIES:])
        for number, node in enumerate(cluster.primaries):
            node.say("ADDSLOTSRANGE", _first_slot(number), _first_slot(number + 1) - 1)
            node.say("SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            node.say("MEET", "127.0.0.1", nodes[0].port, nodes[0].cluster_port)
        wait_until(lambda: all(len(node.ask("NODES").splitlines()) == len(nodes) for node in nodes))
        for primary, replica in zip(cluster.primaries, cluster.replicas, strict=False):
            replica.say("REPLICATE", primary.id)
        cluster.agree()
        wait_until(lambda: all("cluster_state:ok" in node.ask("INFO") for node in nodes))
        wait_until(
            lambda: all(node.client.info("replication")["master_link_status"] == "up" for node in cluster.replicas)
        )
        yield cluster


def add_node(folder: Path, others: Sequence[Node]) -> Node:
    """Start one more node, with the password of the others. It belongs to no cluster yet."""
    node = Node(folder)
    if others:
        folder.mkdir()
        write_private(folder / "password", others[0].password)
    node.start()
    return node


def _first_slot(primary: int) -> int:
    return -(-SLOTS * primary // PRIMARIES)
