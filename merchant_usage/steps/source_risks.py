"""Looks for what may take usage from Redis before it is read: keys that are evicted, or do not live long enough."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import redis
from psycopg import Connection

from merchant_usage.log import Log
from merchant_usage.model.batches import Batch
from merchant_usage.model.keys import CounterKey, build_key
from merchant_usage.model.risk import Risk, RiskKind, ServerState, SourceState
from merchant_usage.settings import Settings
from merchant_usage.sink.source import known_servers
from merchant_usage.source.counters import seconds_to_live
from merchant_usage.source.memory import server_states
from merchant_usage.source.shards import RedisClient

log = Log(__name__)

#: Keys that are asked how long they live, in one request a run: of what one in a hundred has, some are among them.
SAMPLE: Final = 300


def inspect_source(client: RedisClient, conn: Connection, batches: Sequence[Batch], settings: Settings) -> SourceState:
    """What the servers say of their memory, how long some of the keys live, and which dangers that means.

    What the Redis user may not ask for is not looked at.

    Raises:
        redis.exceptions.ConnectionError: a server does not answer.
    """
    servers = server_states(client)
    risks = [*evictions(servers, known_servers(conn)), *lifetimes(client, batches, settings)]
    for risk in risks:
        log.warning(f"Usage in Redis is at risk: {risk.seen}", risk=str(risk.kind))
    return SourceState(tuple(servers), tuple(risks))


def evictions(servers: Sequence[ServerState], known: Mapping[str, ServerState]) -> Iterator[Risk]:
    """The dangers that come of servers without enough memory.

    Args:
        known: what they said when a run looked before.
    """
    evicted = [
        f"{server.server} has evicted {number:,} keys since the run before"
        for server in servers
        if (before := known.get(server.server)) is not None and (number := _grown(before, server))
    ]
    if evicted:
        yield Risk(RiskKind.EVICTED, f"{'; '.join(evicted)}. Usage that was counted in them since then is lost.")
    if may := [f"{server.server} ({server.eviction})" for server in servers if server.eviction is not None]:
        yield Risk(
            RiskKind.MAY_EVICT, f"the maxmemory-policy of {', '.join(may)} evicts usage keys when memory is full."
        )


def _grown(before: ServerState, now: ServerState) -> int:
    """Keys evicted since; a server that was started anew, or whose statistics were reset, has counted from zero."""
    is_same = before.run_id == now.run_id and before.evicted_keys <= now.evicted_keys
    return now.evicted_keys - before.evicted_keys if is_same else now.evicted_keys


def lifetimes(client: RedisClient, batches: Sequence[Batch], settings: Settings) -> Iterator[Risk]:
    """The dangers that come of keys without a time to live, or too short a one."""
    keys = _sample(batches)
    live = {date for batch in batches for date in batch.live_dates}
    try:
        seconds = _seconds_to_live(client, keys, settings)
        without = [key for key, left in seconds.items() if left == -1]
        # The API sets the time to live right after it has counted: one more look tells a new key from one without.
        without = [key for key, left in _seconds_to_live(client, without, settings).items() if left == -1]
    except redis.exceptions.NoPermissionError:
        return
    gap = settings.interval.total_seconds()
    short = [key for key, left in seconds.items() if 0 <= left < gap and key.date in live]
    if without:
        yield Risk(
            RiskKind.WITHOUT_TTL,
            f"{len(without)} of {len(keys)} usage keys that were looked at have no TTL, such as {without[0]}. They "
            "stay until memory is full.",
        )
    if short:
        yield Risk(
            RiskKind.SHORT_TTL,
            f"{len(short)} of {len(keys)} usage keys that were looked at live for less than the {gap / 60:,.0f} "
            f"minutes between two runs, such as {short[0]}. What is counted in them may be gone before it is read.",
        )


def _seconds_to_live(client: RedisClient, keys: Sequence[CounterKey], settings: Settings) -> dict[CounterKey, int]:
    raw_keys = [build_key(settings.key_prefix, key) for key in keys]
    return dict(zip(keys, seconds_to_live(client, raw_keys), strict=True))


def _sample(batches: Sequence[Batch]) -> list[CounterKey]:
    """Some of the keys, drawn without going through all of them."""
    dice = random.Random()  # noqa: S311 - nothing secret
    chosen: set[CounterKey] = set()
    for _ in range(SAMPLE if batches else 0):
        group = dice.choice(dice.choice(batches).groups)
        chosen.add(CounterKey(dice.choice(group.merchant_ids), group.date, dice.choice(group.metric_types)))
    return sorted(chosen)
