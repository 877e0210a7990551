"""Made-up usage, counted in Redis as the API counts it: INCRBY, then a TTL of 7 days."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

import redis
from redis.exceptions import RedisError

from local.rhythm import MERCHANTS, METRICS, hours_between, rhythm, usage_of
from merchant_usage import clock
from merchant_usage.connections import REDIS_URL, redis_from_url
from merchant_usage.model.keys import CounterKey, build_key
from merchant_usage.source.counters import MAX_VALUE

PREFIX: Final = "usage"
TTL: Final = dt.timedelta(days=7)
# A fifth of a second between two bursts: busy enough that counters move while a run reads them.
PAUSE_SECONDS: Final = 0.2
IN_A_BURST: Final = 4


def poison(today: dt.date) -> dict[str, str | list[str]]:
    """Keys that cannot be counted, one for each way to be wrong, and what they hold."""
    return {
        f"{PREFIX}:no-date-no-metric": "1",
        f"{PREFIX}:acme:2026-02-30:queries": "12",
        f"{PREFIX}:acme:2099-01-01:queries": "12",
        f"{PREFIX}:acme:{today}:half_counts": "12.5",
        f"{PREFIX}:zeta:{today}:refunds": "-4",
        f"{PREFIX}:zeta:{today}:overflow": str(MAX_VALUE + 1),
        f"{PREFIX}:corner shop:{today}:visitors": ["not", "a", "counter"],
    }


def count_all(client: redis.Redis, usage: Iterable[tuple[CounterKey, int]]) -> list[tuple[bytes, dt.date]]:
    """Count some usage; returns the names of the counters, and their dates."""
    names = []
    with client.pipeline(transaction=False) as pipeline:
        for key, units in usage:
            name = build_key(PREFIX, key)
            pipeline.incrby(name, units)
            pipeline.expire(name, TTL)
            names.append((name, key.date))
        pipeline.execute()
    return names


class Traffic:
    """Counts usage from `start` to `stop`, in a thread of its own."""

    def __init__(self, redis_url: str, *, seed: int = 7) -> None:
        """Count in this Redis; `seed` fixes the numbers."""
        self._environment = {REDIS_URL: redis_url}
        self._random = random.Random(seed)  # noqa: S311 - made-up numbers, no secrets
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_counting, name="traffic", daemon=True)
        self._error: RedisError | None = None
        self.increments = 0

    def __enter__(self) -> Self:
        """Start to count."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop counting."""
        self._over.set()
        self._thread.join()

    def write_days(self, *days: dt.date) -> int:
        """Write what was counted on these days so far, where nothing is yet; returns the number of counters."""
        now = clock.now()
        with self._redis() as client:
            usage = Counter({CounterKey(who, day, what): 0 for day in days for who in MERCHANTS for what in METRICS})
            for day in days:
                midnight = dt.datetime.combine(day, dt.time(), dt.UTC)
                for hour, part in hours_between(midnight, min(now, midnight + dt.timedelta(days=1))):
                    usage.update(dict(usage_of(hour, part)))
            missing = {key: units for key, units in usage.items() if not client.exists(build_key(PREFIX, key))}
            # Shortly after midnight some have counted nothing yet: no such key would be written.
            count_all(client, ((key, max(1, units)) for key, units in missing.items()))
        return len(usage)

    def write_poison(self, today: dt.date) -> int:
        """Write the keys that cannot be counted; returns how many."""
        bad = poison(today)
        with self._redis() as client:
            for name, value in bad.items():
                client.delete(name)
                if isinstance(value, list):
                    client.rpush(name, *value)
                else:
                    client.set(name, value)
                client.expire(name, TTL)
        return len(bad)

    @contextmanager
    def _redis(self) -> Iterator[redis.Redis]:
        with redis_from_url(self._environment) as client:
            assert isinstance(client, redis.Redis)  # the demo's own
            yield client

    def check(self) -> None:
        """Raise what ended the counting, if anything did."""
        if self._error is not None:
            raise self._error

    def _keep_counting(self) -> None:
        try:
            with self._redis() as client:
                while not self._over.wait(PAUSE_SECONDS):
                    self._burst(client)
        except RedisError as error:
            self._error = error

    def _burst(self, client: redis.Redis) -> None:
        now = clock.now()
        keys = [CounterKey(who, now.date(), what) for who in MERCHANTS for what in METRICS]
        usual = [rhythm(key.merchant_id).expected(key.metric_type, now) for key in keys]
        count_all(client, ((key, 1) for key in self._random.choices(keys, usual, k=IN_A_BURST)))
        self.increments += IN_A_BURST
