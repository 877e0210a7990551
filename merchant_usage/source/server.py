"""What kind of server a connection leads to: one that holds all counters, or a part of them, or a copy that lags.

HELLO answers that to everybody: no ACL can forbid it. INFO is asked when HELLO is not known there (an old server, a
proxy, a renamed command), and when INFO is forbidden or renamed, too, MGET is: every user of ours is allowed that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import redis
from redis import exceptions
from redis.cluster import RedisCluster
from redis.utils import str_if_bytes

from merchant_usage.errors import RedisRefused, RedisUnavailable
from merchant_usage.source.shards import RedisClient, Shards, address_of, named, of_each

_PRIMARY: Final = "master"
#: A line of what INFO answers.
INFO_LINE: Final = re.compile(r"^(\w+):(.*?)\r?$", re.MULTILINE)
_WATCHED_BY_SENTINEL = re.compile(r"^master\d+:name=([^,]*),.*?address=([^,]+)", re.MULTILINE)
# What only a node of a cluster answers to a question for two keys.
_OF_A_NODE: Final = (
    exceptions.ClusterCrossSlotError,
    exceptions.AskError,  # and MOVED, which redis-py derives from it
    exceptions.TryAgainError,
    exceptions.ClusterDownError,
)


class Server(NamedTuple):
    """What a server says that it is. None is what it does not tell."""

    #: "standalone", "cluster" or "sentinel".
    mode: str | None
    #: "master", or else some kind of replica. A Sentinel has none.
    role: str | None


def require_whole_source(client: RedisClient, prefix: str) -> None:
    """`require_whole` on any connection of a client, before it reads.

    Of a cluster nothing is asked: reading, each key's owner is asked for it, and scanning, all primaries.
    """
    if isinstance(client, RedisCluster):
        return
    if isinstance(client, Shards):
        require_distinct(client)
        of_each(client, lambda server: require_whole_source(server, prefix))
        return
    connection = client.connection_pool.get_connection()
    try:
        require_whole(connection, prefix)
    except BaseException:
        connection.disconnect()
        raise
    finally:
        client.connection_pool.release(connection)


def require_distinct(client: Shards) -> None:
    """Make sure that no server is among several twice, by two names: each of its keys would be on two servers.

    Of those whose user may not ask INFO that is not known.

    Raises:
        RedisRefused: one is.
        redis.exceptions.ConnectionError: one does not answer.
    """
    seen: dict[tuple[str, int], str] = {}
    for server in client.servers:
        with named(server):
            run_id = _run_id(server)
        address = address_of(server)
        if run_id is not None:
            other = seen.setdefault((run_id, server.connection_pool.connection_kwargs.get("db") or 0), address)
            if other != address:
                raise RedisRefused(f"{other} and {address} are one server: the usage_redis connection names it twice.")


def _run_id(server: redis.Redis) -> str | None:
    connection = server.connection_pool.get_connection()
    try:
        return dict(INFO_LINE.findall(_ask_info(connection))).get("run_id")
    finally:
        server.connection_pool.release(connection)


def servers_of(client: RedisClient) -> Sequence[redis.Redis]:
    """A client for each server that holds counters; of a cluster the primaries."""
    if isinstance(client, RedisCluster):
        return [client.get_redis_connection(node) for node in client.get_primaries()]
    return client.servers if isinstance(client, Shards) else [client]


def tell_time(client: RedisClient) -> float | None:
    """What time it is by the clock of Redis, in seconds of the epoch; None if the user may not ask.

    Of a cluster one primary tells it, of several servers the first.

    Raises:
        redis.exceptions.RedisError: it does not answer.
    """
    try:
        seconds, microseconds = servers_of(client)[0].time()
    except exceptions.ResponseError:
        return None
    return int(seconds) + int(microseconds) / 1_000_000


def require_whole(connection: Any, prefix: str) -> None:
    """Make sure that the server of a connection is a primary that holds all keys.

    Args:
        connection: one of redis-py's, connected or not; it is asked and left connected.
        prefix: of the usage keys, which are all that the user may be allowed to ask for.

    Raises:
        RedisRefused: a node of a cluster, which has some of the keys only, or a Sentinel, which has none.
        RedisUnavailable: a replica, which may lag behind. It heals: after a failover the address may lead to the wrong
            one of the two for a while.
        redis.exceptions.ConnectionError: it does not answer.
    """
    server = _identify(connection, prefix)
    if server.mode == "cluster":
        raise RedisRefused(
            "The usage_redis connection points to one node of a Redis Cluster, which holds a part of the keys only. "
            'Say that it is a cluster: {"cluster": true} in the extra of the Airflow connection, ?cluster=true in '
            "USAGE_REDIS_URL."
        )
    if server.mode == "sentinel":
        watched = _WATCHED_BY_SENTINEL.search(_ask_info(connection))
        which = f": {watched[1]} is at {watched[2]}" if watched else ""
        raise RedisRefused(
            "The usage_redis connection points to a Redis Sentinel, which holds no counters. Point it to the primary "
            f"that it watches{which}."
        )
    if server.role not in (None, _PRIMARY):
        info = dict(INFO_LINE.findall(_ask_info(connection)))
        which = f" ({info['master_host']}:{info['master_port']})" if "master_host" in info else ""
        raise RedisUnavailable(
            f"The usage_redis connection points to a replica, which may lag behind. Point it to the primary{which}."
        )


def _identify(connection: Any, prefix: str) -> Server:
    try:
        said = _as_mapping(_ask(connection, "HELLO"))
        mode, role = said.get("mode"), said.get("role")
    except exceptions.ResponseError:
        mode = role = None
    if mode is None:
        info = dict(INFO_LINE.findall(_ask_info(connection)))
        role = role or info.get("role")
        in_cluster = info.get("cluster_enabled") == "1"
        mode = "cluster" if in_cluster else info.get("redis_mode") or info.get("server_mode")
    return Server(mode or _mode_by_mget(connection, prefix), role)


def _mode_by_mget(connection: Any, prefix: str) -> str | None:
    """What the answer to a question for two keys gives away. They need not exist."""
    try:
        _ask(connection, "MGET", f"{prefix}:1", f"{prefix}:2")
    except _OF_A_NODE:
        return "cluster"
    except exceptions.ResponseError:
        pass  # forbidden, say: who reads the counters will be told
    return None


def _ask_info(connection: Any) -> str:
    """What INFO says; nothing where it is forbidden or renamed."""
    try:
        return str_if_bytes(_ask(connection, "INFO"))
    except exceptions.ResponseError:
        return ""


def _ask(connection: Any, *command: str) -> Any:
    connection.send_command(*command, check_health=False)
    return connection.read_response()


def _as_mapping(answer: Any) -> dict[str, Any]:
    """A map, which is a list of names and values in turn to clients of the older protocol."""
    pairs = answer.items() if isinstance(answer, Mapping) else _in_twos(answer)
    return {str_if_bytes(name): str_if_bytes(value) for name, value in pairs}


def _in_twos(answer: Sequence[Any]) -> Any:
    return zip(answer[::2], answer[1::2], strict=True)
