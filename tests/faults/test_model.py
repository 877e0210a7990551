"""Any history of increments, losses, runs, retries, decisions and midnights: PostgreSQL holds what the model says.

How long it searches is the hypothesis profile's matter: `HYPOTHESIS_PROFILE=thorough` takes some minutes.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter as Tally
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from threading import Barrier
from typing import Any
from unittest import mock

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
from merchant_usage.errors import SettingsError
from merchant_usage.model.dates import is_settled, oldest_kept
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.run import Run
from merchant_usage.settings import OnRegression, Settings
from merchant_usage.sink import ledger
from merchant_usage.steps import cleanup, scan
from merchant_usage.steps.resolve import Decision, decide
from tests.conftest import Connect
from tests.faults.model import Counter
from tests.support import NOW, Usage, raw, settings

# Merchants and metric types.
WHO = (("acme", "q"), ("acme", "r"), ("b:c 🎉", "q"))
# Days before today: live, over, past the retention. Few counters, so that much happens to each of them.
AGES = (0, 1, 8)
POISON = b"1_000"
RUNS_AT_ONCE = 2

modes = st.sampled_from(OnRegression)
amounts = st.integers(1, 50)
ages = st.sampled_from([{0, 1, 8}, {0, 1}, {0}, {1}, {8}])
who = st.sets(st.sampled_from(WHO), min_size=1)


class Machine(RuleBasedStateMachine):
    """The real servers beside the model."""

    def __init__(self, client: redis.Redis, connect: Callable[[], Connection]) -> None:
        super().__init__()
        self.client = client
        self.conns = [connect() for _ in range(RUNS_AT_ONCE)]
        self.usage = Usage(client, self.conns[0], count(1))
        self.model: dict[CounterKey, Counter] = {}
        self.sealed: set[dt.date] = set()
        self.lowest: dict[CounterKey, int] = {}
        self.now = NOW
        self.patches = ExitStack()
        self.patches.enter_context(mock.patch.object(clock, "now", self.present))

    def present(self) -> dt.datetime:
        return self.now

    def teardown(self) -> None:
        self.patches.close()
        for conn in self.conns:
            conn.close()

    # What happens to counters.

    def of(self, chosen: Iterable[int], whose: Iterable[tuple[str, str]]) -> list[tuple[CounterKey, Counter]]:
        keys = [CounterKey(merchant, date, metric) for merchant, metric in sorted(whose) for date in self.dates(chosen)]
        return [(key, self.model.setdefault(key, Counter())) for key in keys]

    @initialize(by=amounts)
    def begin(self, by: int) -> None:
        self.client.flushall()
        self.usage.conn.execute("TRUNCATE merchant_usage, usage_dead_letter, usage_run, usage_reading, usage_alert")
        self.increment(set(AGES), set(WHO), by)

    @rule(chosen=ages, whose=who, by=amounts)
    def increment(self, chosen: set[int], whose: set[tuple[str, str]], by: int) -> None:
        for key, counter in self.of(chosen, whose):
            if not isinstance(counter.redis, bytes):
                counter.increment(by)
                self.client.incrby(raw(key), by)

    @rule(chosen=ages, whose=who)
    def expire(self, chosen: set[int], whose: set[tuple[str, str]]) -> None:
        for key, counter in self.of(chosen, whose):
            counter.expire()
            self.client.delete(raw(key))

    @rule(chosen=ages, whose=who, to=st.integers(0, 20))
    def restart_from_zero(self, chosen: set[int], whose: set[tuple[str, str]], to: int) -> None:
        for key, counter in self.of(chosen, whose):
            counter.expire()
            counter.increment(to)
            self.client.set(raw(key), to)

    @rule(chosen=ages, whose=who)
    def poison(self, chosen: set[int], whose: set[tuple[str, str]]) -> None:
        """Whatever a client does wrong; the counter is lost with it."""
        for key, counter in self.of(chosen, whose):
            counter.expire()
            counter.redis = POISON
            self.client.set(raw(key), POISON)

    # What runs do.

    def dates(self, chosen: Iterable[int]) -> tuple[dt.date, ...]:
        return tuple(sorted(self.now.date() - dt.timedelta(days=age) for age in chosen))

    def runs(self, chosen: Iterable[int], **changes: Any) -> tuple[Run, Settings]:
        return Run(self.usage.new_run_id(), "manual", self.dates(chosen), self.now), settings(**changes)

    def expect(self, dates: Iterable[dt.date], mode: OnRegression, *, cleaning: bool = False) -> set[CounterKey]:
        """A run over these dates must leave this behind. Returns the keys it handles."""
        today, chosen = self.now.date(), set(dates)
        healed = {
            (key.merchant_id, key.date)
            for key, counter in self.model.items()
            if counter.poisoned and isinstance(counter.redis, int)
        }
        oldest = oldest_kept(today, settings())
        partial = {date for _, date in healed}
        handled = set()
        for key, counter in self.model.items():
            if counter.poisoned and counter.redis is None:
                counter.poisoned = False
            swept = cleaning and key.date < oldest and counter.redis is not None and key.date not in partial
            if key.date in chosen or (key.merchant_id, key.date) in healed or swept:
                counter.observe(carry=mode is OnRegression.CARRY)
                handled.add(key)
        return handled

    def expected_verdict(self, date: dt.date) -> str:
        of_date = [counter for key, counter in self.model.items() if key.date == date]
        if any(counter.is_regressed for counter in of_date):
            return "mismatch"
        if any(isinstance(counter.redis, int) for counter in of_date):
            return "verified"
        return "source_expired" if any(counter.stored is not None for counter in of_date) else "empty"

    def check_verdicts(self, proof: Any, dates: Iterable[dt.date]) -> None:
        found = self.usage.verdicts(proof)
        for date in dates:
            assert found[date] == self.expected_verdict(date), date
            if found[date] == "verified" and is_settled(date, self.now, settings()):
                self.sealed.add(date)

    @rule(chosen=ages, mode=modes, tasks=st.sampled_from((1, 2, 32)))
    def run(self, chosen: set[int], mode: OnRegression, tasks: int) -> None:
        run, chosen_settings = self.runs(chosen, on_regression=mode, max_mapped_tasks=tasks)
        proof = pipeline.aggregate(self.client, self.conns[0], run, chosen_settings)
        self.expect(run.dates, mode)
        self.check_verdicts(proof, run.dates)

    @rule(chosen=ages, whose=who, to=st.integers(0, 20))
    def fall(self, chosen: set[int], whose: set[tuple[str, str]], to: int) -> None:
        """Restart from zero and be seen by a run at once: what decisions are about."""
        self.restart_from_zero(chosen, whose, to)
        self.run(chosen, OnRegression.KEEP, 32)

    @rule(chosen=ages, mode=modes, merchant=st.sampled_from(["acme", "b:c 🎉"]))
    def run_of_one_merchant(self, chosen: set[int], mode: OnRegression, merchant: str) -> None:
        run = Run(self.usage.new_run_id(), "manual", self.dates(chosen), self.now, (merchant,))
        pipeline.aggregate(self.client, self.conns[0], run, settings(on_regression=mode))
        for key, counter in self.model.items():
            if key.date in run.dates and key.merchant_id == merchant:
                found = counter.poisoned and counter.redis is None  # no scan finds it, so nobody looks at its letter
                counter.observe(carry=mode is OnRegression.CARRY)
                counter.poisoned = counter.poisoned or found

    @rule(chosen=ages, mode=modes, again=st.lists(st.integers(0, 5), max_size=3), by=amounts, proofs=st.integers(1, 2))
    def run_with_retries(self, chosen: set[int], mode: OnRegression, again: list[int], by: int, proofs: int) -> None:
        """Tasks are repeated, before and after the run was proven, while today's counters grow."""
        run, chosen_settings = self.runs(chosen, on_regression=mode)
        scan.scan(self.client, self.conns[0], run, chosen_settings)
        plan, batches = scan.scan(self.client, self.conns[0], run, chosen_settings)

        def store(number: int) -> Any:
            return pipeline.store(self.client, self.conns[0], batches[number], run.run_id, chosen_settings)

        results = [store(number) for number in range(len(batches))]
        handled = self.expect(run.dates, mode)
        for number in again:
            self.grow(handled, by)
            if number < len(batches):
                results[number] = store(number)
                merchants = set(batches[number].merchant_ids)
                for key in handled:
                    if key.merchant_id in merchants:
                        self.model[key].observe(carry=mode is OnRegression.CARRY)
        for _ in range(proofs):
            proof = pipeline.prove(self.client, self.conns[0], plan, batches, results, chosen_settings)
            self.check_verdicts(proof, run.dates)

    def grow(self, among: Iterable[CounterKey], by: int) -> None:
        for key in among:
            counter = self.model[key]
            if key.date == self.now.date() and isinstance(counter.redis, int) and not counter.is_regressed:
                counter.increment(by)
                self.client.incrby(raw(key), by)

    @rule(both=st.tuples(ages, ages), mode=modes, by=amounts)
    def runs_at_once(self, both: tuple[set[int], set[int]], mode: OnRegression, by: int) -> None:
        """Two runs in two threads, while today's sound counters grow; then one more, when they stand still."""
        growing = [key for key, counter in self.model.items() if isinstance(counter.redis, int) and counter.is_exact
                   and not counter.began_anew and counter.kept is None and counter.letter is None]  # fmt: skip
        before = {key: self.model[key].redis for key in growing if key.date == self.now.date()}
        together = Barrier(RUNS_AT_ONCE + 1)

        def work(number: int) -> Any:
            run, chosen_settings = self.runs(both[number], on_regression=mode, max_mapped_tasks=1 + number)
            together.wait()
            return pipeline.aggregate(self.client, self.conns[number], run, chosen_settings)

        with ThreadPoolExecutor(RUNS_AT_ONCE) as pool:
            working = [pool.submit(work, number) for number in range(RUNS_AT_ONCE)]
            together.wait()
            for _ in range(by):
                for key in before:
                    self.client.incr(raw(key))
            proofs = [one.result() for one in working]
        dates = {date for chosen in both for date in self.dates(chosen)}
        self.expect(dates, mode)
        for proof, chosen in zip(proofs, both, strict=True):
            self.check_verdicts(proof, self.dates(chosen))
        for key in before:
            self.model[key].increment(by)
        run, chosen_settings = self.runs(both[0] | both[1], on_regression=mode)
        proof = pipeline.aggregate(self.client, self.conns[0], run, chosen_settings)
        self.expect(dates, mode)
        self.check_verdicts(proof, dates)

    @rule(chosen=ages, mode=modes)
    def run_and_clean_up(self, chosen: set[int], mode: OnRegression) -> None:
        run, chosen_settings = self.runs(chosen, on_regression=mode, delete_stale_keys=True)
        plan, batches = scan.scan(self.client, self.conns[0], run, chosen_settings)
        results = [pipeline.store(self.client, self.conns[0], b, run.run_id, chosen_settings) for b in batches]
        proof = pipeline.prove(self.client, self.conns[0], plan, batches, results, chosen_settings)
        handled = self.expect(run.dates, mode, cleaning=True)
        self.check_verdicts(proof, run.dates)
        oldest = oldest_kept(self.now.date(), chosen_settings)
        proven = {date for date, verdict in self.usage.verdicts(proof).items() if verdict == "verified"}
        self.sealed |= {s.date for s in plan.scopes if s.date in proven and s.merchant_ids is None and s.settled}
        stale = {date for date in proven if date < oldest}
        cleaned = cleanup.delete_stale(
            self.client, self.conns[0], (key for batch in batches for key in batch.counter_keys()), stale, "usage"
        )
        deleted = 0
        for key in handled:
            counter = self.model[key]
            if key.date in stale and isinstance(counter.redis, int) and counter.redis == counter.counted:
                counter.expire()
                deleted += 1
        assert cleaned.deleted == deleted

    @rule(to=st.sampled_from(["00:30", "01:59", "02:00", "12:30"]))
    def midnight(self, to: str) -> None:
        self.now = dt.datetime.combine(self.now.date() + dt.timedelta(days=1), dt.time.fromisoformat(to), dt.UTC)

    # What people do.

    def has_letters(self) -> bool:
        return any(counter.letter for counter in self.model.values())

    # One rule each, because hypothesis chooses rules evenly.

    @precondition(has_letters)
    @rule(data=st.data(), by_date=st.booleans())
    def keep(self, data: Any, by_date: bool) -> None:
        self.resolve(data, Decision.KEEP, by_date)

    @precondition(has_letters)
    @rule(data=st.data(), by_date=st.booleans())
    def accept(self, data: Any, by_date: bool) -> None:
        self.resolve(data, Decision.ACCEPT, by_date)

    @precondition(has_letters)
    @rule(data=st.data(), by_date=st.booleans())
    def carry(self, data: Any, by_date: bool) -> None:
        self.resolve(data, Decision.CARRY, by_date)

    def resolve(self, data: Any, decision: Decision, by_date: bool) -> None:
        waiting = sorted(key for key, counter in self.model.items() if counter.letter)
        key = data.draw(st.sampled_from(waiting))
        chosen = [other for other in waiting if other.date == key.date] if by_date else [key]
        which: dict[str, Any] = {"date": key.date} if by_date else {"key": raw(key)}
        if any(isinstance(self.model[one].redis, bytes) for one in chosen):
            with pytest.raises(SettingsError):
                decide(self.client, self.conns[0], decision, "usage", **which)
            return
        assert len(decide(self.client, self.conns[0], decision, "usage", **which)) == len(chosen)
        for one in chosen:
            self.model[one].decide(decision)
            if decision is Decision.ACCEPT:
                self.lowest.pop(one, None)

    # What must always hold.

    @invariant()
    def check(self) -> None:
        self.postgresql_holds_what_the_model_says()
        self.each_counter_is_exact_or_flagged_and_never_above_the_truth()
        self.nothing_is_lowered()
        self.open_letters_are_those_of_the_model()
        self.sealed_dates_were_proven()
        self.nothing_is_left_over()

    def postgresql_holds_what_the_model_says(self) -> None:
        found = self.usage.conn.execute(
            "SELECT merchant_id, date, metric_type, metric_value, carried FROM merchant_usage"
        )
        rows = {CounterKey(*row[:3]): row[3:] for row in found}
        assert rows == {k: (c.stored, c.carried) for k, c in self.model.items() if c.stored is not None}

    def each_counter_is_exact_or_flagged_and_never_above_the_truth(self) -> None:
        flagged = {
            letter.redis_key
            for letter in self.usage.letters()
            if letter.reason == Reason.COUNTER_REGRESSED and not letter.resolved
        }
        for key, value in self.usage.rows().items():
            counter = self.model[key]
            assert value == counter.known or raw(key) in flagged, f"{key} holds {value}, not {counter.known}"
            assert value <= counter.true, f"{key}: {value} is billed, {counter.true} was used"

    def nothing_is_lowered(self) -> None:
        rows = self.usage.rows()
        for key, value in self.lowest.items():
            assert rows[key] >= value, f"{key} fell from {value} to {rows[key]}"
        self.lowest = rows

    def open_letters_are_those_of_the_model(self) -> None:
        found = {(letter.redis_key, letter.reason) for letter in self.usage.letters() if not letter.resolved}
        regressed = {(raw(k), Reason.COUNTER_REGRESSED) for k, counter in self.model.items() if counter.letter}
        assert found == regressed | {(raw(k), Reason.NOT_AN_INTEGER) for k, c in self.model.items() if c.poisoned}

    def sealed_dates_were_proven(self) -> None:
        dates = {key.date for key in self.model}
        assert ledger.sealed_dates(self.usage.conn, "another run", dates) == self.sealed & dates

    def nothing_is_left_over(self) -> None:
        assert self.usage.readings() == 0
        for conn in self.conns:
            # Asked by each session itself: of a table's size others see dead rows, too, which an aborted batch leaves.
            if conn.execute("SELECT to_regclass('pg_temp.usage_staged')").fetchone() != (None,):
                left = conn.execute("SELECT count(*) FROM pg_temp.usage_staged").fetchone()
                assert left == (0,), "rows in a temporary table"
        tally = Tally(self.usage.conn.execute("SELECT run_id, usage_date FROM usage_run WHERE verdict IS NULL"))
        assert not tally, "a run without a verdict"


@pytest.mark.usefixtures("quiet")
def test_any_history(valkey: Valkey, redis_client: redis.Redis, connect: Connect) -> None:
    assert valkey.running
    profile = hypothesis_settings()
    run_state_machine_as_test(
        lambda: Machine(redis_client, connect),  # type: ignore[arg-type]  # any callable will do
        settings=hypothesis_settings(max_examples=profile.max_examples // 2, stateful_step_count=30),
    )
