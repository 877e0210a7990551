"""Each line of the README's table of commands, run as it stands there but for its dates, on the version it names."""

from __future__ import annotations

import datetime as dt
import os
import re
import shlex
import subprocess
import sys

import pytest

from local.airflow_api import DagRun
from merchant_usage.model.keys import CounterKey
from merchant_usage.settings import DAG_ID
from tests.scheduler.versions import AIRFLOW_3
from tests.scheduler.world import METRICS, World
from tests.support import PROJECT

SHOPS = ("acme", "shop three")
# The days that the README names.
FIRST, SECOND = "2026-11-20", "2026-11-21"
ELSEWHERE = "(Airflow 2.11)" if AIRFLOW_3 else "(Airflow 3)"


def table() -> dict[str, str]:
    """What there is to do, and what to say for it."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^## Commands\n\n\| to do \| was .*\n\|---.*\n((?:\|.*\n)+)", readme, re.MULTILINE)
    rows = [re.split(r" \|(?= |$)", line.removeprefix("|")) for line in lines.splitlines()]
    return {to_do.strip(): say.strip() for to_do, _was, say, _end in rows}


SAY = table()
STATUS = "has a day been aggregated, when, by whom, does it match?"
BACKFILL = f"backfill, a run an interval ({'Airflow 3' if AIRFLOW_3 else 'Airflow 2.11'})"
RANGE = "aggregate a range, one scan for all of it"
# What is aggregated: of which of the three days, and of which merchants.
DAYS = {
    "aggregate yesterday": ["yesterday"],
    "aggregate one day": ["first"],
    RANGE: ["first", "second"],
    BACKFILL: ["first"],
    "one merchant only": ["first"],
}
MERCHANTS = {"one merchant only": SHOPS[:1]}


@pytest.fixture(scope="module")
def days(world: World, scheduled_runs: list[DagRun]) -> dict[str, dt.date]:
    """Two settled days, and yesterday, each with two merchants of its own."""
    assert scheduled_runs
    first = world.today - dt.timedelta(days=6)
    return {"first": first, "second": first + dt.timedelta(days=1), "yesterday": world.yesterday}


def keys_of(days: dict[str, dt.date]) -> list[CounterKey]:
    return [CounterKey(shop, day, METRICS[0]) for day in days.values() for shop in SHOPS]


def command(to_do: str, days: dict[str, dt.date]) -> list[str]:
    """The first command of a line, for days that Redis still has."""
    (said, *_) = re.findall("`([^`]+)`", SAY[to_do])
    # A second whole day would be 24 runs more.
    second = "first" if to_do == BACKFILL else "second"
    return shlex.split(said.replace(FIRST, str(days["first"])).replace(SECOND, str(days[second])))


def test_every_line_is_run_by_a_test_on_some_version() -> None:
    elsewhere = {to_do for to_do in SAY if to_do.endswith(ELSEWHERE)}
    assert len(elsewhere) == 1
    # The scheduler runs every hour in test_catch_up.
    assert set(SAY) == {*DAYS, *elsewhere, STATUS, "run every hour"}
    assert SAY["run every hour"] == "the Airflow scheduler"


@pytest.mark.parametrize("to_do", DAYS)
def test_the_command_aggregates_what_it_says_and_nothing_else(
    world: World, days: dict[str, dt.date], to_do: str
) -> None:
    for key in keys_of(days):
        world.count(key, 5)
    before = world.rows()
    known = {run.run_id for run in world.airflow.api.runs(DAG_ID)}
    if to_do == BACKFILL:
        world.airflow.wait_for_backfills(DAG_ID)

    program, *arguments = command(to_do, days)
    assert program == "airflow"
    world.airflow.cli(*arguments, timeout=180)

    made = [run for run in world.airflow.api.runs(DAG_ID) if run.run_id not in known and run.run_type != "scheduled"]
    (run,) = [world.ended(run.run_id) for run in made]
    assert (run.run_type, run.state) == ("backfill" if to_do == BACKFILL else "manual", "success")
    wanted = {days[day] for day in DAYS[to_do]}
    verdicts = world.ledger(run)
    assert {day: verdicts.get(day) for day in wanted} == dict.fromkeys(wanted, "verified")
    # The first interval of a day sweeps the days before, too.
    assert set(verdicts) == wanted or to_do == BACKFILL
    after = world.rows()
    for key in keys_of(days):
        raised = key.date in wanted and key.merchant_id in MERCHANTS.get(to_do, SHOPS)
        counter = world.redis.get(f"usage:{key.merchant_id}:{key.date}:{key.metric_type}")
        assert counter is not None
        assert after.get(key) == (int(counter) if raised else before.get(key)), key


def test_the_status_of_a_day_is_told_without_airflow(world: World, days: dict[str, dt.date]) -> None:
    for key in keys_of(days):
        world.count(key, 5)
    assert world.trigger(from_date=str(days["first"]), to_date=str(days["first"])).state == "success"
    python, *arguments = command(STATUS, days)
    assert python == "python"
    assert "`--live`" in SAY[STATUS]
    for more in ([], ["--live"]):
        told = subprocess.run(
            [sys.executable, *arguments, *more],
            cwd=PROJECT,
            env={**os.environ, **world.addresses},
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 0, told.stderr
        assert str(days["first"]) in told.stdout
        assert "verified" in told.stdout
