"""Other sessions, other runs and Redis itself get in the way at the worst moment; the rows end exact all the same."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from psycopg import Connection, IsolationLevel

from local.servers import Valkey
from merchant_usage import pipeline
from merchant_usage.driver_errors import explained
from merchant_usage.errors import PostgresUnavailable
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.run import Run
from merchant_usage.settings import OnRegression
from merchant_usage.sink.queries import query
from merchant_usage.source import counters as counters_module
from merchant_usage.steps import regressions, scan, store
from tests.conftest import Connect
from tests.faults.engine import At, Job, heard, nothing, run_tasks
from tests.faults.leftovers import assert_nothing_left, wait_until
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw, settings

WAITS_FOR_A_LOCK = (
    "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'engine'"
    " AND wait_event_type = 'Lock'"
)
TOUCH = "UPDATE merchant_usage SET updated_at = now() WHERE merchant_id = %s"


@pytest.fixture
def new_job(valkey: Valkey, database_url: str, tmp_path: Path) -> Callable[..., Job]:
    def new(run_id: str = "the run", *, run_type: str = "scheduled", **changes: Any) -> Job:
        run = Run(run_id, run_type, (YESTERDAY, TODAY), NOW)
        return Job(valkey.url, database_url, run, settings(**changes), tmp_path / run_id)

    return new


@pytest.fixture
def stored(usage: Usage) -> dict[CounterKey, int]:
    """Three merchants, stored once, that have grown since. What must be stored."""
    counters = {key(merchant, YESTERDAY): 10 for merchant in ("a", "m", "z")}
    usage.write(counters)
    usage.aggregate()
    grown = dict.fromkeys(counters, 11)
    usage.write(grown)
    return grown


def aggregate_into_a_deadlock(
    connect: Connect,
    valkey: Valkey,
    database_url: str,
    take: Callable[[Connection], object],
    want: Callable[[Connection], object],
) -> list[str]:
    """Another session takes something, and wants what our run holds once that waits for it: PostgreSQL ends ours.

    Returns what our run sent.
    """
    other, watcher = connect(), connect()
    other.execute("SET deadlock_timeout = '1min'")
    heard_words: list[str] = []
    with ThreadPoolExecutor(1) as pool, heard(valkey.url, database_url, heard_words.append) as (client, conn):
        # PostgreSQL looks once, after this time of waiting: by then the other must wait too.
        conn.execute("SET deadlock_timeout = '3s'")
        with other.transaction():
            take(other)
            run = Run("the run", "manual", (YESTERDAY,), NOW)
            working = pool.submit(pipeline.aggregate, client, conn, run, settings(max_mapped_tasks=1))
            wait_until(watcher, WAITS_FOR_A_LOCK)
            want(other)
        working.result(90)
    return heard_words


def test_deadlock_is_tried_again(
    usage: Usage, connect: Connect, valkey: Valkey, database_url: str, stored: dict[CounterKey, int]
) -> None:
    """Another session locks z, then a, while ours goes from a to z, and begins again."""
    heard_words = aggregate_into_a_deadlock(
        connect,
        valkey,
        database_url,
        take=lambda other: other.execute(TOUCH, ["z"]),
        want=lambda other: other.execute(TOUCH, ["a"]),
    )
    assert (heard_words.count("sql:upsert_staged"), heard_words.count("did:upsert_staged")) == (2, 1)
    assert usage.rows() == stored
    assert_nothing_left(usage.conn)


def test_a_deadlock_over_letters_is_tried_again(
    usage: Usage, connect: Connect, valkey: Valkey, database_url: str, stored: dict[CounterKey, int]
) -> None:
    """Somebody edits an open letter by hand, and then wants what our scan holds."""
    usage.client.set("usage:nonsense", 1)
    usage.aggregate()
    heard_words = aggregate_into_a_deadlock(
        connect,
        valkey,
        database_url,
        take=lambda other: other.execute("UPDATE usage_dead_letter SET detail = 'edited'"),
        want=lambda other: other.execute(query("lock_dead_letters")),
    )
    assert (heard_words.count("sql:open_dead_letters"), heard_words.count("did:open_dead_letters")) == (2, 1)
    assert usage.rows() == stored
    assert_nothing_left(usage.conn)


def test_deadlocks_without_end_are_an_error_that_heals(
    usage: Usage, stored: dict[CounterKey, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    def deadlock(*_: Any, **__: Any) -> Any:
        nonlocal attempts
        attempts += 1
        raise psycopg.errors.DeadlockDetected("deadlock detected")

    with monkeypatch.context() as patch:
        patch.setattr(store, "stage", deadlock)
        with pytest.raises(PostgresUnavailable) as raised, explained():
            usage.aggregate()
    assert raised.value.heals
    assert attempts == 5
    usage.aggregate()
    assert usage.rows() == stored


@pytest.mark.parametrize("query", ["upsert_staged", "lock_rows"])
def test_serialization_failure_is_tried_again(
    usage: Usage, connect: Connect, valkey: Valkey, database_url: str, stored: dict[CounterKey, int], query: str
) -> None:
    """In transactions that are REPEATABLE READ each concurrent write is an error 40001."""
    if query == "lock_rows":
        usage.write({key("m"): 4})
        stored = {**stored, key("m"): 10}
    other = connect()
    heard_words: list[str] = []
    disturb = At(f"sql:{query}", do=lambda: other.execute(TOUCH, ["m"]))

    def hear(word: str) -> None:
        heard_words.append(word)
        disturb(word)

    with heard(valkey.url, database_url, hear) as (client, conn):
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        run = Run("the run", "manual", (YESTERDAY,), NOW)
        pipeline.aggregate(client, conn, run, settings(max_mapped_tasks=1))
    assert (heard_words.count(f"sql:{query}"), heard_words.count(f"did:{query}")) == (2, 1)
    assert usage.rows() == stored
    assert_nothing_left(usage.conn)


def test_somebody_sits_on_a_row(
    usage: Usage,
    connect: Connect,
    new_job: Callable[..., Job],
    stored: dict[CounterKey, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That batch fails by an error that heals, soon; the other batches are stored."""
    monkeypatch.setitem(regressions.LIMITS, "lock_timeout", "100ms")
    other, job = connect(), new_job()
    # Should ours wait without end, the other is ended, and this test fails instead of hanging.
    other.execute("SET idle_in_transaction_session_timeout = '20s'")
    with other.transaction():
        other.execute(TOUCH, ["m"])
        with pytest.raises(PostgresUnavailable, match="lock timeout") as raised, explained():
            run_tasks(job)
        assert raised.value.heals
        assert usage.rows() == {**stored, key("m"): 10}
    run_tasks(job)
    assert usage.rows() == stored
    assert usage.ledger("the run")[YESTERDAY] == ("verified", None)
    assert_nothing_left(usage.conn)


@contextmanager
def writer(url: str, names: list[CounterKey]) -> Iterator[list[int]]:
    """Counts without a pause, in a thread. Gives the number of increments made."""
    stop, made, dice = threading.Event(), [0], random.Random(7)  # noqa: S311

    def write() -> None:
        with redis.Redis.from_url(url) as client:
            while not stop.is_set():
                pipe = client.pipeline(transaction=False)
                for name in dice.choices(names, k=50):
                    pipe.incrby(raw(name), 3)
                pipe.execute()
                made[0] += 50

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        thread.join()


def test_two_schedulers_worth_of_runs_at_once(usage: Usage, valkey: Valkey, new_job: Callable[..., Job]) -> None:
    """Schedule, backfill, a person and a cleared task at once on the same dates, each task on its own connections."""
    names = [key(f"m{n:03}", TODAY, metric) for n in range(60) for metric in "ab"]
    usage.write({**dict.fromkeys(names, 1), key("over", YESTERDAY): 5, key("poison", YESTERDAY): "x"})
    usage.client.set("usage:malformed", 1)
    rounds = 5
    run_ids: list[tuple[str, str]] = []
    with writer(valkey.url, names) as made, ThreadPoolExecutor(4) as pool:
        for turn in range(rounds):
            together = threading.Barrier(4)

            def work(number: int, turn: int = turn, together: threading.Barrier = together) -> None:
                run_type = ("scheduled", "scheduled", "backfill", "manual")[number]
                # Two schedulers may start one and the same task; the others are runs of their own.
                job = new_job(f"{run_type} {number} {turn}", run_type=run_type, max_mapped_tasks=1 + 2 * number)
                run_ids.append((job.run.run_id, run_type))
                together.wait()
                run_tasks(job)
                job.clear("upsert 0", "verify")
                run_tasks(job)

            list(pool.map(work, range(4)))
        assert made[0] > 0
    usage.aggregate(YESTERDAY, TODAY)
    in_redis = {name: int(usage.client.get(raw(name)) or -1) for name in (*names, key("over", YESTERDAY))}
    assert usage.rows() == in_redis
    assert sum(usage.rows().values()) == len(names) + 3 * made[0] + 5
    assert len(run_ids) == 4 * rounds
    for run_id, run_type in run_ids:
        assert usage.ledger(run_id) == {YESTERDAY: ("verified", None), TODAY: ("verified", None)}
        row = usage.conn.execute(
            "SELECT DISTINCT run_type, finished_at IS NOT NULL, keys_scanned > 0 FROM usage_run WHERE run_id = %s",
            [run_id],
        )
        assert row.fetchall() == [(run_type, True, True)]
    assert {letter.reason for letter in usage.letters()} == {Reason.MALFORMED_KEY, Reason.NOT_AN_INTEGER}
    assert len(usage.letters()) == 2
    assert_nothing_left(usage.conn)


def test_one_task_runs_twice_at_once(usage: Usage, valkey: Valkey, new_job: Callable[..., Job]) -> None:
    """A scheduler that missed a heartbeat starts a task again while it still runs: same run, same batch."""
    names = [key(f"m{n:03}", TODAY) for n in range(300)]
    usage.write(dict.fromkeys(names, 1))
    job = new_job(max_mapped_tasks=3)
    with writer(valkey.url, names) as made:
        with heard(valkey.url, job.postgres_url) as (client, conn):
            plan, batches = scan.scan(client, conn, job.run, job.settings)

        def upsert(number: int) -> Any:
            with heard(valkey.url, job.postgres_url) as (client, conn):
                return pipeline.store(client, conn, batches[number % 3], job.run.run_id, job.settings)

        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(upsert, range(6)))
        with heard(valkey.url, job.postgres_url) as (client, conn):
            proof = pipeline.prove(client, conn, plan, batches, results[:3], job.settings)
        assert usage.verdicts(proof)[TODAY] == "verified"
    usage.aggregate(TODAY)
    assert sum(usage.rows().values()) == len(names) + 3 * made[0]
    assert_nothing_left(usage.conn)


@pytest.mark.parametrize("read", [100, 103, 150], ids=["what is stored", "more", "more than the end"])
def test_reading_from_before_a_restart_is_not_added_to_what_was_carried(
    usage: Usage, connect: Connect, valkey: Valkey, database_url: str, read: int
) -> None:
    """Our run reads; Redis restarts from zero; another run carries what was stored; then ours writes what it read."""
    acme = key("acme", TODAY)
    usage.write({acme: 100})
    usage.aggregate(TODAY)
    usage.write({acme: read})
    other = Usage(usage.client, connect(), usage._numbers)

    def restart_and_carry() -> None:
        usage.write({acme: 5})
        other.aggregate(TODAY, on_regression=OnRegression.CARRY)
        assert (usage.rows()[acme], usage.carried(acme)) == (105, 100)

    # What is equal to its row is not staged.
    late = At("kept" if read == 100 else "sql:upsert_staged", do=restart_and_carry)
    with heard(valkey.url, database_url, late) as (client, conn):
        run = Run("the late run", "manual", (TODAY,), NOW)
        proof = pipeline.aggregate(client, conn, run, settings(on_regression=OnRegression.CARRY))
    assert late.happened
    assert (usage.rows()[acme], usage.carried(acme)) == (105, 100)
    assert usage.verdicts(proof) == {TODAY: "verified"}
    usage.client.incrby(raw(acme), 7)
    usage.aggregate(TODAY)
    assert (usage.rows()[acme], usage.carried(acme)) == (112, 100)
    assert_nothing_left(usage.conn)


def test_another_run_stores_more_while_ours_settles_a_suspect(
    usage: Usage, connect: Connect, valkey: Valkey, database_url: str
) -> None:
    """Ours has read 105 again and is about to write it; Redis grows to 120, and another run comes: it waits."""
    acme = key("acme", TODAY)
    usage.write({acme: 100})
    usage.aggregate(TODAY)
    usage.write({acme: 95})
    watcher = connect()

    def run(run_id: str, hear: Callable[[str], None]) -> None:
        with heard(valkey.url, database_url, hear) as (client, conn):
            pipeline.aggregate(client, conn, Run(run_id, "manual", (TODAY,), NOW), settings())

    with ThreadPoolExecutor(1) as pool:
        others: list[Future[None]] = []

        def let_another_run_come() -> None:
            usage.write({acme: 120})
            others.append(pool.submit(run, "the other run", nothing))
            while not others[0].done() and watcher.execute(WAITS_FOR_A_LOCK).fetchone() != (True,):
                pass

        catch_up = At("sql:lock_rows", do=lambda: usage.write({acme: 105}))
        compete = At("sql:set_rows", do=let_another_run_come)

        def hear(word: str) -> None:
            catch_up(word)
            compete(word)

        run("our run", hear)
        assert compete.happened
        others[0].result(90)
    assert usage.rows() == {acme: 120}
    assert usage.letters() == []


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(["did:set_snapshot", "did:select_day_totals"], id="before Redis is read again"),
        pytest.param(["did:set_snapshot", "did:select_day_totals", "mget"], id="while Redis is read again"),
        pytest.param(["sql:summarize_days"], id="after Redis was read again"),
    ],
)
def test_another_run_stores_more_while_ours_verifies(
    usage: Usage, connect: Connect, valkey: Valkey, database_url: str, moment: list[str]
) -> None:
    """Then PostgreSQL holds more than our second reading of Redis: no regression, because ours looks at a snapshot."""
    names = [key("acme", TODAY), key("beta", TODAY)]
    usage.write(dict.fromkeys(names, 10))
    other = Usage(usage.client, connect(), usage._numbers)

    def count_and_store() -> None:
        for name in names:
            usage.client.incrby(raw(name), 5)
        other.aggregate(TODAY)

    parallel = At(*moment, do=count_and_store)
    with heard(valkey.url, database_url, parallel) as (client, conn):
        proof = pipeline.aggregate(client, conn, Run("the run", "manual", (TODAY,), NOW), settings())
    assert parallel.happened
    assert usage.verdicts(proof) == {TODAY: "verified"}
    assert usage.letters() == []
    assert usage.rows() == dict.fromkeys(names, 15)


def test_scan_returns_each_key_several_times(
    usage: Usage, monkeypatch: pytest.MonkeyPatch, new_job: Callable[..., Job]
) -> None:
    counters = {key(f"m{n:03}", day): n for n in range(500) for day in (YESTERDAY, TODAY)}
    usage.write({**counters, key("poison"): "x"})
    usage.client.set("usage:malformed", 1)
    scan_pages = counters_module.scan_pages

    def doubled(*arguments: Any) -> Iterator[list[bytes]]:
        seen: list[bytes] = []
        for page in scan_pages(*arguments):
            seen += page
            yield page + page[::-1]
            yield seen[: len(seen) // 2]
            yield []

    monkeypatch.setattr(scan, "scan_pages", doubled)
    reports = run_tasks(new_job(max_mapped_tasks=4, scan_count=50))
    assert usage.rows() == counters
    assert {report["verdict"] for report in reports} == {"verified"}
    assert {report["rows_inserted"] for report in reports} == {500}
    found = usage.conn.execute("SELECT usage_date, keys_scanned, merchants, dead_letters FROM usage_run ORDER BY 1")
    assert found.fetchall() == [(YESTERDAY, 501, 501, 1), (TODAY, 500, 500, 0)]
    assert [letter.attempts for letter in usage.letters()] == [1, 1]


def test_redis_rehashes_during_the_scan(usage: Usage, new_job: Callable[..., Job]) -> None:
    """Its table grows and shrinks many times while it is scanned; keys that are there all the time are found."""
    counters = {key(f"m{n:04}", TODAY): n for n in range(3000)}
    usage.write(counters)
    pages, moved = [0], [0]

    def stir(word: str) -> None:
        if word != "page":
            return
        pages[0] += 1
        if pages[0] % 20 == 0:
            if moved[0] % 2:
                usage.client.delete(*(f"noise:{n}" for n in range(30_000)))
            else:
                usage.client.mset({f"noise:{n}": n for n in range(30_000)})
            moved[0] += 1

    job = new_job(scan_count=20, max_mapped_tasks=4)
    (_, report) = run_tasks(job, stir)
    assert moved[0] > 4
    assert usage.rows() == counters
    assert (report["verdict"], report["rows_inserted"]) == ("verified", 3000)
