"""What differs on a Redis Cluster: every primary is scanned, and each key is asked of the node that owns its slot.

SCAN names no key, so no node ever answers that a slot has gone elsewhere: a slot that moves from a node that is
yet to be scanned to one that has been is missed without an error. Therefore all primaries are asked who owns what
before and after. redis-py's cluster pipeline is not used: it takes five times as long (measured), and cannot
follow a slot to a node new to it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple
from weakref import WeakSet

from hiredis import pack_command
from redis import exceptions
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    ResponseError,
    TryAgainError,
)
from redis.utils import str_if_bytes

from merchant_usage.errors import ClusterChanged
from merchant_usage.model.keys import match_pattern
from merchant_usage.source.replies import ScanPace, bound_replies

Command = tuple[bytes | str | int, ...]

#: What has more bytes is no counter: the largest has 19 digits.
MAX_VALUE_BYTES: Final = 64
# Clients whose user may not ask for the beginning of a value.
_WITHOUT_GETRANGE: Final = WeakSet[RedisCluster]()

# A slot's new owner answers within this time, or the error goes up and the task is tried again later.
PATIENCE_SECONDS: Final = 10
# What says that another node must be asked, or the same one again. (MovedError is an AskError.)
ELSEWHERE: Final = (AskError, TryAgainError, ClusterDownError)

UNREACHABLE: Final = (exceptions.ConnectionError, exceptions.TimeoutError)

_MIGRATE_CALLS = re.compile(r"cmdstat_migrate:calls=([0-9]+)")


def scan_pages(client: RedisCluster, prefix: str, count: int) -> Iterator[list[bytes]]:
    """All keys of a prefix, from all primaries at once, in pages as SCAN returns them.

    The pages are complete only if the generator ends without an error.

    Raises:
        ClusterChanged: slots moved, are being moved, or a primary was replaced: a key may have been missed.
        redis.exceptions.ConnectionError: a primary does not answer, or its connection broke.
    """
    with ExitStack() as stack:
        # One connection a node, from the first question to the last: a node that was restarted is an error.
        connections = [stack.enter_context(_connected(client, node)) for node in client.get_primaries()]
        before = _layout(connections)
        under_way = [(connection, bound_replies(connection), ScanPace(count)) for connection in connections]
        for connection in connections:
            connection.send_command(*_scan(b"0", prefix, count), check_health=False)
        while under_way:
            for node in list(under_way):
                connection, replies, pace = node
                cursor, page = _answer(connection)
                pace.adapt(replies)
                if cursor == b"0":
                    under_way.remove(node)
                else:  # the node walks on while its page is looked at, and all the others do
                    connection.send_command(*_scan(cursor, prefix, pace.count), check_health=False)
                yield page
        after = _layout(connections)
        if after != before:
            raise ClusterChanged(_difference(before, after))


def read_values(client: RedisCluster, keys: Sequence[bytes]) -> list[bytes | None]:
    """The beginning of each value, as much as tells a counter from anything else. None as of MGET, or if it is empty.

    A user who may not ask for beginnings gets whole values, read in bounded memory.
    """
    if client not in _WITHOUT_GETRANGE:
        try:
            return [value or None for value in execute_each(client, keys, list(map(beginning_of, keys)))]
        except NoPermissionError:
            _WITHOUT_GETRANGE.add(client)
    return execute_each(client, keys, [("GET", key) for key in keys], bounded=True)


def beginning_of(key: bytes) -> Command:
    """The command for as much of a value as tells a counter from anything else."""
    return "GETRANGE", key, 0, MAX_VALUE_BYTES


def execute_each(
    client: RedisCluster, keys: Sequence[bytes], commands: Sequence[Command], *, bounded: bool = False
) -> list[Any]:
    """Run one command a key on the primary that owns the key, all nodes at once; returns the answers in order.

    Follows slots that move, and a failover if it is over soon. As MGET does, it answers None for a key of another type.

    Args:
        bounded: answers may be too long to be held.

    Raises:
        redis.exceptions.RedisError: a node does not answer or refuses, or a slot's owner was not found in time.
    """
    answers: list[Any] = [None] * len(keys)
    left: list[int] = list(range(len(keys)))
    import tenacity  # takes 2 MB and as long as a thousand counters; only a cluster needs it before anything fails

    attempts = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(UNREACHABLE + ELSEWHERE),
        stop=tenacity.stop_after_delay(PATIENCE_SECONDS),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=1),
        before_sleep=lambda _: client.nodes_manager.initialize(),
        reraise=True,
    )
    for attempt in attempts:
        with attempt:
            owners = client.nodes_manager.slots_cache
            by_owner: dict[str, list[int]] = defaultdict(list)
            for position in left:
                by_owner[owners[key_slot(keys[position])][0].name].append(position)
            _ask_owners(client, by_owner, commands, answers, bounded)
            _ask_importers(client, left, commands, answers)
            left = [position for position in left if isinstance(answers[position], ELSEWHERE)]
            if left:
                raise answers[left[0]]
    for position, answer in enumerate(answers):
        if isinstance(answer, ResponseError):
            if not str(answer).startswith("WRONGTYPE"):
                raise answer
            answers[position] = None
    return answers


def _ask_owners(
    client: RedisCluster,
    by_owner: dict[str, list[int]],
    commands: Sequence[Command],
    answers: list[Any],
    bounded: bool,
) -> None:
    """Send every node its commands before reading what the first one answers."""
    asked: list[tuple[Any, Any, list[int]]] = []
    try:
        for name, positions in by_owner.items():
            pool: Any = client.get_redis_connection(client.get_node(node_name=name)).connection_pool
            connection = pool.get_connection()
            asked.append((pool, connection, positions))
            if bounded:
                bound_replies(connection)
            # Packed here, because the connection's own way takes as long as all the rest together.
            packed = map(pack_command, (commands[position] for position in positions))  # type: ignore[arg-type]  # its stub takes tuples of one
            connection.send_packed_command([b"".join(packed)])
        for _, connection, positions in asked:
            with _named(connection):
                for position in positions:
                    try:
                        answers[position] = connection.read_response()
                    except ResponseError as error:
                        answers[position] = error
    except BaseException:
        for _, connection, _ in asked:
            connection.disconnect()  # answers may be under way that nobody will read
        raise
    finally:
        for pool, connection, _ in asked:
            pool.release(connection)


def _ask_importers(
    client: RedisCluster, positions: Iterable[int], commands: Sequence[Command], answers: list[Any]
) -> None:
    """Ask for the keys that have left a node whose slot is being moved where that node says that they are."""
    asked: dict[tuple[str, int], list[int]] = defaultdict(list)
    for position in positions:
        answer = answers[position]
        if isinstance(answer, AskError) and not isinstance(answer, MovedError):
            asked[answer.host, answer.port].append(position)
    for (host, port), some in asked.items():
        # A client of its own: the node may have no slot yet, and then ours does not know it.
        node = client.nodes_manager.create_redis_node(host, port, **client.get_connection_kwargs())
        try:
            pipeline = node.pipeline(transaction=False)
            for position in some:
                pipeline.execute_command("ASKING")
                pipeline.execute_command(*commands[position])
            for position, answer in zip(some, pipeline.execute(raise_on_error=False)[1::2], strict=True):
                answers[position] = answer
        finally:
            node.connection_pool.disconnect()


class _Layout(NamedTuple):
    """Who owns what, as all primaries tell it."""

    #: By node id: the slots and their configuration epoch, which grows whenever they go to another node.
    owners: dict[str, str]
    #: How often each node has sent keys to another: keys that went and came back leave no other trace. None if unknown.
    sent: list[int | None]


def _layout(connections: Sequence[Any]) -> _Layout:
    """Ask all primaries who owns which slots.

    Raises:
        ClusterChanged: a slot is being moved, one of them is no primary any more, or they do not agree.
    """
    views: list[dict[str, str]] = []
    asked: set[str] = set()
    for connection in connections:
        views.append({})
        for line in str_if_bytes(_ask(connection, "CLUSTER", "NODES")).splitlines():
            node_id, _, flags, _, _, _, epoch, _, *slots = line.split()
            moving = [slot for slot in slots if slot.startswith("[")]
            if moving:  # [93->-NODE] at the node it leaves, [93-<-NODE] at the one that gets it
                raise ClusterChanged(f"slot {moving[0][1:].split('-')[0]} is being moved")
            if slots:
                views[-1][node_id] = f"slots {' '.join(slots)} (epoch {epoch})"
            if "myself" in flags.split(","):
                asked.add(node_id)
    if any(view != views[0] for view in views):
        raise ClusterChanged("its nodes do not agree on who owns which slots")
    if asked != set(views[0]):
        raise ClusterChanged("slots belong to a node that was not a primary before")
    return _Layout(views[0], list(map(_sent, connections)))


def _sent(connection: Any) -> int | None:
    try:
        stats = str_if_bytes(_ask(connection, "INFO", "commandstats"))
    except ResponseError:  # INFO is forbidden, or renamed
        return None
    found = _MIGRATE_CALLS.search(stats)
    return int(found[1]) if found else 0


def _difference(before: _Layout, after: _Layout) -> str:
    for node_id in before.owners | after.owners:
        was, now = (layout.owners.get(node_id, "nothing")[:100] for layout in (before, after))
        if was != now:
            return f"node {node_id[:8]} owned {was}, now {now}"
    return "keys were moved from one node to another"


@contextmanager
def _connected(client: RedisCluster, node: ClusterNode) -> Iterator[Any]:
    """A connection that nobody else uses and that is never opened again."""
    connection: Any = client.get_redis_connection(node).connection_pool.make_connection()
    try:
        connection.connect()
        yield connection
    finally:
        connection.disconnect()


def _scan(cursor: bytes, prefix: str, count: int) -> Command:
    return ("SCAN", cursor, "MATCH", match_pattern(prefix), "COUNT", count)


def _ask(connection: Any, *command: bytes | str | int) -> Any:
    connection.send_command(*command, check_health=False)
    return _answer(connection)


def _answer(connection: Any) -> Any:
    with _named(connection):
        return connection.read_response()


@contextmanager
def _named(connection: Any) -> Iterator[None]:
    """Let errors of a connection tell which node it leads to."""
    try:
        yield
    except UNREACHABLE as error:
        raise type(error)(f"{connection.host}:{connection.port}: {error}") from None
