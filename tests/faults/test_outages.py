"""PostgreSQL and Redis are killed, restarted, emptied, set back and cut off, at certain moments of a run.

Each time the error is one that Airflow retries, or the run is refuted by name; after the retry the rows are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from local.servers import Postgres, Valkey
from merchant_usage.connections import prepare
from merchant_usage.driver_errors import explained
from merchant_usage.errors import RunIncomplete, UsageError, UsageMismatch
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.run import Run
from merchant_usage.settings import OnRegression
from merchant_usage.sink import schema
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.faults.engine import At, Job, nothing, run_tasks
from tests.faults.leftovers import assert_nothing_left
from tests.faults.proxy import CuttingProxy
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw, settings

DATES = (YESTERDAY, TODAY)
# Two batches of 1200 keys: two pages of values each.
MERCHANTS = 1200
FELL = key("m0007", TODAY)

_numbers = count(1)


@pytest.fixture(scope="module")
def own_valkey(server_folder: Path) -> Iterator[Valkey]:
    """A Redis to be killed; it keeps what `save` was said for, and no more."""
    with Valkey(server_folder / "outage-valkey", extra_config=["appendonly no"]) as server:
        yield server


@pytest.fixture(scope="module")
def own_postgres(server_folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL to be killed; what it committed survives that."""
    with Postgres(server_folder / "outage-postgres", settings={"fsync": "off", "autovacuum": "off"}) as server:
        yield server


@dataclass
class World:
    """Both servers, and a run on them."""

    valkey: Valkey
    postgres: Postgres
    database_url: str
    job: Job

    @contextmanager
    def usage(self) -> Iterator[Usage]:
        """Fresh connections: those from before a crash are dead."""
        with ExitStack() as stack:
            client = stack.enter_context(redis.Redis.from_url(self.valkey.url))
            conn = stack.enter_context(psycopg.connect(self.database_url, autocommit=True))
            yield Usage(client, prepare(conn), _numbers)

    def crash_postgres(self) -> None:
        self.postgres.kill()
        self.postgres.start()

    def crash_redis(self) -> None:
        """What was not saved is lost."""
        self.valkey.kill()
        self.valkey.start()

    def save(self) -> None:
        with self.usage() as usage:
            usage.client.save()


@pytest.fixture
def world(own_valkey: Valkey, own_postgres: Postgres, tmp_path: Path) -> World:
    own_valkey.start()
    own_postgres.start()
    (own_valkey.folder / "data" / "dump.rdb").unlink(missing_ok=True)
    url = own_postgres.create_database(f"outage_{next(_numbers)}")
    with psycopg.connect(url, autocommit=True) as conn, redis.Redis.from_url(own_valkey.url) as client:
        schema.migrate(conn)
        client.flushall()
    run = Run("the run", "scheduled", DATES, NOW)
    job = Job(own_valkey.url, url, run, settings(max_mapped_tasks=2, scan_count=500), tmp_path / "xcom")
    return World(own_valkey, own_postgres, url, job)


@pytest.fixture
def expected(world: World) -> dict[CounterKey, int]:
    """Counters stored once that have grown since, but for one that fell back. What must be stored."""
    counters = {key(f"m{n:04}", day): 100 + n for n in range(MERCHANTS) for day in DATES}
    with world.usage() as usage:
        usage.write(counters)
        usage.aggregate(*DATES)
        grown = {counter: value + n % 7 for n, (counter, value) in enumerate(counters.items())}
        new = {key("new", day): 1 for day in DATES}
        usage.write({**grown, **new, FELL: 5})
    return {**grown, **new, FELL: counters[FELL]}


def assert_exact(world: World, expected: dict[CounterKey, int]) -> None:
    with world.usage() as usage:
        assert usage.rows() == expected
        assert [letter[:3] for letter in usage.letters()] == [
            (raw(FELL), Reason.COUNTER_REGRESSED, f"Redis has 5, PostgreSQL has {expected[FELL]}")
        ]
        verdicts = {date: verdict for date, (verdict, _) in usage.ledger("the run").items()}
        assert verdicts == {YESTERDAY: "verified", TODAY: "mismatch"}
        assert_nothing_left(usage.conn)


def fails_for_now(job: Job, hear: Callable[[str], None]) -> None:
    """The run meets an error that Airflow retries."""
    with pytest.raises(UsageError) as raised, explained():
        run_tasks(job, hear)
    assert raised.value.heals, raised.value


@pytest.mark.parametrize(
    ("moment", "readings_are_lost"),
    [
        pytest.param(["page", "page"], False, id="in the SCAN"),
        pytest.param(["copied"], False, id="in the middle of COPY"),
        pytest.param(["did:upsert_staged"], False, id="between the upsert and its commit"),
        pytest.param(["committed:upsert_staged"], False, id="after the commit"),
        pytest.param(["did:lock_rows"], False, id="with the suspects locked"),
        pytest.param(["committed:upsert_staged", "did:create_staging"], True, id="in the second batch"),
        pytest.param(["sql:set_snapshot"], True, id="between upsert and verify"),
        pytest.param(["sql:set_snapshot", "mget"], True, id="in the second reading"),
        pytest.param(["commit:finish_run"], True, id="in the ledger"),
        pytest.param(["sql:delete_readings"], False, id="after the ledger"),
    ],
)
def test_postgresql_is_killed_and_restarted(
    world: World, expected: dict[CounterKey, int], moment: list[str], readings_are_lost: bool
) -> None:
    fails_for_now(world.job, At(*moment, do=world.crash_postgres))
    if readings_are_lost:
        # usage_reading is not crash-safe on purpose; verification notices, and says what to do.
        with pytest.raises(RunIncomplete, match="of these readings are left"):
            run_tasks(world.job)
        world.job.clear("upsert", "verify")
    run_tasks(world.job)
    assert_exact(world, expected)


def test_readings_written_twice_do_not_stand_for_those_that_are_lost(
    world: World, expected: dict[CounterKey, int]
) -> None:
    """PostgreSQL loses the first batch's readings, and the second batch is stored again and again after that."""
    fails_for_now(world.job, At("committed:upsert_staged", "did:create_staging", do=world.crash_postgres))
    for _ in range(3):
        with pytest.raises(RunIncomplete):
            run_tasks(world.job)
        world.job.clear("upsert 1")
    world.job.clear("upsert", "verify")
    run_tasks(world.job)
    assert_exact(world, expected)


def test_postgresql_stays_away_for_some_attempts(world: World, expected: dict[CounterKey, int]) -> None:
    fails_for_now(world.job, At("copied", do=world.postgres.kill))
    fails_for_now(world.job, nothing)
    world.postgres.start()
    run_tasks(world.job)
    assert_exact(world, expected)


def test_redis_is_restarted_between_two_pages_of_scan(world: World, expected: dict[CounterKey, int]) -> None:
    """The same data, but a cursor of another server's life: going on with it would skip keys without a word."""
    world.save()
    fails_for_now(world.job, At("page", "page", do=world.crash_redis))
    run_tasks(world.job)
    assert_exact(world, expected)


def test_scan_whose_connection_is_killed_is_an_error(world: World, expected: dict[CounterKey, int]) -> None:
    def kill_clients() -> None:
        with redis.Redis.from_url(world.valkey.url) as admin:
            admin.client_kill_filter(_type="normal", skipme=True)

    fails_for_now(world.job, At("page", "page", do=kill_clients))
    run_tasks(world.job)
    assert_exact(world, expected)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(["mget", "mget"], id="in the first reading"),
        pytest.param(["did:set_snapshot", "did:select_day_totals", "mget", "mget"], id="in the second reading"),
    ],
)
def test_redis_is_restarted_while_values_are_read(
    world: World, expected: dict[CounterKey, int], moment: list[str]
) -> None:
    """Each page of values stands for itself, so the client may connect anew: no retry is needed."""
    world.save()
    restart = At(*moment, do=world.crash_redis)
    run_tasks(world.job, restart)
    assert restart.happened
    assert_exact(world, expected)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.97])
def test_connection_is_cut_in_the_middle_of_an_answer(
    world: World, expected: dict[CounterKey, int], share: float
) -> None:
    """Wherever it is cut: an error that heals, or a page of values that was asked for again."""
    # What Redis sends during this run: each key name once, each value twice.
    sent = sum(len(raw(counter)) + 6 for counter in expected) + 2 * 9 * len(expected)
    with CuttingProxy(world.valkey.url, int(sent * share)) as proxy:
        job = Job(proxy.url, world.database_url, world.job.run, world.job.settings, world.job.folder)
        error: UsageError | None = None
        try:
            with explained():
                run_tasks(job)
        except UsageError as met:
            error = met
        assert error is None or error.heals, error
        assert error is not None or share > 0.5, "a SCAN that is cut off is never a shorter result"
        with world.usage() as usage:
            assert all(value <= expected[counter] for counter, value in usage.rows().items())
        assert proxy.has_cut
        run_tasks(job)
    assert_exact(world, expected)


def test_redis_stays_away_in_the_middle_of_a_batch(world: World, expected: dict[CounterKey, int]) -> None:
    """Its client tries again for some seconds, then gives up: an error, and not one key taken for gone."""
    world.save()
    fails_for_now(world.job, At("mget", "mget", do=world.valkey.kill))
    with world.usage() as usage:
        assert usage.conn.execute("SELECT count(*) FROM merchant_usage WHERE merchant_id = 'new'").fetchone() == (0,)
        assert usage.letters() == []
    world.valkey.start()
    run_tasks(world.job)
    assert_exact(world, expected)


def empty_redis(world: World) -> None:
    (world.valkey.folder / "data" / "dump.rdb").unlink(missing_ok=True)
    world.crash_redis()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(["sql:prepare_batch"], id="between scan and upsert"),
        pytest.param(["mget", "mget"], id="between two pages of values"),
    ],
)
def test_redis_is_emptied_before_all_was_stored(
    world: World, expected: dict[CounterKey, int], moment: list[str]
) -> None:
    """Usage that was seen but never stored is lost: that is told by name, and what is stored stays."""
    lose = At(*moment, do=lambda: empty_redis(world))
    with pytest.raises(UsageMismatch, match=r"new queries of .*Redis has nothing, PostgreSQL has no row \(missing\)"):
        run_tasks(world.job, lose)
    with world.usage() as usage:
        rows = usage.rows()
        assert all(100 <= value <= expected[counter] for counter, value in rows.items() if counter.merchant_id != "new")
        assert len(rows) >= MERCHANTS * len(DATES)
        assert {verdict for verdict, _ in usage.ledger("the run").values()} == {"mismatch"}


def test_redis_is_emptied_between_upsert_and_verify(world: World, expected: dict[CounterKey, int]) -> None:
    """All is stored: the rows stay. Of the day that is over nothing is left to compare; the live one may begin anew."""
    reports = run_tasks(world.job, At("sql:set_snapshot", do=lambda: empty_redis(world)))
    verdicts = {report["date"]: report["verdict"] for report in reports}
    assert verdicts == {str(YESTERDAY): "source_expired", str(TODAY): "mismatch"}
    with world.usage() as usage:
        assert usage.rows() == expected


DECISIONS = pytest.mark.parametrize(
    ("decision", "after_decision", "after_growth", "after_overtaking"),
    [
        pytest.param(Decision.KEEP, 100, 100, 150, id="keep"),
        pytest.param(Decision.ACCEPT, 5, 15, 150, id="accept"),
        pytest.param(Decision.CARRY, 105, 115, 250, id="carry"),
    ],
)


@DECISIONS
@pytest.mark.parametrize("lost", ["all", "the last minutes"])
def test_redis_comes_back_with_less(
    world: World, lost: str, decision: Decision, after_decision: int, after_growth: int, after_overtaking: int
) -> None:
    counter, other = key("acme", TODAY), key("other", TODAY)

    def total(usage: Usage, redis_has: int) -> int:
        usage.write({counter: redis_has, other: 50})
        usage.aggregate(TODAY)
        return usage.rows()[counter]

    with world.usage() as usage:
        if lost == "the last minutes":
            usage.write({counter: 5, other: 50})
            usage.client.save()
        assert total(usage, 100) == 100
    world.crash_redis()
    with world.usage() as usage:
        stands, letters = 50, {(raw(counter), Reason.COUNTER_REGRESSED, "Redis has 5, PostgreSQL has 100")}
        if lost == "all":
            assert usage.client.dbsize() == 0
            assert usage.verdicts(usage.aggregate(TODAY)) == {TODAY: "mismatch"}, "both are gone before their time"
            assert usage.rows() == {counter: 100, other: 50}
            usage.client.incrby(raw(counter), 5)
            usage.client.incrby(raw(other), 50)
            # It is what it was, and yet it counted as much again: that it had been gone is not forgotten.
            letters.add((raw(other), Reason.COUNTER_REGRESSED, "Redis has 50, PostgreSQL has 50"))
            stands = 100 if decision is Decision.CARRY else 50
        proof = usage.aggregate(TODAY)
        assert usage.verdicts(proof) == {TODAY: "mismatch"}
        assert usage.rows() == {counter: 100, other: 50}
        assert {letter[:3] for letter in usage.letters()} == letters
        decide(usage.client, usage.conn, Ruling(decision, "tester"), "usage", date=TODAY)
        assert usage.rows() == {counter: after_decision, other: stands}
        assert total(usage, 15) == after_growth
        assert total(usage, 150) == after_overtaking
        assert usage.verdicts(usage.aggregate(TODAY)) == {TODAY: "verified"}
        assert {letter.resolved for letter in usage.letters()} == {True}


def test_carrying_by_itself_gives_the_true_total_after_any_number_of_restarts(world: World) -> None:
    true: dict[CounterKey, int] = {}
    for life in range(1, 5):
        with world.usage() as usage:
            for step in range(3):
                for n in range(20):
                    counter = key(f"m{n}", TODAY)
                    # Each life counts less than the ones before it together, so that each restart can be seen.
                    by = n + step + (20 if life == 1 else 0)
                    usage.client.incrby(raw(counter), by)
                    true[counter] = true.get(counter, 0) + by
                proof = usage.aggregate(TODAY, on_regression=OnRegression.CARRY)
                assert usage.rows() == true
                assert usage.verdicts(proof) == {TODAY: "verified"}
            assert not any(letter.resolved is False for letter in usage.letters())
        world.crash_redis()


def test_restart_is_seen_first_by_verification(world: World) -> None:
    """It fell between upsert and verify: flagged by verify, carried by the next run."""
    with world.usage() as usage:
        usage.write({key("acme", TODAY): 100})
        stored = usage.store_only(TODAY)
    world.crash_redis()
    with world.usage() as usage:
        usage.write({key("acme", TODAY): 5})
        proof: Any = usage.prove(stored)
        assert usage.verdicts(proof) == {TODAY: "mismatch"}
        assert [letter.detail for letter in usage.letters()] == ["Redis has 5, PostgreSQL has 100"]
        usage.client.incrby(raw(key("acme", TODAY)), 2)
        usage.aggregate(TODAY, on_regression=OnRegression.CARRY)
        assert usage.rows() == {key("acme", TODAY): 107}
        assert [letter.resolved for letter in usage.letters()] == [True]
