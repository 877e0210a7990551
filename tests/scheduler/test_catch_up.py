"""From the schedule to verified rows, by a real scheduler."""

from __future__ import annotations

import datetime as dt
from typing import Any

from local.airflow_api import DagRun
from merchant_usage.model.dates import local_date
from merchant_usage.text import shown
from tests.scheduler.world import HOUR, MERCHANTS, METRICS, RUN_SECONDS, World


def test_the_dag_was_loaded(world: World, scheduled_runs: list[DagRun]) -> None:
    assert world.airflow.api.import_errors() == []
    assert {run.run_type for run in scheduled_runs} == {"scheduled"}


def test_every_due_interval_has_a_successful_run(world: World, scheduled_runs: list[DagRun]) -> None:
    start = world.settings.start_date
    intervals = sorted((run.interval_start, run.interval_end) for run in scheduled_runs if run.interval_start)
    assert intervals == [(start + n * HOUR, start + (n + 1) * HOUR) for n in range(len(scheduled_runs))]
    assert [run.state for run in scheduled_runs] == ["success"] * len(scheduled_runs)


def working(world: World, scheduled_runs: list[DagRun]) -> list[DagRun]:
    """All but those whose interval a later run, which was quicker, has proven."""
    found = [run for run in scheduled_runs if world.states(run, "upsert_merchant_usage") != {"skipped"}]
    assert found
    left = [run for run in scheduled_runs if run not in found]
    assert all(run.note and run.note.startswith("Nothing to verify: ") for run in left)
    return found


def test_each_merchant_has_a_task_of_its_name(world: World, scheduled_runs: list[DagRun]) -> None:
    for run in working(world, scheduled_runs):
        tasks = world.tasks(run, "upsert_merchant_usage")
        assert {task.state for task in tasks} == {"success"}
        assert sorted(str(task.name) for task in tasks) == sorted(map(shown, MERCHANTS))


def test_every_run_proved_its_date_although_counters_moved(world: World, scheduled_runs: list[DagRun]) -> None:
    for run in working(world, scheduled_runs):
        assert run.interval_start is not None
        verdicts = world.ledger(run)
        assert verdicts[local_date(run.interval_start, world.settings)] == "verified"
        assert set(verdicts.values()) <= {"verified", "empty"}, verdicts


def test_a_run_by_hand_ends_in_the_very_numbers_of_redis(world: World, run_by_hand: DagRun) -> None:
    assert (run_by_hand.run_type, run_by_hand.state) == ("manual", "success")
    assert world.ledger(run_by_hand) == {world.yesterday: "verified", world.today: "verified"}
    assert world.rows() == world.counters()
    assert len(world.rows()) == 2 * len(METRICS) * len(MERCHANTS)


def test_the_note_of_a_run_tells_its_verdicts_and_totals(world: World, run_by_hand: DagRun) -> None:
    assert run_by_hand.note is not None

    def told(*dates: dt.date) -> str:
        total = sum(value for key, value in world.rows().items() if key.date in dates)
        return f"{', '.join(map(str, dates))}: verified, Redis {total:,}, PostgreSQL {total:,}"

    # In the first hours of a day, the day before is not settled, either.
    apart = [told(world.yesterday), told(world.today)]
    together = [told(world.yesterday, world.today)]
    assert any(all(line in run_by_hand.note for line in lines) for lines in (apart, together)), run_by_hand.note


def event_of_billing(world: World, run: DagRun) -> dict[str, Any]:
    """The event of the asset that stands for all dates of a run; each date that was sealed may have one beside it."""
    (event,) = [event for event in world.events(run) if event["name"] == "merchant_usage"]
    return event


def test_the_asset_event_tells_dates_and_totals(world: World, run_by_hand: DagRun) -> None:
    event = event_of_billing(world, run_by_hand)
    assert event["extra"]["run_id"] == run_by_hand.run_id
    told = {report["date"]: (report["verdict"], report["postgres_total"]) for report in event["extra"]["dates"]}
    totals = {
        str(date): ("verified", sum(value for key, value in world.rows().items() if key.date == date))
        for date in (world.yesterday, world.today)
    }
    assert told == totals


def test_a_dag_that_waits_for_the_asset_starts_with_that_event(world: World, run_by_hand: DagRun) -> None:
    def started() -> list[str]:
        event = event_of_billing(world, run_by_hand)
        return [run["dag_id"] for run in event["created_dagruns"]]

    assert world.airflow.wait_until(started, "billing has started", RUN_SECONDS) == ["billing"]


def test_poison_keys_are_dead_letters_with_their_reasons(
    world: World, scheduled_runs: list[DagRun], poison: dict[bytes, tuple[bytes | None, str]]
) -> None:
    assert scheduled_runs
    letters = world.conn.execute("SELECT redis_key, reason FROM usage_dead_letter WHERE resolved_at IS NULL").fetchall()
    assert {bytes(key): reason for key, reason in letters} == {key: reason for key, (_, reason) in poison.items()}
    assert len(letters) == len(poison)
