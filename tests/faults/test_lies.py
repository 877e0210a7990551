"""Verification against any set of planted lies at once, and against a writer at full speed, run after run."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from local.servers import Valkey
from merchant_usage.errors import UsageMismatch
from merchant_usage.model.keys import CounterKey
from merchant_usage.settings import OnRegression
from tests.support import TODAY, YESTERDAY, Usage, key, raw

WHERE = " WHERE merchant_id = %s AND date = %s AND metric_type = %s"
# For each lie: what it does to a row, and what verification says of it. The numbers of a counter differ, 1000 apart.
LIES = {
    "lost": ("DELETE FROM merchant_usage", "missing"),
    "one less": ("UPDATE merchant_usage SET metric_value = metric_value - 1", "behind"),
    "one more": ("UPDATE merchant_usage SET metric_value = metric_value + 1", "regressed"),
    "nothing": ("UPDATE merchant_usage SET metric_value = 0", "behind"),
    "of another date": ("UPDATE merchant_usage SET date = date - 3", "missing"),
    "of another metric": ("UPDATE merchant_usage SET metric_type = metric_type || '2'", "missing"),
    "of another merchant": ("UPDATE merchant_usage SET merchant_id = merchant_id || '2'", "missing"),
}
COUNTERS = [(f"m{n}", metric) for n in range(6) for metric in "abc"]


@given(lies=st.dictionaries(st.sampled_from(COUNTERS), st.sampled_from(sorted(LIES)), max_size=len(COUNTERS)))
@hypothesis_settings(max_examples=hypothesis_settings().max_examples // 4)
@pytest.mark.parametrize("date", [YESTERDAY, TODAY], ids=["settled", "live"])
def test_each_of_many_lies_is_named(usage: Usage, date: dt.date, lies: dict[tuple[str, str], str]) -> None:
    usage.client.flushall()
    usage.conn.execute(
        "TRUNCATE merchant_usage, usage_dead_letter, usage_run, usage_reading, usage_alert, usage_decision"
    )
    counters = {key(merchant, date, metric): 1000 * n for n, (merchant, metric) in enumerate(COUNTERS, start=1)}
    usage.write(counters)
    stored = usage.store_only(date, max_mapped_tasks=2)
    told = {"missing": set[CounterKey](), "behind": set[CounterKey](), "regressed": set[CounterKey]()}
    for (merchant, metric), lie in lies.items():
        change, verdict = LIES[lie]
        usage.conn.execute(change + WHERE, key(merchant, date, metric))
        told[verdict].add(key(merchant, date, metric))
    fails = sorted([*told["missing"], *told["behind"]])
    if fails:
        with pytest.raises(UsageMismatch) as raised:
            usage.prove(stored)
        assert [line.split(":")[0] for line in sorted(raised.value.lines)] == sorted(map(str, fails))
        for counter in fails:
            (line,) = (line for line in raised.value.lines if line.startswith(str(counter)))
            assert f"Redis has {counters[counter]:,}," in line
            assert ("(missing)" in line) == (counter in told["missing"])
    else:
        usage.prove(stored)
    assert {letter.redis_key for letter in usage.letters()} == set(map(raw, told["regressed"]))
    (verdict_told, _) = usage.ledger(stored.plan.run_id)[date]
    assert verdict_told == ("mismatch" if fails or told["regressed"] else "verified")
    # The rows that are somewhere else now are nobody's here: they are counted, and left alone.
    usage.aggregate(date)
    assert all(usage.rows()[counter] >= value for counter, value in counters.items())


@contextmanager
def full_speed(url: str, names: list[CounterKey]) -> Iterator[None]:
    """Increments without a pause, old counters and now and then a new one."""
    stop, started, dice = threading.Event(), threading.Event(), random.Random(1)  # noqa: S311

    def write() -> None:
        made = 0
        with redis.Redis.from_url(url) as client:
            while not stop.is_set():
                pipe = client.pipeline(transaction=False)
                for name in dice.choices(names, k=30):
                    pipe.incrby(raw(name), dice.randrange(3))
                if made % 3000 == 0:
                    pipe.incr(raw(key(f"new {made}", TODAY)))
                pipe.execute()
                made += 30
                started.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert started.wait(10)
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.usefixtures("quiet")
def test_no_growing_counter_raises_a_false_alarm(usage: Usage, valkey: Valkey) -> None:
    """200 runs, and 1000 with the profile `thorough`."""
    runs = 1000 if hypothesis_settings().max_examples >= 1000 else 200
    names = [key(f"m{n}", TODAY, metric) for n in range(4) for metric in "ab"]
    growing = 0
    with full_speed(valkey.url, names):
        for number in range(runs):
            proof = usage.aggregate(
                TODAY, max_mapped_tasks=1 + number % 3, on_regression=list(OnRegression)[number % 2]
            )
            (report,) = proof.reports
            assert str(report.verdict) == "verified"
            assert set(report.keys) <= {"match", "growing"}
            growing += report.keys.get("growing", 0)
    assert growing > runs, "counters grew between a run's two readings"
    usage.aggregate(TODAY)
    assert usage.rows() == {counter: int(usage.client.get(raw(counter)) or -1) for counter in usage.rows()}
    assert len(usage.rows()) == usage.client.dbsize()
    assert usage.letters() == []
    assert usage.conn.execute("SELECT sum(carried) FROM merchant_usage").fetchone() == (0,)
    assert usage.readings() == 0
