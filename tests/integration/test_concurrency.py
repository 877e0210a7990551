"""Any number of runs at once ends in the same rows, and nobody meets a deadlock."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier

import pytest

from merchant_usage.model.batches import Batch, Group
from merchant_usage.steps.store import store_batch
from tests.support import TODAY, YESTERDAY, Connect, Usage, key, settings


@pytest.mark.parametrize("tasks", [1, 3, 32])
def test_parallel_runs_of_the_same_dates(usage: Usage, connect: Connect, tasks: int) -> None:
    counters = {key(f"m{n:03}", day, metric): n for n in range(150) for day in (YESTERDAY, TODAY) for metric in "ab"}
    usage.write({**counters, key("poison"): "x"})
    usage.client.set("usage:malformed", 1)
    runs = [Usage(usage.client, connect(), count(10 * n)) for n in range(1, 5)]
    together = Barrier(len(runs))

    def run(one: Usage) -> set[str]:
        together.wait()
        return set(one.verdicts(one.aggregate(YESTERDAY, TODAY, max_mapped_tasks=tasks)).values())

    with ThreadPoolExecutor(len(runs)) as pool:
        assert list(pool.map(run, runs)) == [{"verified"}] * len(runs)
    assert usage.rows() == counters
    assert [letter.attempts for letter in usage.letters()] == [len(runs)] * 2
    assert usage.readings() == 0


def test_writers_in_any_order_do_not_deadlock(usage: Usage, connect: Connect) -> None:
    """Batches that overlap and name their merchants in different orders: rows are written in key order all the same."""
    names = [f"m{n:03}" for n in range(300)]
    usage.write({key(name, YESTERDAY, metric): 0 for name in names for metric in "ab"})
    usage.aggregate()
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"

    def run(number: int) -> None:
        conn, dice = connect(), random.Random(number)  # noqa: S311 - nothing secret
        for turn in range(8):
            chosen = dice.sample(names, 200)
            usage.write({key(name, YESTERDAY, metric): turn * 10 + number for name in chosen for metric in "ab"})
            batch = Batch((Group(YESTERDAY, ("b", "a"), tuple(chosen)),))
            assert store_batch(usage.client, conn, batch, f"run {number}", settings()).failures == {}

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    found = usage.conn.execute(deadlocks).fetchone()
    assert found == (0,)


def test_one_run_while_the_other_holds_a_row(usage: Usage, connect: Connect) -> None:
    """The second waits for the row, then sees what the first wrote, and keeps the larger value."""
    usage.write({key("acme"): 5})
    usage.aggregate()
    other = connect()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.execute("UPDATE merchant_usage SET metric_value = 9 WHERE merchant_id = 'acme'")
            usage.write({key("acme"): 7})
            run = pool.submit(Usage(usage.client, connect(), count(100)).aggregate)
            watcher = connect()
            while watcher.execute(waiting).fetchone() == (0,):
                assert not run.done()
            usage.write({key("acme"): 9})
        proof = run.result(30)
    assert usage.rows() == {key("acme"): 9}
    assert usage.verdicts(proof) == {YESTERDAY: "verified"}
    assert usage.letters() == []


@pytest.mark.parametrize("others", [5, 9], ids=["less", "more"])
def test_one_run_while_the_other_inserts_the_same_new_row(usage: Usage, connect: Connect, others: int) -> None:
    """The second waits, meets the row of the first, and stores the batch once more: the larger value stays."""
    other = connect()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    usage.write({key("acme"): 7})
    with ThreadPoolExecutor(1) as pool:
        with other.transaction():
            other.execute(
                "INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value) VALUES (%s, %s, %s, %s)",
                [*key("acme"), others],
            )
            run = pool.submit(Usage(usage.client, connect(), count(100)).aggregate)
            watcher = connect()
            while watcher.execute(waiting).fetchone() == (0,):
                assert not run.done()
            usage.write({key("acme"): max(7, others)})
        proof = run.result(30)
    assert usage.rows() == {key("acme"): max(7, others)}
    assert usage.verdicts(proof) == {YESTERDAY: "verified"}
    assert usage.letters() == []
