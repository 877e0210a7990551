"""A day read hour by hour, whatever happens in between: its curve adds up, and says what was read when."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Barrier
from zoneinfo import ZoneInfo

import pytest

from local.servers import Valkey
from merchant_usage import pipeline
from merchant_usage.errors import UsageError
from merchant_usage.model.curve import Step, by_hours
from merchant_usage.model.dates import KeyRules
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.run import Run
from merchant_usage.settings import Settings
from merchant_usage.sink import curves
from merchant_usage.sink.curves import Wanted
from tests.faults import database_clock
from tests.faults.engine import At, heard
from tests.support import TODAY, Connect, Usage, key, settings

HOUR = dt.timedelta(hours=1)
DELAY = dt.timedelta(seconds=20)
UTC, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")
A_DAY = dt.date(2026, 11, 20)
AN_HOUR = 10


@dataclass
class Day:
    """A counter that grows by ten an hour, and runs a little after the end of each."""

    usage: Usage
    date: dt.date
    settings: Settings
    counter: CounterKey = field(init=False)

    def __post_init__(self) -> None:
        self.counter = key("acme", self.date)
        database_clock.install(self.usage.conn)

    @property
    def ends(self) -> list[dt.datetime]:
        """When its hours end."""
        rules = KeyRules.of(self.settings)
        begin, end = rules.midnight(self.date), rules.midnight(self.date + dt.timedelta(days=1))
        return [begin + HOUR * n for n in range(1, (end - begin) // HOUR + 1)]

    def count(self) -> None:
        """An hour of usage."""
        self.usage.client.incrby(f"usage:acme:{self.date}:queries", AN_HOUR)

    def read(self, at: dt.datetime) -> None:
        """A run."""
        database_clock.set_to(self.usage.conn, at)
        run = Run(self.usage.new_run_id(), "scheduled", (self.date,), at)
        pipeline.aggregate(self.usage.client, self.usage.conn, run, self.settings)

    def pass_hours(self, without: Collection[int] = ()) -> None:
        """All of them; some without a run."""
        for number, end in enumerate(self.ends):
            self.count()
            if number not in without:
                self.read(end + DELAY)

    def steps(self) -> list[Step]:
        return curves.steps(self.usage.conn, Wanted("acme", self.date, self.date))

    def assert_whole(self, hours: int) -> None:
        """The curve goes from midnight to the last reading without a gap, and is what was counted."""
        steps = self.steps()
        assert steps[0].from_at == KeyRules.of(self.settings).midnight(self.date)
        assert [step.to_at for step in steps[:-1]] == [step.from_at for step in steps[1:]]
        assert sum(step.value for step in steps) == hours * AN_HOUR == self.usage.rows()[self.counter]
        assert not any(step.correction for step in steps)
        assert curves.broken(self.usage.conn, [self.date], 1) == {}


@pytest.fixture
def day(usage: Usage) -> Callable[..., Day]:
    def make(date: dt.date = A_DAY, zone: ZoneInfo = UTC) -> Day:
        return Day(usage, date, settings(timezone=zone))

    return make


@pytest.mark.parametrize(
    ("date", "hours"), [(dt.date(2026, 3, 29), 23), (A_DAY, 24), (dt.date(2026, 10, 25), 25)], ids=["23", "24", "25"]
)
def test_a_day_has_a_row_for_each_of_its_hours(day: Callable[..., Day], date: dt.date, hours: int) -> None:
    of_day = day(date, BERLIN)
    of_day.pass_hours()
    of_day.assert_whole(hours)
    found = by_hours(of_day.steps(), BERLIN)
    assert [step.value for step in found] == [AN_HOUR] * hours
    shown = [step.middle.astimezone(BERLIN).hour for step in found]
    assert sorted(set(shown)) == [hour for hour in range(24) if hours != 23 or hour != 2]
    assert shown.count(2) == hours - 23


def test_an_outage_of_five_hours_is_one_row(day: Callable[..., Day]) -> None:
    of_day = day()
    of_day.pass_hours(without=range(8, 13))
    of_day.assert_whole(24)
    steps = of_day.steps()
    assert [step.value for step in steps] == [AN_HOUR] * 8 + [6 * AN_HOUR] + [AN_HOUR] * 10
    assert steps[8].to_at - steps[8].from_at == 6 * HOUR
    assert by_hours(steps, UTC) == steps


def test_catch_up_invents_nothing(day: Callable[..., Day]) -> None:
    """The runs that were missed come one after the other, and all read what there is now."""
    of_day = day()
    of_day.pass_hours(without=range(8, 24))
    for number in range(16):
        of_day.read(of_day.ends[-1] + DELAY * (1 + number))
    of_day.assert_whole(24)
    assert [step.value for step in of_day.steps()] == [AN_HOUR] * 8 + [16 * AN_HOUR]


def test_a_backfill_changes_nothing(day: Callable[..., Day], usage: Usage) -> None:
    of_day = day()
    of_day.pass_hours()
    before, versions = of_day.steps(), usage.everything()["usage_hourly_history"]
    for _ in range(3):
        of_day.read(of_day.ends[-1] + dt.timedelta(days=2))
    assert of_day.steps() == before
    assert usage.everything()["usage_hourly_history"] == versions


def test_what_comes_after_midnight_belongs_to_the_last_hour(day: Callable[..., Day]) -> None:
    of_day = day()
    of_day.pass_hours()
    of_day.count()
    of_day.read(of_day.ends[-1] + HOUR)
    of_day.assert_whole(25)
    assert of_day.steps()[-1].to_at == of_day.ends[-1] + HOUR


@pytest.mark.parametrize(
    "moment", ["sql:upsert_staged", "did:upsert_staged", "commit:upsert_staged", "committed:upsert_staged"]
)
def test_a_killed_run_that_is_repeated_leaves_the_same_rows(
    usage: Usage, valkey: Valkey, database_url: str, moment: str
) -> None:
    class Killed(BaseException):
        """The process is no more."""

    def kill() -> None:
        raise Killed

    counters = [key(f"m{number}", TODAY) for number in range(20)]
    for value in (5, 7):
        usage.write(dict.fromkeys(counters, value))
        if value == 7:
            with suppress(Killed, UsageError), heard(valkey.url, database_url, At(moment, do=kill)) as (client, conn):
                pipeline.aggregate(client, conn, Run("killed", "manual", (TODAY,), _noon()), settings())
        usage.aggregate(TODAY)
    for counter in counters:
        steps = curves.steps(usage.conn, Wanted(counter.merchant_id, TODAY, TODAY))
        assert [step.value for step in steps] == [5, 2]
    assert usage.conn.execute("SELECT count(*) FROM usage_hourly_history").fetchone() == (20,)


def _noon() -> dt.datetime:
    return dt.datetime.combine(TODAY, dt.time(12), dt.UTC)


def test_runs_of_one_hour_at_once(usage: Usage, connect: Connect) -> None:
    """While the counters go on. What one of them does not see lies within a longer step of the other."""
    counters = [key(f"m{number}", TODAY) for number in range(300)]
    conns = [connect() for _ in range(3)]
    usage.write(dict.fromkeys(counters, 1))
    usage.aggregate(TODAY)
    for number in range(4):
        together = Barrier(len(conns))

        def work(index: int, number: int = number, together: Barrier = together) -> None:
            together.wait()
            usage.write(dict.fromkeys(counters, 2 + 10 * number + index))
            run = Run(f"run {number} {index}", "manual", (TODAY,), _noon())
            with suppress(UsageError):  # a counter that another has set back went backwards: that is for a person
                pipeline.aggregate(usage.client, conns[index], run, settings())

        with ThreadPoolExecutor(len(conns)) as pool:
            list(pool.map(work, range(len(conns))))
        rows = usage.rows()
        for counter in counters:
            steps = curves.steps(usage.conn, Wanted(counter.merchant_id, TODAY, TODAY))
            assert sum(step.value for step in steps) == rows[counter]
            assert all(step.value > 0 for step in steps)
        assert curves.broken(usage.conn, [TODAY], 1) == {}
