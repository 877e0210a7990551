"""Sixty days of hourly runs, with the accidents of a life: in the end each day is exact, or people were told of it."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from merchant_usage import clock
from merchant_usage.model.keys import CounterKey
from merchant_usage.steps.resolve import Decision
from tests.faults import visible
from tests.faults.life import DAY, GARBAGE, HOUR, WHO, WITHOUT_TTL, Snapshot, World
from tests.faults.scheduled import run_scheduled
from tests.support import Usage, settings

START = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
DAYS = 60
# As long as the last day takes to be over, settled and swept.
REST = 2
# Counted by events only, so that it stands still in between.
SOLO = ("solo", "q")

Event = Callable[[World], object]


class Calendar:
    """What happens when: in the middle of an hour, between two halves of its traffic."""

    def __init__(self) -> None:
        self._events: dict[dt.datetime, list[Event]] = defaultdict(list)

    def at(self, day: int, hour: int, event: Event) -> None:
        self._events[START + day * DAY + hour * HOUR].append(event)

    def of(self, hour: dt.datetime) -> list[Event]:
        return self._events[hour]

    # What lasts.

    def scheduler_down(self, day: int, hour: int, hours: int) -> None:
        """Its runs come when it is back, one after the other."""
        self.at(day, hour, lambda world: setattr(world, "scheduler_is_down", True))
        self._after(day, hour, hours, lambda world: setattr(world, "scheduler_is_down", False))

    def runs_fail(self, day: int, hour: int, hours: int, failure: Callable[[World, dt.datetime], None]) -> None:
        """They begin, fail with all their retries, and do not come again."""
        self.at(day, hour, lambda world: setattr(world, "failure", partial(failure, world)))
        self._after(day, hour, hours, lambda world: setattr(world, "failure", None))

    def _after(self, day: int, hour: int, hours: int, event: Event) -> None:
        self.at(day + (hour + hours) // 24, (hour + hours) % 24, event)

    # What people do.

    def answer(self, day: int, hour: int, decision: Decision) -> None:
        self.at(day, hour, lambda world: world.answer(decision))

    def keep_date(self, day: int, hour: int, late: int) -> None:
        """A person says of a date whose end nobody read: what is stored stands."""
        self.at(day, hour, lambda world: world.keep_date(world.name(SOLO, world.now - late * DAY).date))

    def change(self, day: int, hour: int, **changes: Any) -> None:
        self.at(day, hour, lambda world: world.change(**changes))

    # What happens at once.

    def count(self, day: int, hour: int, *, late: int = 0, who: tuple[str, str] = SOLO) -> None:
        self.at(day, hour, lambda world: world.count_late(late, who=who))

    def flush(self, day: int, hour: int) -> None:
        self.at(day, hour, lambda world: world.lose_keys(list(world.expiry)))

    def evict(self, day: int, hour: int, who: tuple[str, str]) -> None:
        self.at(day, hour, lambda world: world.lose_keys([world.raw(world.name(who))]))

    def garbage(self, day: int, hour: int, hours: int, who: tuple[str, str]) -> None:
        """Somebody writes what is no number, and puts it right some hours later."""
        keys: list[CounterKey] = []

        def spoil(world: World) -> None:
            keys.append(world.name(who))
            world.client.set(world.raw(keys[0]), GARBAGE, keepttl=True)

        def mend(world: World) -> None:
            world.client.set(world.raw(keys[0]), world.truth[keys[0]], keepttl=True)

        self.at(day, hour, spoil)
        self._after(day, hour, hours, mend)

    def fail_over(self, day: int, hour: int, lag: int) -> None:
        """A replica that lags by some hours takes over."""
        taken: list[Snapshot] = []
        self.at(day, hour - lag, lambda world: taken.append(world.snapshot()))
        self.at(day, hour, lambda world: world.fall_back_to(taken[0]))

    def restore_postgres(self, day: int, hour: int, days: int) -> None:
        """From a backup that is so many days old."""
        backups: list[visible.Backup] = []
        self.at(day - days, hour, lambda world: backups.append(visible.back_up(world.conn)))
        self.at(day, hour, lambda world: world.restore(backups[0]))


def redis_is_away(world: World, start: dt.datetime) -> None:
    with redis.Redis(port=1, retry=Retry(NoBackoff(), 0)) as nobody, pytest.raises(redis.exceptions.ConnectionError):
        run_scheduled(nobody, world.conn, start, world.settings)


def postgres_is_away(world: World, start: dt.datetime) -> None:
    """Nothing is read, and nobody can write it down."""


@pytest.fixture
def world(usage: Usage) -> Iterator[World]:
    world = World(usage.client, usage.conn, settings(start=START.replace(tzinfo=None)), START, Random(13))  # noqa: S311 - nothing secret
    with mock.patch.object(clock, "now", world.present):
        yield world


def live(world: World, calendar: Calendar) -> None:
    """Hour by hour: traffic, what happens, traffic, a run."""
    for number in range((DAYS + REST) * 24):
        hour = START + number * HOUR
        world.pass_to(hour + HOUR / 4)
        if number < DAYS * 24:
            world.traffic()
        world.pass_to(hour + HOUR / 2)
        for event in calendar.of(hour):
            event(world)
        world.pass_to(hour + 3 * HOUR / 4)
        if number < DAYS * 24:
            world.traffic()
        world.pass_to(hour + HOUR)
        world.end_of_interval(hour)


def a_life() -> Calendar:
    """What happens on which day. Day 24 has 25 hours in Berlin."""
    calendar = Calendar()
    calendar.runs_fail(2, 9, 3, redis_is_away)
    calendar.scheduler_down(3, 10, 5)
    calendar.count(4, 15, late=2)
    calendar.count(5, 3, late=1, who=WHO[0])
    calendar.flush(6, 10)
    calendar.answer(6, 14, Decision.CARRY)
    calendar.scheduler_down(8, 7, 72)
    calendar.fail_over(13, 16, lag=1)
    calendar.answer(13, 20, Decision.KEEP)
    calendar.change(14, 12, delete_stale_keys=True)
    calendar.count(16, 6, late=9, who=WITHOUT_TTL)
    calendar.change(16, 12, delete_stale_keys=False)
    calendar.evict(17, 11, WHO[0])
    calendar.answer(17, 15, Decision.CARRY)
    calendar.garbage(18, 9, 4, WHO[1])
    calendar.garbage(18, 23, 5, WHO[2])
    calendar.count(19, 17)
    calendar.evict(19, 20, SOLO)
    calendar.answer(20, 5, Decision.KEEP)
    calendar.change(20, 12, timezone=ZoneInfo("Europe/Berlin"))
    calendar.change(22, 9, settle_hours=6)
    for night in range(20, 28):
        calendar.runs_fail(night, 22, 5, postgres_is_away)
    calendar.scheduler_down(24, 22, 5)
    calendar.change(25, 12, settle_hours=0)
    calendar.change(25, 21, timezone=ZoneInfo("America/New_York"))
    calendar.change(27, 12, settle_hours=2)
    calendar.change(27, 15, timezone=ZoneInfo("UTC"))
    calendar.restore_postgres(30, 12, days=2)
    calendar.scheduler_down(31, 8, 7 * 24 + 4)
    calendar.count(31, 9)
    calendar.count(38, 8, late=7, who=WHO[0])
    calendar.scheduler_down(40, 8, 9 * 24 + 12)
    calendar.count(48, 10, late=6)
    calendar.count(48, 12, late=8)
    calendar.count(49, 21, late=8)
    calendar.keep_date(50, 5, late=10)
    calendar.count(53, 6, late=20)
    calendar.restore_postgres(58, 6, days=8)
    return calendar


# Days on which Redis lost what no run had read (6: FLUSHALL, 13: failover, 17 and 19: evictions), or whose keys were
# gone before anybody could read them: 31 (a short-lived counter in an outage a little longer than the TTL), 33 (a
# counter that came 20 days late), 40 and 41 (the long outage), 50 (the old backup).
LOSSES = {6, 13, 17, 19, 31, 33, 40, 41, 50}
# Nobody can know whether all of their keys lived until they were read.
UNPROVABLE = {31, 40, 41, 42, 50, 51}
# Of this one a person says that what is stored stands.
KEPT = 40


@pytest.mark.usefixtures("quiet")
def test_sixty_days_with_their_accidents(world: World) -> None:
    live(world, a_life())
    assert world.violations == []
    assert world.red == {}, "nothing of all this is the run's own failure"
    dates = {number: START.date() + number * DAY for number in range(DAYS)}
    assert {number for number, date in dates.items() if date in world.damaged} == LOSSES
    stored = world.stored()
    assert [key for key, value in stored.items() if value > world.truth[key]] == [], "billed, and never used"
    untold = {
        str(date): wrong
        for date in dates.values()
        if (wrong := world.wrong(date, world.truth)) and not visible.is_told(world.conn, date)
    }
    assert untold == {}
    sealed = {number for number, date in dates.items() if visible.is_sealed(world.conn, date)}
    assert dates.keys() - sealed == UNPROVABLE - {KEPT}, "each day whose keys were read in time is sealed"
