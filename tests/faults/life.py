"""A simulated life: an API that counts, a Redis that forgets, a scheduler that runs hourly, people who decide.

The servers are real, the clock is not: whoever asks for the time gets `World.now`. Beside them stands the truth: the
sum of all increments that Redis ever acknowledged.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

import redis
from psycopg import Connection

from merchant_usage.errors import UsageError
from merchant_usage.model.dates import local_date
from merchant_usage.model.keys import CounterKey, build_key, parse_key
from merchant_usage.settings import Settings
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.faults import visible
from tests.faults.scheduled import run_scheduled

HOUR: Final = dt.timedelta(hours=1)
DAY: Final = dt.timedelta(days=1)
#: The API sets it with each increment.
TTL: Final = 7 * DAY
# A task begins so long after the end of its interval; in a catch-up one run follows the other.
DELAY: Final = dt.timedelta(seconds=20)
GARBAGE: Final = b"1_000"

#: Its counters get no TTL, because its client forgets it.
WITHOUT_TTL: Final = ("zeta", "q")
#: Counters of each day.
WHO: Final = (("acme", "q"), ("acme", "r"), ("b:c 🎉", "q"), ("b:c 🎉", "r"), WITHOUT_TTL)
# Real time that a key has to live at least: its end comes by the simulated clock.
LEAST_MS: Final = 60_000

Snapshot = dict[bytes, tuple[bytes, dt.datetime | None]]


@dataclass
class World:
    """Servers, a clock, and what really happened."""

    client: redis.Redis
    conn: Connection
    settings: Settings
    now: dt.datetime
    random: Random

    #: The sum of all increments of a counter. Nobody may be billed for more.
    truth: Counter[CounterKey] = field(default_factory=Counter)
    #: Of it, what Redis lost before any run could read it.
    lost: Counter[CounterKey] = field(default_factory=Counter)
    #: What Redis holds, and when each key's time to live is over.
    expiry: dict[bytes, dt.datetime | None] = field(default_factory=dict)
    #: Dates that lost something, or whose counters fell: they must be exact, or told.
    damaged: set[dt.date] = field(default_factory=set)
    #: Where a person said `keep` though something was lost: the value is bounded, not known.
    kept: set[dt.date] = field(default_factory=set)

    #: Intervals that no run has taken yet.
    waiting: list[dt.datetime] = field(default_factory=list)
    scheduler_is_down: bool = False
    #: Runs begin, and this is what becomes of them.
    failure: Callable[[dt.datetime], None] | None = None
    verdicts: Counter[str] = field(default_factory=Counter)
    red: Counter[str] = field(default_factory=Counter)
    idle: int = 0
    #: What must never be.
    violations: list[str] = field(default_factory=list)

    def present(self) -> dt.datetime:
        return self.now

    # The API.

    def name(self, who: tuple[str, str], moment: dt.datetime | None = None) -> CounterKey:
        """The counter that the API counts with at a moment, by the calendar of its time zone."""
        merchant, metric = who
        return CounterKey(merchant, local_date(moment or self.now, self.settings), metric)

    def raw(self, key: CounterKey) -> bytes:
        return build_key(self.settings.key_prefix, key)

    def count(self, increments: list[tuple[CounterKey, int]]) -> None:
        """INCRBY and EXPIRE; what Redis refuses was not counted, and the API knows."""
        pipeline = self.client.pipeline(transaction=False)
        for key, by in increments:
            pipeline.incrby(self.raw(key), by)
        for (key, by), reply in zip(increments, pipeline.execute(raise_on_error=False), strict=True):
            if isinstance(reply, int):
                self.truth[key] += by
                self.expiry[self.raw(key)] = None if key.merchant_id == WITHOUT_TTL[0] else self.now + TTL

    def traffic(self) -> None:
        """Half an hour of it. Shortly after midnight some increments of the day before are still under way."""
        increments = []
        for who in self.random.sample(WHO, self.random.randint(1, len(WHO))):
            late = self.random.random() < 0.3
            moment = self.now - HOUR if late else self.now
            increments.append((self.name(who, moment), self.random.randint(1, 30)))
        self.count(increments)

    def count_late(self, days: int, by: int = 7, who: tuple[str, str] = WHO[0]) -> CounterKey:
        """Whatever kept it under way for days."""
        key = self.name(who, self.now - days * DAY)
        self.count([(key, by)])
        return key

    # Redis.

    def pass_to(self, moment: dt.datetime) -> None:
        """Time goes by; keys whose time is over are gone."""
        self.now = moment
        if over := [raw for raw, at in self.expiry.items() if at is not None and at <= moment]:
            self._forget(over)
            self.client.delete(*over)

    def _forget(self, raws: list[bytes]) -> None:
        """These keys are no more, and with them all that no run has read."""
        stored = self.stored()
        for raw in raws:
            del self.expiry[raw]
            key = parse_key(raw, self.settings.key_prefix)
            assert isinstance(key, CounterKey)
            unseen = self.truth[key] - self.lost[key] - stored.get(key, 0)
            if unseen > 0:
                self.lost[key] += unseen
                self.damaged.add(key.date)

    def show_ttls(self) -> None:
        """Redis' clock is the real one: let it tell of each key what is left by the simulated clock."""
        real = int(time.time() * 1000)
        pipeline = self.client.pipeline(transaction=False)
        for raw, at in self.expiry.items():
            if at is not None:
                left = int((at - self.now).total_seconds() * 1000)
                pipeline.pexpireat(raw, real + max(left, LEAST_MS))
        pipeline.execute()

    def snapshot(self) -> Snapshot:
        raws = list(self.expiry)
        values: Any = self.client.mget(raws)
        return {raw: (value, self.expiry[raw]) for raw, value in zip(raws, values, strict=True)}

    def lose_keys(self, raws: list[bytes]) -> None:
        """They vanish before their time: FLUSHALL, an eviction, DEL."""
        unsealed = self.unsealed_among(raws)
        self.client.delete(*raws)
        self._forget(raws)
        self.damaged |= unsealed

    def unsealed_among(self, raws: list[bytes]) -> set[dt.date]:
        dates = {key.date for raw in raws if isinstance(key := parse_key(raw, self.settings.key_prefix), CounterKey)}
        return {date for date in dates if not visible.is_sealed(self.conn, date)}

    def fall_back_to(self, old: Snapshot) -> None:
        """A replica takes over that lagged, or a backup of Redis is restored."""
        stored = self.stored()
        before = self.snapshot()
        fell: set[dt.date] = set()
        lost: set[dt.date] = set()
        for raw, (value, _) in before.items():
            then = int(old[raw][0]) if raw in old else 0
            key = parse_key(raw, self.settings.key_prefix)
            assert isinstance(key, CounterKey)
            if then < int(value):
                lost.add(key.date)
                if then < stored.get(key, 0):
                    fell.add(key.date)
        assert lost <= fell, "what nobody can see nobody can tell: choose another moment"
        self.damaged |= lost
        self.kept |= lost
        self.client.flushall()
        self.expiry = {raw: at for raw, (_, at) in old.items() if at is None or at > self.now}
        self.client.mset({raw: old[raw][0] for raw in self.expiry})

    # PostgreSQL.

    def stored(self) -> dict[CounterKey, int]:
        rows = self.conn.execute("SELECT merchant_id, date, metric_type, metric_value FROM merchant_usage")
        return {CounterKey(*row[:3]): row[3] for row in rows}

    def restore(self, backup: visible.Backup) -> None:
        """PostgreSQL comes back as it was then: what it had read since, and Redis has no more, is lost."""
        visible.restore(self.conn, backup)
        stored = self.stored()
        held = {parse_key(raw, self.settings.key_prefix) for raw in self.expiry}
        for key, true in self.truth.items():
            unseen = true - self.lost[key] - stored.get(key, 0)
            if unseen > 0 and key not in held:
                self.lost[key] += unseen
                self.damaged.add(key.date)

    # The scheduler.

    def end_of_interval(self, start: dt.datetime) -> None:
        """An interval is over: its run comes now, or when the scheduler is back."""
        self.waiting.append(start)
        if self.scheduler_is_down:
            return
        self.show_ttls()
        for waiting in self.waiting:
            self.now += DELAY
            (self.failure or self.run)(waiting)
        self.waiting.clear()

    def run(self, start: dt.datetime) -> None:
        """One scheduled run; what it says is compared with the truth at once, while nothing moves."""
        try:
            reports = run_scheduled(self.client, self.conn, start, self.settings)
        except UsageError as error:
            self.red[f"{type(error).__name__}: {error}"] += 1
            return
        if reports is None:
            self.idle += 1
            return
        for raw in set(self.expiry) - set(self.client.scan_iter(count=1000)):  # clean-up deletes what is stored
            del self.expiry[raw]
        for report in reports:
            self.verdicts[f"{report.verdict} {'settled' if report.settled else 'live'}"] += 1
            if report.verdict == "verified" and report.settled:
                self.check_verified(report.date)

    def check_verified(self, date: dt.date) -> None:
        """A date that is called verified is exact, but for what people decided."""
        if date not in self.kept and (wrong := self.wrong(date, self.truth - self.lost)):
            self.violations.append(f"{self.now}: {date} is called verified, but {wrong}")
        elif (wrong := self.wrong(date, self.truth)) and not visible.is_decided(self.conn, date):
            self.violations.append(f"{self.now}: {date} is called verified, though it lost usage: {wrong}")

    # People.

    def change(self, **changes: Any) -> None:
        """Other settings, of the API too."""
        self.settings = replace(self.settings, **changes)

    def answer(self, decision: Decision) -> None:
        """A person decides all counters that went backwards."""
        dates = self.conn.execute(
            "SELECT DISTINCT usage_date FROM usage_dead_letter"
            " WHERE reason = 'counter_regressed' AND resolved_at IS NULL"
        ).fetchall()
        for (date,) in dates:
            self._decide(decision, date)

    def keep_date(self, date: dt.date) -> None:
        """A person says of a date whose end nobody read: what is stored stands."""
        self._decide(Decision.KEEP, date)

    def _decide(self, decision: Decision, date: dt.date) -> None:
        outcome = decide(self.client, self.conn, Ruling(decision, "a person"), self.settings.key_prefix, date=date)
        assert outcome.refused == []
        if decision is Decision.KEEP:
            self.kept.add(date)

    # What is said of a date, and what is true.

    def wrong(self, date: dt.date, counted: Counter[CounterKey]) -> list[str]:
        """Counters of a date whose row is not what was counted."""
        stored = self.stored()
        keys = sorted(key for key in stored.keys() | counted.keys() if key.date == date)
        return [f"{key}: {stored.get(key, 0)} of {counted[key]}" for key in keys if stored.get(key, 0) != counted[key]]
