"""A month that never was, on the demo's own servers: the engine moves and proves it by a clock of its own.

    python -m local.demo.past 2026-11-27T20:00:00+00:00

So there is something to look at: a spike, a counter that went backwards and waits for a decision, one that was decided,
a day of which usage came after it was sealed. It runs in a process of its own, because in it time is another.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import redis
from psycopg import Connection

from local.rhythm import HOUR, hours_between, usage_of
from local.traffic import PREFIX, TTL, count_all
from merchant_usage import clock, pipeline
from merchant_usage.connections import postgres_from_url, redis_from_url
from merchant_usage.log import send_to, with_fields
from merchant_usage.model.keys import CounterKey, build_key
from merchant_usage.model.run import CLI, CLI_IDS, Run
from merchant_usage.settings import Settings, load_settings
from merchant_usage.steps.resolve import Decision, Ruling, decide

DAYS: Final = 30
DAY: Final = dt.timedelta(days=1)
# A run begins so long after the end of its hour.
DELAY: Final = dt.timedelta(seconds=20)
#: Once the day before is settled.
NIGHTLY: Final = 2
#: A run takes a twentieth of a second: every hour would make the demo half a minute longer.
HOURS_BETWEEN: Final = 12
MADE_BY: Final = "the demo"

CLOCK: Final = """
DROP SCHEMA IF EXISTS usage_demo_clock CASCADE;
CREATE SCHEMA usage_demo_clock;
CREATE FUNCTION usage_demo_clock.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$SELECT current_setting('usage_demo.now')::timestamptz$$;
SET search_path = usage_demo_clock, pg_catalog, public;
-- It is all made up, and made again if it is lost.
SET synchronous_commit = off;
"""
NO_CLOCK: Final = "DROP SCHEMA usage_demo_clock CASCADE"


class Event(NamedTuple):
    """What happened to a counter: so many days before the last one, in the hour that begins then."""

    days_ago: int
    hour: int
    merchant: str
    metric: str

    def key(self, last: dt.date) -> CounterKey:
        """Its counter."""
        return CounterKey(self.merchant, last - self.days_ago * DAY, self.metric)

    def moment(self, last: dt.date) -> dt.datetime:
        """Its hour."""
        return dt.datetime.combine(last - self.days_ago * DAY, dt.time(self.hour), dt.UTC)


#: So much more than usual was counted in each of three hours.
SPIKE: Final = Event(10, 13, "daily*deals", "api_calls")
SPIKE_HOURS: Final = 3
SPIKE_UNITS: Final = 8_700
#: Redis lost a part of these two.
FELL_AND_WAITS: Final = Event(3, 19, "fjord-outdoor", "queries")
FELL_AND_WAS_DECIDED: Final = Event(12, 21, "hanoi-phở", "emails_sent")
LEFT_AFTER_FALL: Final = 0.6
DECIDED: Final = Ruling(
    Decision.ACCEPT, "anna", "A load test had been counted, and was taken out of the counter again; agreed with them."
)
DECIDED_AFTER: Final = dt.timedelta(hours=12)
#: An instance that was cut off counted this the day after.
CAME_LATE: Final = Event(5, 23, "kyoto-お茶", "queries")
LATE_BY: Final = dt.timedelta(hours=16)
LATE_UNITS: Final = 412

TOLD: Final = {
    FELL_AND_WAITS: f"went backwards at {FELL_AND_WAITS.hour}:00, and waits for your decision",
    CAME_LATE: f"{LATE_UNITS} came in after the day was sealed: it was sealed anew",
    SPIKE: f"a spike, {SPIKE.hour}:00 to {SPIKE.hour + SPIKE_HOURS}:00",
    FELL_AND_WAS_DECIDED: f"went backwards, and {DECIDED.decided_by} has decided",
}
#: Days that are read every hour: what happened on them can be looked at closely.
CLOSELY: Final = frozenset({SPIKE.days_ago, FELL_AND_WAITS.days_ago, 1, 0})
#: Days whose nightly run goes through all that Redis still has, which is how what came late is found.
SWEPT: Final = frozenset(range(CAME_LATE.days_ago))


class Past:
    """Servers, and a clock that is set."""

    def __init__(self, client: redis.Redis, conn: Connection, until: dt.datetime) -> None:
        """Everything up to a full hour."""
        self._client = client
        self._conn = conn
        self._last = until.date()
        self._first = self._last - DAYS * DAY
        self._settings: Settings = load_settings({"USAGE_START_DATE": str(self._first)})
        #: When each key's time to live is over, by date.
        self._expiry: dict[dt.date, dict[bytes, dt.datetime]] = defaultdict(dict)
        self._uncounted: Counter[CounterKey] = Counter()
        self._set(dt.datetime.combine(self._first, dt.time(), dt.UTC))

    def live(self, until: dt.datetime, really_now: dt.datetime) -> None:
        """All of it. What was counted since the last run is for the demo's own."""
        while self._now < until:
            self._pass_hour()
        for hour, part in hours_between(until, really_now):
            self._uncounted.update(dict(usage_of(hour, part)))
        self._count(really_now)
        self._set_lives()

    def present(self) -> dt.datetime:
        """The time it is, in which seconds pass as they do."""
        return self._now + dt.timedelta(seconds=time.monotonic() - self._set_at)

    def _set(self, moment: dt.datetime) -> None:
        self._now, self._set_at = moment, time.monotonic()
        self._conn.execute("SELECT set_config('usage_demo.now', %s, false)", [moment.isoformat()])

    def _pass_hour(self) -> None:
        hour = self._now
        days_ago = (self._last - hour.date()).days
        if hour.hour == 0:
            self._forget(hour.date() - TTL - DAY)
        self._uncounted.update(dict(usage_of(hour)))
        self._happen(hour)
        self._set(hour + HOUR + DELAY)
        if hour.hour + 1 == NIGHTLY:
            self._run(hour.date(), since=hour.date() - (TTL if days_ago in SWEPT else DAY))
        elif days_ago in CLOSELY or (hour.hour + 1) % HOURS_BETWEEN == 0:
            self._run(hour.date())
        self._set(hour + HOUR)

    def _happen(self, hour: dt.datetime) -> None:
        last = self._last
        if dt.timedelta() <= hour - SPIKE.moment(last) < SPIKE_HOURS * HOUR:
            self._uncounted[SPIKE.key(last)] += SPIKE_UNITS
        for fell in (FELL_AND_WAITS, FELL_AND_WAS_DECIDED):
            if hour == fell.moment(last):
                # What no run has read nobody can miss.
                self._run(hour.date())
                name = build_key(PREFIX, fell.key(last))
                held: Any = self._client.get(name)
                self._client.set(name, int(int(held) * LEFT_AFTER_FALL), keepttl=True)
        if hour == FELL_AND_WAS_DECIDED.moment(last) + DECIDED_AFTER:
            date = FELL_AND_WAS_DECIDED.key(last).date
            decide(self._client, self._conn, DECIDED, PREFIX, date=date)
            self._run(date, by=DECIDED.decided_by)
        if hour == CAME_LATE.moment(last) + LATE_BY:
            self._uncounted[CAME_LATE.key(last)] += LATE_UNITS

    def _count(self, now: dt.datetime | None = None) -> None:
        """Let Redis have what was counted since this was last done."""
        for name, date in count_all(self._client, self._uncounted.items()):
            self._expiry[date][name] = (now or self._now) + TTL
        self._uncounted.clear()

    def _forget(self, date: dt.date) -> None:
        if names := self._expiry.pop(date, None):
            self._client.delete(*names)

    def _set_lives(self) -> None:
        """What Redis was told last is by its own clock."""
        pipeline_of_redis = self._client.pipeline(transaction=False)
        for names in self._expiry.values():
            for name, end in names.items():
                pipeline_of_redis.expireat(name, end)
        pipeline_of_redis.execute()

    def _run(self, date: dt.date, since: dt.date | None = None, by: str = MADE_BY) -> None:
        self._count()
        first = max(since or date, self._first)
        dates = tuple(first + n * DAY for n in range((date - first).days + 1))
        now = self.present()
        run = Run(f"{CLI_IDS}{now.isoformat()}", CLI, dates, now, requested_by=by)
        pipeline.aggregate(self._client, self._conn, run, self._settings)


@contextmanager
def clock_of(past: Past) -> Iterator[None]:
    """Whoever asks for the time meanwhile is told that of the past."""
    real = clock.now
    clock.now = past.present
    try:
        yield
    finally:
        clock.now = real


def main(arguments: Sequence[str]) -> int:
    """Make it, up to a moment, on the servers that the environment names."""
    until = dt.datetime.fromisoformat(arguments[0])
    send_to(lambda _, __, sentence, fields: print(with_fields(sentence, fields)))
    with redis_from_url() as client, postgres_from_url() as conn:
        assert isinstance(client, redis.Redis)  # the demo's own
        conn.execute(CLOCK)
        past, really_now = Past(client, conn, until), clock.now()
        with clock_of(past):
            past.live(until, really_now)
        conn.execute(NO_CLOCK)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
