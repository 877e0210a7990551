"""A run that fails is red, at once if nothing can heal it, and is told once."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from local.airflow_api import DagRun, TaskInstance
from merchant_usage.model.keys import CounterKey
from merchant_usage.settings import DAG_ID
from tests.scheduler.world import MERCHANTS, METRICS, SLACK_TOKEN, World, said, wait_until

# Of a run that fails; it may be late too.
TITLES = ("Usage run failed", "PostgreSQL does not hold", "Still failing")


@pytest.fixture(autouse=True)
def nothing_told_before(between_runs: World) -> None:
    """No test before this one has used up what may be told in some hours."""
    between_runs.forget_alerts()


@pytest.fixture
def sabotage(world: World, scheduled_runs: list[DagRun]) -> Iterator[None]:
    """What is written of acme is thrown away in silence, as by a trigger that somebody forgot."""
    assert scheduled_runs
    world.conn.execute(
        "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER lose BEFORE INSERT OR UPDATE ON merchant_usage FOR EACH ROW"
        " WHEN (NEW.merchant_id = 'acme') EXECUTE FUNCTION lose()"
    )
    yield
    world.conn.execute("DROP FUNCTION IF EXISTS lose CASCADE")


@pytest.fixture
def without_ledger(world: World, scheduled_runs: list[DagRun]) -> Iterator[None]:
    """A table of ours is missing."""
    assert scheduled_runs
    world.conn.execute("ALTER TABLE usage_run RENAME TO usage_run_elsewhere")
    yield
    world.conn.execute("ALTER TABLE usage_run_elsewhere RENAME TO usage_run")


def _assert_told_before_few_frames(world: World, run: DagRun, task: TaskInstance, told: str) -> None:
    """A plain line with sentence and remedy is the last of ours. Frames that follow are Airflow's, none the work's."""
    lines = world.airflow.api.log(DAG_ID, run.run_id, task).splitlines()
    plain = next(number for number, line in enumerate(lines) if told in line)
    assert plain < next(number for number, line in enumerate(lines) if "AirflowFailException" in line)
    files = world.airflow.api.frames(DAG_ID, run.run_id, task)
    assert files, "Airflow adds its own"
    ours = {file.rpartition("/merchant_usage/")[2] for file in files if "/merchant_usage/" in file}
    assert ours == {"orchestration/alerts/failure_notes.py"}, files


def _assert_told_once(world: World, run: DagRun) -> None:
    ((path, body),) = wait_until(lambda: world.slack.about(run.run_id, *TITLES), "Slack was told")
    assert path == f"/services/{SLACK_TOKEN}"
    assert run.run_id in said(json.loads(body))


@pytest.mark.usefixtures("sabotage")
def test_lost_writes_make_the_run_red_name_the_merchant_and_are_told_once(world: World) -> None:
    for merchant in MERCHANTS:
        world.count(CounterKey(merchant, world.yesterday, METRICS[0]), 7)
    lost = CounterKey("acme", world.yesterday, METRICS[0])
    stored, counted = world.rows()[lost], world.counters()[lost]

    run = world.trigger(from_date=str(world.yesterday), to_date=str(world.yesterday))

    assert run.state == "failed"
    assert world.states(run, "upsert_merchant_usage") == {"success"}
    (verify,) = world.tasks(run, "verify_usage")
    assert (verify.state, verify.try_number) == ("failed", 1)
    (error,) = world.airflow.api.errors(DAG_ID, run.run_id, verify)
    assert f"acme {METRICS[0]} of {world.yesterday}: Redis has {counted:,}, PostgreSQL has {stored:,}" in error
    _assert_told_before_few_frames(
        world, run, verify, "To mend: clear upsert_merchant_usage with its downstream tasks."
    )
    assert world.ledger(run) == {world.yesterday: "mismatch"}
    of_yesterday = {key: value for key, value in world.counters().items() if key.date == world.yesterday}
    rows = world.rows()
    assert {key: rows.get(key) for key in of_yesterday} == {**of_yesterday, lost: stored}, "all others are stored"
    assert run.note is not None
    assert run.note.startswith(f"{world.yesterday}: mismatch, ")
    _assert_told_once(world, run)

    world.conn.execute("DROP FUNCTION lose CASCADE")
    mended = world.trigger(from_date=str(world.yesterday), to_date=str(world.yesterday), merchant_ids=["acme"])
    assert mended.state == "success"
    assert world.rows()[lost] == counted
    assert len(world.slack.about(run.run_id, *TITLES)) == 1
    assert world.slack.about(mended.run_id, *TITLES) == []


@pytest.mark.usefixtures("without_ledger")
def test_a_missing_table_is_not_retried_and_says_what_to_do(world: World) -> None:
    run = world.trigger(from_date=str(world.yesterday), to_date=str(world.yesterday))

    assert run.state == "failed"
    (scan,) = world.tasks(run, "scan_usage")
    (verify,) = world.tasks(run, "verify_usage")
    assert (scan.state, scan.try_number) == ("failed", 1)
    assert (verify.state, verify.try_number) == ("failed", 1)
    (error,) = world.airflow.api.errors(DAG_ID, run.run_id, scan)
    assert "usage_run" in error
    assert "merchant-usage migrate" in error
    _assert_told_before_few_frames(world, run, scan, "merchant-usage migrate")
    (error,) = world.airflow.api.errors(DAG_ID, run.run_id, verify)
    assert "scan_usage did not finish" in error
    _assert_told_once(world, run)
    assert run.note is not None
    assert run.note.startswith("Not verified, scan_usage failed: ")
    assert "usage_run" in run.note
