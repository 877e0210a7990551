"""What a person may ask of it meanwhile: backfills, runs of some dates or merchants, tasks cleared in the UI."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql

from local.airflow_api import DagRun, TaskInstance
from merchant_usage.model.keys import CounterKey
from merchant_usage.settings import DAG_ID
from merchant_usage.sink import ledger
from tests.scheduler.tested import Again
from tests.scheduler.versions import AIRFLOW_3, NAMED_FROM_START
from tests.scheduler.world import HOUR, METRICS, RUN_SECONDS, World, wait_until

pytestmark = pytest.mark.usefixtures("between_runs")

SHOPS = ("shop one", "shop two")


@pytest.fixture(scope="module")
def old(world: World, scheduled_runs: list[DagRun]) -> dt.date:
    """A date of its own, long settled, with two merchants of its own."""
    assert scheduled_runs
    date = world.today - dt.timedelta(days=4)
    for number, shop in enumerate(SHOPS, start=1):
        for metric in METRICS:
            world.count(CounterKey(shop, date, metric), number)
    return date


@contextmanager
def losing(world: World, merchant: str) -> Iterator[None]:
    """What is written of a merchant meanwhile is thrown away in silence, as by a trigger that somebody forgot."""
    world.conn.execute("CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    trigger = sql.SQL(
        "CREATE TRIGGER lose BEFORE INSERT OR UPDATE ON merchant_usage FOR EACH ROW"
        " WHEN (NEW.merchant_id = {}) EXECUTE FUNCTION lose()"
    )
    world.conn.execute(trigger.format(sql.Literal(merchant)))
    try:
        yield
    finally:
        world.conn.execute("DROP FUNCTION lose CASCADE")


def rows(world: World, *dates: dt.date) -> dict[CounterKey, int]:
    return {key: value for key, value in world.rows().items() if key.date in dates}


def counted(world: World, key: CounterKey) -> int:
    counter = world.redis.get(f"usage:{key.merchant_id}:{key.date}:{key.metric_type}")
    assert counter is not None
    return int(counter)


def of_shops(date: dt.date, one: int, two: int) -> dict[CounterKey, int]:
    """What the shops have of their first metric; of the second they have 1 and 2, always."""
    values = {(SHOPS[0], METRICS[0]): one, (SHOPS[1], METRICS[0]): two}
    values |= {(SHOPS[0], METRICS[1]): 1, (SHOPS[1], METRICS[1]): 2}
    return {CounterKey(shop, date, metric): value for (shop, metric), value in values.items()}


def noon(date: dt.date) -> dt.datetime:
    return dt.datetime.combine(date, dt.time(12), dt.UTC)


def upserts(world: World, run: DagRun) -> dict[str | None, TaskInstance]:
    return {task.name: task for task in world.tasks(run, "upsert_merchant_usage")}


def tries(world: World, run: DagRun) -> dict[str | None, int]:
    return {name: task.try_number for name, task in upserts(world, run).items()}


def test_a_backfill_in_parallel_beside_a_scheduled_run_is_verified(
    world: World, scheduled_runs: list[DagRun], old: dt.date
) -> None:
    world.airflow.api.clear(DAG_ID, scheduled_runs[0].run_id, ["scan_usage"])
    with world.busy():
        backfilled = world.backfill(noon(old), noon(old) + 2 * HOUR)
        scheduled = world.ended(scheduled_runs[0].run_id)

    assert [run.interval_start for run in backfilled] == [noon(old) + n * HOUR for n in range(3)]
    assert [run.state for run in backfilled] == ["success"] * 3
    assert [world.ledger(run) for run in backfilled] == [{old: "verified"}] * 3
    assert rows(world, old) == of_shops(old, 1, 2)
    assert scheduled.state == "success"
    assert set(world.ledger(scheduled).values()) <= {"verified", "empty"}


def test_two_dates_by_hand_cost_one_scan(world: World, old: dt.date) -> None:
    world.redis.config_resetstat()
    assert sum(1 for _ in world.redis.scan_iter(count=world.settings.scan_count))
    one_pass = scans(world)
    run = world.trigger(from_date=str(old), to_date=str(old + dt.timedelta(days=1)))
    assert scans(world) == 2 * one_pass
    assert run.state == "success"
    assert world.ledger(run) == {old: "verified", old + dt.timedelta(days=1): "empty"}


def scans(world: World) -> int:
    return int(world.redis.info("commandstats")["cmdstat_scan"]["calls"])


def test_an_expired_date_is_skipped_by_name_and_its_rows_stay(world: World, old: dt.date) -> None:
    expired = old - dt.timedelta(days=30)
    world.conn.execute(
        "INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value) VALUES (%s, %s, %s, %s)",
        [SHOPS[0], expired, METRICS[0], 77],
    )
    lies = "SELECT ctid, xmin, metric_value, updated_at FROM merchant_usage WHERE date = %s"
    before = world.conn.execute(lies, [expired]).fetchall()

    run = world.trigger(from_date=str(expired), to_date=str(expired))

    assert run.state == "success"
    (verify,) = world.tasks(run, "verify_usage")
    assert verify.state == "skipped"
    assert run.note is not None
    assert run.note.startswith(f"{expired}: source_expired, ")
    assert f"{expired}: source_expired" in world.airflow.api.log(DAG_ID, run.run_id, verify)
    assert world.ledger(run) == {expired: "source_expired"}
    assert world.conn.execute(lies, [expired]).fetchall() == before


def test_clearing_tasks_reads_anew_and_only_for_the_right_merchant(world: World) -> None:
    keys = [CounterKey(merchant, world.today, METRICS[0]) for merchant in ("100%", "o'brien")]
    day = str(world.today)
    run = world.trigger(from_date=day, to_date=day, merchant_ids=[key.merchant_id for key in keys])
    before = world.rows()
    assert [tries(world, run), world.ledger(run)] == [{"100%": 1, "o'brien": 1}, {world.today: "verified"}]
    for key in keys:
        world.count(key, 5)

    cleared = world.clear(run, ("upsert_merchant_usage", upserts(world, run)["o'brien"].map_index))

    assert cleared.state == "success"
    assert tries(world, run) == {"100%": 1, "o'brien": 2}
    assert world.rows() == {**before, keys[1]: before[keys[1]] + 5}
    assert world.ledger(run) == {world.today: "verified"}

    again = world.clear(run, "verify_usage")

    assert again.state == "success"
    assert again.note is not None
    assert again.note.startswith(f"{day}, 2 merchants: verified, ")
    (verify,) = world.tasks(run, "verify_usage")
    assert (verify.state, verify.try_number) == ("success", 3)
    assert "Completed. Records aggregated: 4, errors: 0" in world.airflow.api.log(DAG_ID, run.run_id, verify)
    assert tries(world, run) == {"100%": 1, "o'brien": 2}
    assert world.ledger(run) == {world.today: "verified"}


@pytest.mark.skipif(not NAMED_FROM_START, reason="2.11 and 3.1 name it when it has ended")
def test_a_mapped_task_carries_its_merchants_name_while_it_works(world: World) -> None:
    for shop in ("100%", "o'brien"):
        world.count(CounterKey(shop, world.today, METRICS[0]), 5)
    day = str(world.today)

    def names_at_work() -> set[str | None]:
        tasks = world.tasks(run, "upsert_merchant_usage")
        return {task.name for task in tasks if task.state == "running"} & {"100%", "o'brien"}

    with psycopg.connect(world.conn.info.dsn, password=world.conn.info.password) as other:
        other.execute("LOCK TABLE merchant_usage IN SHARE MODE")
        run = world.airflow.api.trigger(DAG_ID, {"from_date": day, "to_date": day, "merchant_ids": ["100%", "o'brien"]})
        wait_until(names_at_work, "a task that waits for the table has its name", RUN_SECONDS)
    assert world.ended(run.run_id).state == "success"


def test_what_a_person_notes_stays(world: World) -> None:
    if not AIRFLOW_3:
        # Nobody is logged in at the 2.11 of these tests, and a note there is nobody's.
        return
    day = str(world.today)
    run = world.trigger(from_date=day, to_date=day, merchant_ids=["100%"])
    world.airflow.api.write_note(DAG_ID, run.run_id, "Asked for by billing")
    assert world.clear(run, "verify_usage").note == "Asked for by billing"


@pytest.mark.skipif(not AIRFLOW_3, reason="2.11 gives each run by hand a logical date of its own, and waits for it")
def test_a_logical_date_that_keeps_tasks_from_running_is_refused_at_once(
    world: World, scheduled_runs: list[DagRun]
) -> None:
    assert scheduled_runs
    start = world.settings.start_date
    for date, told in (
        (start - HOUR, f"lies before {start:%Y-%m-%d %H:%M}, the start of this DAG"),
        (start + 1000 * HOUR, "is still to come"),
    ):
        run = world.ended(world.airflow.api.trigger(DAG_ID, {}, date).run_id)
        assert run.state == "failed"
        assert run.note == (
            f"Refused: its logical date {date:%Y-%m-%d %H:%M} {told}. Nothing was read or stored; leave the logical "
            "date as it is, it chooses nothing here, and name the days by from_date and to_date."
        )


@pytest.mark.skipif(not AIRFLOW_3, reason="2.11 tells nobody of it")
def test_a_run_that_a_person_marks_says_so(world: World, scheduled_runs: list[DagRun]) -> None:
    # Another test may have had it repeated since.
    run = world.airflow.api.run(DAG_ID, scheduled_runs[0].run_id)
    before = run.note
    for state, said in (("failed", "failed"), ("success", "successful")):
        world.airflow.api.mark(DAG_ID, run.run_id, state)
        note = world.airflow.api.run(DAG_ID, run.run_id).note
        assert note == f"Marked {said} by hand, which proves nothing. {before}"


def test_a_backfill_takes_the_merchant_of_its_conf_only(world: World, old: dt.date) -> None:
    before = rows(world, old)
    keys = [CounterKey(shop, old, METRICS[0]) for shop in SHOPS]
    for key in keys:
        world.count(key, 10)

    (run,) = world.backfill(noon(old) + 5 * HOUR, noon(old) + 5 * HOUR, merchant_ids=[SHOPS[0]])

    assert run.state == "success"
    assert list(upserts(world, run)) == [SHOPS[0]]
    assert world.ledger(run) == {old: "verified"}
    assert world.states(run, "verify_usage") == {"success"}
    assert world.events(run) == [], "whoever bills takes an event for the proof of all merchants"
    assert rows(world, old) == {**before, keys[0]: counted(world, keys[0])}


def test_a_backfill_of_a_sealed_date_works_again_only_when_asked(world: World, old: dt.date) -> None:
    assert ledger.sealed_dates(world.conn, [old]) == {old}
    world.count(CounterKey(SHOPS[0], old, METRICS[0]), 10)

    for again in (Again.NONE, Again.COMPLETED):
        worked = again is Again.COMPLETED
        before = rows(world, old)
        runs = world.backfill(noon(old), noon(old) + HOUR, again=again)

        assert [run.state for run in runs] == ["success"] * 2
        assert [tries(world, run) for run in runs] == [dict.fromkeys(SHOPS, 1 + worked)] * 2
        assert [world.ledger(run) for run in runs] == [{old: "verified"}] * 2
        assert rows(world, old) == ({key: counted(world, key) for key in before} if worked else before)


def test_a_repeated_backfill_may_be_for_fewer_merchants(world: World, old: dt.date) -> None:
    (run,) = world.backfill(noon(old), noon(old), again=Again.COMPLETED, merchant_ids=[SHOPS[0]])
    assert run.state == "success"
    # What the other merchant had is "removed", or not there any more: 2.11 does now this, now that.
    states = {name: task.state for name, task in upserts(world, run).items() if task.state != "removed"}
    assert states == {SHOPS[0]: "success"}
    assert world.ledger(run) == {old: "verified"}


@pytest.mark.skipif(not AIRFLOW_3, reason="2.11 ends a backfill with the first run that fails")
def test_a_backfill_of_what_failed_leaves_what_is_verified_alone(world: World, old: dt.date) -> None:
    first, second = noon(old) + 7 * HOUR, noon(old) + 8 * HOUR
    world.count(CounterKey(SHOPS[0], old, METRICS[0]), 10)
    (good,) = world.backfill(first, first)
    world.count(CounterKey(SHOPS[0], old, METRICS[0]), 10)
    with losing(world, SHOPS[0]):
        (bad,) = world.backfill(second, second)
    assert [good.state, bad.state] == ["success", "failed"]
    assert [world.ledger(good), world.ledger(bad)] == [{old: "verified"}, {old: "mismatch"}]

    again = world.backfill(first, second, again=Again.FAILED)

    assert [(run.run_id, run.state) for run in again] == [(good.run_id, "success"), (bad.run_id, "success")]
    assert [tries(world, run) for run in again] == [dict.fromkeys(SHOPS, 1), dict.fromkeys(SHOPS, 2)]
    assert world.ledger(bad) == {old: "verified"}
    assert rows(world, old) == {key: counted(world, key) for key in rows(world, old)}


def test_a_backfill_over_several_days_verifies_each_of_them(world: World, old: dt.date) -> None:
    days = [old - dt.timedelta(days=n) for n in (2, 1)]
    keys = [CounterKey(shop, day, METRICS[0]) for day in days for shop in SHOPS]
    for key in keys:
        world.count(key, 10)

    runs = world.backfill(noon(days[0]) + 11 * HOUR, noon(days[1]) - 11 * HOUR)

    assert [run.state for run in runs] == ["success"] * 3
    # The first run of a day sweeps all that Redis has of the days before, and the next one lets the day before settle.
    assert [set(days) & set(world.ledger(run)) for run in runs] == [{days[0]}, set(days), set(days)]
    assert {verdict for run in runs for day, verdict in world.ledger(run).items() if day in days} == {"verified"}
    assert {key: world.rows()[key] for key in keys} == {key: counted(world, key) for key in keys}
