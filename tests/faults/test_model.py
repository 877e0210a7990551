"""Any history of a life: no date is sealed whose rows are not the truth, unless people were told of it.

How long it searches is the hypothesis profile's matter.
"""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from threading import Barrier
from typing import Any
from unittest import mock
from zoneinfo import ZoneInfo

import pytest
import redis
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg import Connection

from local.servers import Valkey
from merchant_usage import clock, pipeline
from merchant_usage.errors import SettingsError, UsageError
from merchant_usage.model.batches import Batch
from merchant_usage.model.dates import KeyRules, local_date
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.report import DateReport
from merchant_usage.model.run import Plan, Run
from merchant_usage.settings import OnRegression, Settings
from merchant_usage.sink import curves, ledger, schema
from merchant_usage.steps import scan
from merchant_usage.steps.resolve import Decision, Ruling, decide
from merchant_usage.steps.store import BatchResult
from tests.conftest import Connect
from tests.faults import database_clock, visible
from tests.faults.engine import At, heard
from tests.faults.model import Counter
from tests.faults.scheduled import run_scheduled
from tests.support import NOW, Usage, raw, settings

DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)
TTL = 7 * DAY
# Four runs a day, so that weeks pass in a second.
INTERVAL = 6 * HOUR
# Real time that a key has to live at least: its end comes by the machine's clock.
LEAST_MS = 60_000

#: Merchants and metric types. Few counters, so that much happens to each of them.
WHO = (("acme", "q"), ("acme", "r"), ("b:c 🎉", "q"))
UTC, BERLIN, NEW_YORK = (ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "America/New_York"))
#: Where a history begins, and by whose clock: on days that are followed by one of 23 or of 25 hours, too.
BEGINNINGS = (
    (NOW, UTC),
    (dt.datetime(2026, 3, 28, 12, 30, tzinfo=dt.UTC), BERLIN),
    (dt.datetime(2026, 10, 24, 12, 30, tzinfo=dt.UTC), BERLIN),
    (dt.datetime(2026, 3, 7, 12, 30, tzinfo=dt.UTC), NEW_YORK),
    (dt.datetime(2026, 10, 31, 12, 30, tzinfo=dt.UTC), NEW_YORK),
)
POISON = b"1_000"
RUNS_AT_ONCE = 2
#: Histories in a usual run of the suite, always the same; the profile `thorough` tries as many new ones as it says.
IN_CI = 50

amounts = st.integers(1, 50)
who = st.sets(st.sampled_from(WHO), min_size=1)
ages = st.sets(st.sampled_from((0, 0, 1, 2, 8)), min_size=1)
modes = st.sampled_from(OnRegression)


class Crash(BaseException):
    """The process is no more: nothing of it catches this, and PostgreSQL rolls back."""


@dataclass
class UnderWay:
    """A DAG run whose tasks come one by one, as late and as often as they like."""

    run: Run
    plan: Plan
    batches: Sequence[Batch]
    results: dict[int, BatchResult] = field(default_factory=dict)


@dataclass(frozen=True)
class Past:
    """A backup of PostgreSQL, and what runs had seen by then."""

    tables: visible.Backup
    counters: dict[CounterKey, Counter]
    lowest: dict[CounterKey, int]


class Machine(RuleBasedStateMachine):
    """The real servers beside the truth."""

    def __init__(self, client: redis.Redis, connect: Callable[[], Connection], urls: tuple[str, str]) -> None:
        super().__init__()
        self.client = client
        self.connect = connect
        self.urls = urls
        self.conns = [connect() for _ in range(RUNS_AT_ONCE)]
        self.usage = Usage(client, self.conns[0], count(1))
        self.model: dict[CounterKey, Counter] = {}
        # Both as in the first of the beginnings, until one is drawn.
        self.settings = settings()
        self.now = NOW
        self.next_interval = NOW
        self.under_way: list[UnderWay] = []
        self.backups: list[Past] = []
        self.replica: dict[CounterKey, int] = {}
        #: Dates that lost what no run had read, when their keys' time was over: they must be told.
        self.must_be_told: set[dt.date] = set()
        #: Dates that lost something that nobody can see.
        self.excused: set[dt.date] = set()
        self.lowest: dict[CounterKey, int] = {}
        self.fell_back = False
        self.patches = ExitStack()
        self.patches.enter_context(mock.patch.object(clock, "now", self.present))

    def present(self) -> dt.datetime:
        return self.now

    @initialize(by=amounts, beginning=st.sampled_from(BEGINNINGS))
    def begin(self, by: int, beginning: tuple[dt.datetime, ZoneInfo]) -> None:
        self.client.flushall()
        conn = self.usage.conn
        self.now, zone = beginning
        database_clock.set_to(conn, self.now)
        self.next_interval = self.now.replace(minute=0)
        self.settings = settings(
            start=(self.now - 30 * DAY).replace(tzinfo=None),
            interval_ms=int(INTERVAL.total_seconds() * 1000),
            timezone=zone,
        )
        conn.execute("DROP TABLE merchant_usage CASCADE")
        conn.execute("CREATE TABLE merchant_usage (LIKE unparted INCLUDING ALL) PARTITION BY RANGE (date)")
        with conn.transaction():
            conn.execute("SET LOCAL session_replication_role = replica")
            conn.execute(
                "TRUNCATE usage_dead_letter, usage_run, usage_reading, usage_alert, usage_decision, usage_deletion,"
                " usage_absence, usage_proposal, usage_seal, usage_seal_page, usage_correction, usage_hourly_history"
            )
        schema.migrate(conn)  # the views stand on the table that was dropped
        self.make_partitions()
        self.increment({0, 1}, set(WHO), by)

    def teardown(self) -> None:
        try:
            if self.model and sys.exc_info()[0] is None:
                self.come_to_rest()
        finally:
            self.patches.close()
            for conn in self.conns:
                conn.close()

    # What happens to counters.

    def today(self) -> dt.date:
        return local_date(self.now, self.settings)

    def dates(self, chosen: Iterable[int]) -> tuple[dt.date, ...]:
        return tuple(sorted({self.today() - age * DAY for age in chosen}))

    def of(self, chosen: Iterable[int], whose: Iterable[tuple[str, str]]) -> list[tuple[CounterKey, Counter]]:
        keys = [CounterKey(merchant, date, metric) for merchant, metric in sorted(whose) for date in self.dates(chosen)]
        return [(key, self.model.setdefault(key, Counter())) for key in keys]

    @rule(chosen=ages, whose=who, by=amounts)
    def increment(self, chosen: set[int], whose: set[tuple[str, str]], by: int) -> None:
        for key, counter in self.of(chosen, whose):
            if not isinstance(counter.redis, bytes):
                counter.increment(by, self.now + TTL)
                self.client.incrby(raw(key), by)

    @rule(chosen=ages, whose=who, to=st.integers(0, 20))
    def lose(self, chosen: set[int], whose: set[tuple[str, str]], to: int) -> None:
        """An eviction, DEL; or it is counted again at once."""
        self.sync()
        for key, counter in self.of(chosen, whose):
            self.end(key, counter)
            if to:
                counter.increment(to, self.now + TTL)
                self.client.set(raw(key), to)

    @rule()
    def flush(self) -> None:
        self.sync()
        for key, counter in self.model.items():
            if counter.redis is not None:
                self.end(key, counter)
        self.client.flushall()

    def end(self, key: CounterKey, counter: Counter) -> None:
        """A life is over before its time; if no run had read all of it, nobody can know."""
        self.client.delete(raw(key))
        if counter.end() > 0:
            self.excused.add(key.date)

    @rule(chosen=ages, whose=who, mended=st.booleans())
    def poison(self, chosen: set[int], whose: set[tuple[str, str]], mended: bool) -> None:
        """Whatever a client does wrong; some see it and put it right."""
        self.sync()
        for key, counter in self.of(chosen, whose):
            if isinstance(counter.redis, int):
                value, expires = counter.redis, counter.expires
                self.client.set(raw(key), POISON)
                if mended:
                    counter.redis = POISON
                    self.aggregate(self.dates({0, 1}), None, self.settings)
                    self.client.set(raw(key), value)
                    counter.redis, counter.expires = value, expires
                else:
                    self.end(key, counter)
                    counter.redis = POISON
                    self.client.set(raw(key), POISON)

    @rule()
    def replicate(self) -> None:
        """A replica has got everything up to now."""
        self.replica = {key: c.redis for key, c in self.model.items() if isinstance(c.redis, int)}

    @precondition(lambda self: self.replica)
    @rule()
    def fail_over(self) -> None:
        """It takes over; what was counted since is lost."""
        self.sync()
        for key, value in self.replica.items():
            counter = self.model[key]
            if isinstance(counter.redis, int) and value < counter.redis and counter.lives == 0:
                self.fell_back = True
                if not counter.fall_back(value):
                    self.excused.add(key.date)
                self.client.set(raw(key), value)

    # Time.

    @rule(hours=st.sampled_from((1, 5, 13, 24, 60, 24 * 8)))
    def nothing_runs(self, hours: int) -> None:
        """The scheduler is down, or time just passes."""
        self.pass_time(hours * HOUR)

    def pass_time(self, time: dt.timedelta) -> None:
        self.sync()
        self.set_clock(self.now + time)
        for key, counter in self.model.items():
            if counter.expires is not None and counter.expires <= self.now:
                if counter.unseen and not self.is_complete(key.date):
                    self.must_be_told.add(key.date)
                self.client.delete(raw(key))
                if counter.end() > 0 and self.is_complete(key.date):
                    self.excused.add(key.date)

    def pass_second(self) -> None:
        self.set_clock(self.now + dt.timedelta(seconds=1))

    def set_clock(self, at: dt.datetime) -> None:
        """Ours, and PostgreSQL's."""
        self.now = at
        database_clock.set_to(self.usage.conn, at)

    def is_complete(self, date: dt.date) -> bool:
        """Whether a run has read the end of a date: what came later, and went unread, nobody can know."""
        row = self.usage.conn.execute(
            "SELECT EXISTS (SELECT FROM usage_run WHERE usage_date = %s AND complete)", [date]
        ).fetchone()
        return row == (True,)

    @rule()
    def make_partitions(self) -> None:
        """For the days up to the day after tomorrow; without it they are missing some day."""
        for days in range(-12, 3):
            self.make_partition(self.now.date() + days * DAY)

    def make_partition(self, day: dt.date) -> None:
        statement = f"CREATE TABLE IF NOT EXISTS usage_{day:%Y%m%d} PARTITION OF merchant_usage"
        self.usage.conn.execute(f"{statement} FOR VALUES FROM ('{day}') TO ('{day + DAY}')".encode())

    @rule(
        settle=st.sampled_from((0, 2, 6)),
        zone=st.sampled_from((UTC, BERLIN, NEW_YORK)),
        cleaning=st.booleans(),
    )
    def change_settings(self, settle: int, zone: ZoneInfo, cleaning: bool) -> None:
        self.settings = settings(
            start=self.settings.start,
            interval_ms=self.settings.interval_ms,
            settle_hours=settle,
            timezone=zone,
            delete_stale_keys=cleaning,
        )

    # Runs.

    def chosen(self, mode: OnRegression, **changes: Any) -> Settings:
        """The settings of a run. After a failover nobody lets runs carry by themselves."""
        carry = OnRegression.KEEP if self.fell_back else mode
        return replace(self.settings, on_regression=carry, **changes)

    def tick(self) -> None:
        """A run begins: a little later than the one before, and Redis tells what its keys have to live by our clock."""
        self.pass_second()
        real = int(time.time() * 1000)
        pipe = self.client.pipeline(transaction=False)
        for key, counter in self.model.items():
            if counter.expires is not None and counter.redis is not None:
                left = int((counter.expires - self.now).total_seconds() * 1000)
                pipe.pexpireat(raw(key), real + max(left, LEAST_MS))
        pipe.execute()

    @rule(mode=modes)
    def scheduled(self, mode: OnRegression) -> None:
        """All that is due by now."""
        while self.next_interval + INTERVAL <= self.now:
            self.tick()
            try:
                reports = run_scheduled(self.client, self.conns[0], self.next_interval, self.chosen(mode))
            except UsageError:
                self.not_sure()
            else:
                self.done(reports or ())
            self.next_interval += INTERVAL

    @rule(chosen=ages, mode=modes, tasks=st.sampled_from((1, 2, 32)))
    def run(self, chosen: set[int], mode: OnRegression, tasks: int) -> None:
        self.aggregate(self.dates(chosen), None, self.chosen(mode, max_mapped_tasks=tasks))

    @rule(chosen=ages, mode=modes, merchant=st.sampled_from(["acme", "b:c 🎉"]))
    def run_of_one_merchant(self, chosen: set[int], mode: OnRegression, merchant: str) -> None:
        self.aggregate(self.dates(chosen), (merchant,), self.chosen(mode))

    def aggregate(self, dates: tuple[dt.date, ...], merchants: tuple[str, ...] | None, chosen: Settings) -> None:
        self.tick()
        run = Run(self.usage.new_run_id(), "manual", dates, self.now, merchants)
        try:
            proof = pipeline.aggregate(self.client, self.conns[0], run, chosen)
        except UsageError:
            self.not_sure()
        else:
            self.done(proof.reports)

    @rule(both=st.tuples(ages, ages), mode=modes)
    def runs_at_once(self, both: tuple[set[int], set[int]], mode: OnRegression) -> None:
        self.tick()
        together = Barrier(RUNS_AT_ONCE)
        chosen = self.chosen(mode)

        def work(number: int) -> Sequence[DateReport]:
            begun = self.now + number * dt.timedelta(milliseconds=1)
            run = Run(self.usage.new_run_id(), "manual", self.dates(both[number]), begun)
            together.wait()
            return pipeline.aggregate(self.client, self.conns[number], run, chosen).reports

        with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
            working = [pool.submit(work, number) for number in range(RUNS_AT_ONCE)]
        for one in working:
            if one.exception() is None:
                self.done(one.result())
            else:
                assert isinstance(one.exception(), UsageError), one.exception()
                self.not_sure()

    @rule(
        chosen=ages,
        mode=modes,
        moment=st.sampled_from(
            ("page", "sql:note_scan", "copied", "commit:upsert_staged", "committed:upsert_staged", "commit:finish_run")
        ),
    )
    def run_that_crashes(self, chosen: set[int], mode: OnRegression, moment: str) -> None:
        self.tick()

        def crash() -> None:
            raise Crash

        with suppress(Crash, UsageError), heard(*self.urls, At(moment, do=crash)) as (client, conn):
            run = Run(self.usage.new_run_id(), "manual", self.dates(chosen), self.now)
            pipeline.aggregate(client, conn, run, self.chosen(mode))
        self.not_sure()

    # Tasks of runs that take their time.

    @rule(chosen=ages, mode=modes)
    def begin_run(self, chosen: set[int], mode: OnRegression) -> None:
        self.tick()
        run = Run(self.usage.new_run_id(), "manual", self.dates(chosen), self.now)
        self.under_way = [*self.under_way[-2:], self.scanned(run, mode)]

    def scanned(self, run: Run, mode: OnRegression) -> UnderWay:
        plan, batches = scan.scan(self.client, self.conns[0], run, self.chosen(mode, max_mapped_tasks=2))
        self.not_sure()
        return UnderWay(run, plan, batches)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 2), mode=modes)
    def clear_scan(self, which: int, mode: OnRegression) -> None:
        """The same run id once more. Tasks of its first time may still be there: they stay in the list."""
        old = self.under_way[which % len(self.under_way)]
        self.tick()
        run = Run(old.run.run_id, old.run.run_type, old.run.dates, self.now)
        self.under_way = [*self.under_way[-2:], self.scanned(run, mode)]

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 2), number=st.integers(0, 1), mode=modes)
    def store_one(self, which: int, number: int, mode: OnRegression) -> None:
        one = self.under_way[which % len(self.under_way)]
        if number < len(one.batches):
            with suppress(UsageError):
                one.results[number] = pipeline.store(
                    self.client, self.conns[0], one.batches[number], one.run.run_id, self.chosen(mode)
                )
            self.not_sure()

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 2), stores=st.booleans(), mode=modes)
    def prove_one(self, which: int, stores: bool, mode: OnRegression) -> None:
        one = self.under_way[which % len(self.under_way)]
        if stores:
            for number in range(len(one.batches)):
                self.store_one(which, number, mode)
        self.tick()
        plan = one.plan.resettled(self.now, self.settings)
        with suppress(UsageError):
            proof = pipeline.prove(
                self.client, self.conns[0], plan, one.batches, list(one.results.values()), self.chosen(mode)
            )
            # What came after its scan and has no row, it has not seen.
            scanned = {key for batch in one.batches for key in batch.counter_keys()}
            self.check_reports(proof.reports, scanned | self.rows().keys())
        self.not_sure()

    # What runs leave behind.

    def done(self, reports: Iterable[DateReport]) -> None:
        """A run has read all of these dates."""
        whole = {report.date for report in reports if report.merchants is None}
        flagged = self.flagged()
        cleaned = self.settings.delete_stale_keys
        rows, noted = self.rows(), self.noted()
        for key, counter in self.model.items():
            if key.date in whole:
                self.is_noted_or_told(key, counter, rows.get(key, (0, 0)), is_told=raw(key) in flagged)
                counter.read(is_flagged=raw(key) in flagged)
                counter.is_noted = key in noted
                if cleaned and counter.redis is not None and not self.client.exists(raw(key)):
                    # Deleted by clean-up, which carries it: that it ended is known.
                    counter.end()
                    counter.fell_from = None
        self.not_sure()
        self.check_reports(reports)

    def is_noted_or_told(self, key: CounterKey, counter: Counter, row: tuple[int, int], *, is_told: bool) -> None:
        """What was stored and is gone before its time is noted; when it is back with more, a person decides."""
        fell_from, (value, carried) = counter.fell_from, row
        if fell_from is None or counter.is_bounded or is_told or value == carried:
            return
        if counter.redis is None and self.now < KeyRules.of(self.settings).kept_until(key.date) - DAY:
            assert key in self.noted(), f"{key} is gone, and nobody notes it: {self.story(key.date)}"
        if isinstance(counter.redis, int) and counter.is_noted and counter.redis > fell_from:
            assert value == counter.past + counter.redis, f"{key} began anew, unseen: {self.story(key.date)}"

    def noted(self) -> set[CounterKey]:
        """Keys that are known to be gone."""
        rows = self.usage.conn.execute("SELECT merchant_id, date, metric_type FROM usage_absence")
        return {CounterKey(*row) for row in rows}

    def not_sure(self) -> None:
        """Some of a run, or all of it, has read any counter; what, `sync` finds out."""
        for counter in self.model.values():
            counter.is_unsure = True

    def sync(self) -> None:
        """Find out what was seen last, from what is stored; it is in between what it was and what Redis has."""
        rows, letters = self.rows(), self.last_seen()
        for key, counter in self.model.items():
            if not counter.is_unsure:
                continue
            counter.is_unsure = False
            if counter.is_bounded or key not in rows:
                continue
            flagged = raw(key) in letters
            value = letters[raw(key)] if flagged else rows[key][0] - counter.past
            if isinstance(counter.redis, int):
                if flagged and value is None:
                    counter.fell_from = None  # it was seen to be away, and has come back since
                    value = 0 if counter.seen == 0 else counter.seen
                if counter.fell_from is not None and value is not None and (flagged or value != 0):
                    if not flagged or value >= counter.fell_from:
                        counter.is_bounded = True
                    counter.fell_from = None
                    if counter.is_bounded:
                        continue
                assert value is not None
                assert counter.seen <= value <= counter.redis, f"{key}: {value} was seen, {counter}"
                counter.seen, counter.is_read = value, True
            elif flagged and value is None:
                counter.fell_from = None

    def check_reports(self, reports: Iterable[DateReport], among: Collection[CounterKey] | None = None) -> None:
        """A date that is called verified once it is over is the truth, as far as anybody could see."""
        rows, flagged = self.rows(), self.flagged()
        for report in reports:
            if report.verdict != "verified" or not report.settled or report.merchants is not None:
                continue
            for key, counter in self.model.items():
                if key.date != report.date or (among is not None and key not in among):
                    continue
                assert raw(key) not in flagged, f"{report.date} is verified, and {key} waits for a decision"
                assert not (isinstance(counter.redis, bytes) and counter.is_read), f"{key} holds garbage"
                if not counter.is_bounded and isinstance(counter.redis, int) and counter.fell_from is None:
                    stored = rows.get(key, (0, 0))[0]
                    assert stored == counter.past + counter.redis, f"verified: {self.story(report.date)}"
            if report.date in self.must_be_told and report.date >= self.first_day():
                assert visible.is_decided(self.usage.conn, report.date), (
                    f"lost, and verified: {self.story(report.date)}"
                )

    def first_day(self) -> dt.date:
        """The day of the first run: of older ones nobody can know what there was."""
        row = self.usage.conn.execute("SELECT min(started_at) FROM usage_run").fetchone()
        return local_date(row[0], self.settings) if row and row[0] else dt.date.max

    # What people do.

    def flagged(self) -> set[bytes]:
        return set(self.last_seen())

    def last_seen(self) -> dict[bytes, int | None]:
        """The open regressions, and what was last seen of them."""
        rows = self.usage.conn.execute(
            "SELECT redis_key, redis_value FROM usage_dead_letter"
            " WHERE reason = 'counter_regressed' AND resolved_at IS NULL"
        )
        return {bytes(key): value for key, value in rows}

    def is_waiting(self) -> bool:
        return bool(self.model) and bool(self.flagged())

    # One rule each, because hypothesis chooses rules evenly.

    @precondition(is_waiting)
    @rule(data=st.data())
    def keep(self, data: Any) -> None:
        self.decide(self.drawn(data), Decision.KEEP, self.conns[0])

    @precondition(is_waiting)
    @rule(data=st.data())
    def accept(self, data: Any) -> None:
        self.decide(self.drawn(data), Decision.ACCEPT, self.conns[0])

    @precondition(is_waiting)
    @rule(data=st.data())
    def carry(self, data: Any) -> None:
        self.decide(self.drawn(data), Decision.CARRY, self.conns[0])

    @precondition(is_waiting)
    @rule(data=st.data(), decision=st.sampled_from(Decision), mode=modes)
    def decide_during_a_verification(self, data: Any, decision: Decision, mode: OnRegression) -> None:
        key = self.drawn(data)
        self.tick()
        decides = At("did:set_snapshot", "did:select_day_totals", do=lambda: self.decide(key, decision, self.conns[1]))
        run = Run(self.usage.new_run_id(), "manual", (key.date,), self.now)
        with suppress(UsageError), heard(*self.urls, decides) as (client, conn):
            pipeline.aggregate(client, conn, run, self.chosen(mode))
        self.not_sure()

    def drawn(self, data: Any) -> CounterKey:
        flagged = self.flagged()
        return data.draw(st.sampled_from(sorted(key for key in self.model if raw(key) in flagged)))  # type: ignore[no-any-return]

    def decide(self, key: CounterKey, decision: Decision, conn: Connection) -> None:
        counter = self.model[key]
        if decision is Decision.CARRY and counter.fell_back:
            decision = Decision.KEEP
        self.sync()
        self.pass_second()
        try:
            decide(self.client, conn, Ruling(decision, "a person"), "usage", key=raw(key))
        except SettingsError:
            assert isinstance(counter.redis, bytes) or raw(key) not in self.flagged()
            return
        if decision is Decision.CARRY:
            counter.read(is_flagged=True)
        else:
            counter.is_bounded = True
        if decision is Decision.ACCEPT:
            self.lowest.pop(key, None)

    @rule(age=st.integers(1, 12))
    def keep_date(self, age: int) -> None:
        """A person says of a date whose end nobody read that what is stored stands."""
        date = self.today() - age * DAY
        if visible.last_word(self.usage.conn, date) == "incomplete" and not self.flagged_of(date):
            self.pass_second()
            with suppress(SettingsError):  # it was decided already
                decide(self.client, self.conns[0], Ruling(Decision.KEEP, "a person"), "usage", date=date)

    def flagged_of(self, date: dt.date) -> list[CounterKey]:
        flagged = self.flagged()
        return [key for key in self.model if key.date == date and raw(key) in flagged]

    # Backups.

    @rule()
    def back_up(self) -> None:
        self.sync()
        tables = visible.back_up(self.usage.conn)
        self.backups = [
            *self.backups[-1:],
            Past(tables, {key: counter.copy() for key, counter in self.model.items()}, dict(self.lowest)),
        ]

    @precondition(lambda self: self.backups)
    @rule()
    def restore_postgres(self) -> None:
        """As it was when the oldest backup was made. Runs that were under way are no more."""
        self.sync()
        then = self.backups[0]
        self.make_partitions()
        visible.restore(self.usage.conn, then.tables)
        self.under_way, self.lowest = [], dict(then.lowest)
        for key, counter in self.model.items():
            if counter.go_back_to(then.counters.get(key)) > 0:
                kept_until = KeyRules.of(self.settings).kept_until(key.date)
                if self.now < kept_until or self.is_complete(key.date):
                    self.excused.add(key.date)
                else:
                    self.must_be_told.add(key.date)

    # What must always hold.

    def rows(self) -> dict[CounterKey, tuple[int, int]]:
        found = self.usage.conn.execute(
            "SELECT merchant_id, date, metric_type, metric_value, carried FROM merchant_usage"
        )
        return {CounterKey(*row[:3]): row[3:] for row in found}

    @invariant()
    def check(self) -> None:
        if not self.model:
            return
        self.sync()
        self.rows_are_the_truth_or_flagged()
        self.nothing_is_lowered()
        self.sealed_is_what_the_ledger_says()
        self.curves_lead_to_the_rows()

    def rows_are_the_truth_or_flagged(self) -> None:
        rows, flagged = self.rows(), self.flagged()
        for key, counter in self.model.items():
            if key not in rows:
                assert not counter.is_read, f"{key} was read and has no row: {counter}"
                continue
            value = rows[key][0]
            assert value <= counter.true, f"{key}: {value} is billed, {counter.true} was used"
            if not counter.is_bounded:
                if raw(key) in flagged:
                    assert value <= counter.known, f"{key} holds {value} at most {counter.known}: {counter}"
                else:
                    assert value == counter.known, f"{key} holds {value}, not {counter.known}: {counter}"

    def nothing_is_lowered(self) -> None:
        rows = {key: value for key, (value, _) in self.rows().items()}
        for key, value in self.lowest.items():
            assert rows[key] >= value, f"{key} fell from {value} to {rows[key]}"
        self.lowest = rows

    def sealed_is_what_the_ledger_says(self) -> None:
        dates = {key.date for key in self.model}
        sealed = {date for date in dates if visible.is_sealed(self.usage.conn, date)}
        assert ledger.sealed_dates(self.usage.conn, dates) == sealed
        shown = {date for (date,) in self.usage.conn.execute("SELECT usage_date FROM usage_sealed_date")}
        assert shown & dates == sealed

    def curves_lead_to_the_rows(self) -> None:
        """For every counter: sum(hours) = metric_value, and the points on the way are in order but for corrections."""
        conn = self.usage.conn
        found = conn.execute(
            "SELECT merchant_id, date, metric_type, sum(metric_value), count(*) FILTER (WHERE from_at > to_at),"
            " count(*) FILTER (WHERE metric_value < 0 AND NOT correction) FROM merchant_usage_hourly GROUP BY 1, 2, 3"
        ).fetchall()
        sums = {CounterKey(*row[:3]): int(row[3]) for row in found}
        assert sums == {key: value for key, (value, _) in self.rows().items()}
        assert [row for row in found if row[4] or row[5]] == []
        assert curves.broken(conn, {key.date for key in self.model}, 10) == {}

    # And in the end.

    def come_to_rest(self) -> None:
        """All is mended, nobody counts any more, people decide: each date is the truth, or was told."""
        self.sync()
        self.change_settings(2, UTC, False)
        for key, counter in self.model.items():
            if isinstance(counter.redis, bytes):
                self.client.delete(raw(key))
                counter.redis = None
        for _ in range(12):
            self.pass_time(INTERVAL)
            self.make_partitions()
            self.scheduled(OnRegression.KEEP)
            for key in list(self.model):
                if raw(key) in self.flagged():
                    self.decide(key, Decision.KEEP if self.model[key].fell_back else Decision.CARRY, self.conns[0])
        self.check()
        for date in sorted({key.date for key in self.model if self.model[key].true}):
            self.is_the_truth_or_told(date)

    def is_the_truth_or_told(self, date: dt.date) -> None:
        rows = self.rows()
        counters = {key: counter for key, counter in self.model.items() if key.date == date}
        is_exact = all(rows.get(key, (0, 0))[0] == counter.true for key, counter in counters.items())
        is_whole = all(counter.known == counter.true and not counter.is_bounded for counter in counters.values())
        told = visible.is_told(self.usage.conn, date)
        unseen = date in self.excused or any(counter.is_bounded for counter in counters.values())
        unseen = unseen or date < self.first_day()
        if is_whole and self.first_day() <= date < self.today() - DAY:
            assert is_exact, f"all of it was read, and is not stored: {self.story(date)}"
            assert told or visible.is_sealed(self.usage.conn, date), f"neither sealed nor told: {self.story(date)}"
        assert is_exact or told or unseen or date >= self.today(), f"wrong, and nobody knows: {self.story(date)}"

    def story(self, date: dt.date) -> str:
        """All that there is of a date, for whoever has to find out why."""
        rows = self.rows()
        lines = [f"{date}"]
        lines += [f"{key} stored {rows.get(key)}: {counter}" for key, counter in self.model.items() if key.date == date]
        for query in (
            "SELECT started_at, run_id, attempt, merchant_ids, settled, complete, verdict, error FROM usage_run"
            " WHERE usage_date = %s ORDER BY started_at, attempt",
            "SELECT redis_key, reason, detail, decision, resolved_at FROM usage_dead_letter WHERE usage_date = %s",
            "SELECT redis_key, decision, value_before, value_after FROM usage_decision WHERE usage_date = %s",
        ):
            lines += map(str, self.usage.conn.execute(query, [date]))
        return "\n  ".join(lines)


@pytest.mark.usefixtures("quiet")
def test_any_history(valkey: Valkey, redis_client: redis.Redis, connect: Connect, database_url: str) -> None:
    conn = connect()
    database_clock.install(conn)
    conn.execute("CREATE TABLE unparted (LIKE merchant_usage INCLUDING ALL)")
    profile = hypothesis_settings()
    # A history takes a second.
    histories = min(profile.max_examples, IN_CI) if profile.derandomize else profile.max_examples
    run_state_machine_as_test(
        lambda: Machine(redis_client, connect, (valkey.url, database_url)),  # type: ignore[arg-type]  # any callable will do
        settings=hypothesis_settings(max_examples=histories, stateful_step_count=30),
    )
