"""Each command that the docs teach for Airflow, run as it stands there but for its dates, on the version it names."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass

import pytest

from local.airflow_api import DagRun
from merchant_usage.model.keys import CounterKey
from merchant_usage.settings import DAG_ID, DECISIONS_DAG_ID
from tests import docs
from tests.scheduler.versions import AIRFLOW_3
from tests.scheduler.world import METRICS, World
from tests.support import PROJECT

pytestmark = pytest.mark.usefixtures("between_runs")

SHOPS = ("acme", "shop three")
# The days that the docs name.
FIRST, SECOND = "2026-11-20", "2026-11-21"
ELSEWHERE = "airflow dags backfill" if AIRFLOW_3 else "airflow backfill"
# The one of examples/ is not here: test_invoice_month.py runs what starts it.
COMMANDS = [
    command
    for command in docs.commands_of("airflow")
    if not command.startswith(ELSEWHERE)
    and "invoice_month" not in command
    and (AIRFLOW_3 or DECISIONS_DAG_ID not in command)
]
AGGREGATING = [command for command in COMMANDS if {"trigger", "backfill"} & set(command.split())]
# `airflow dags test` needs no scheduler: tests/dags runs it.
OTHERS = [command for command in COMMANDS if command not in AGGREGATING and "test" not in command.split()]
STATUS = f"merchant-usage status {FIRST}"


@dataclass(frozen=True)
class Asked:
    """What a command asks for: of which of the three days, of which merchants, by a run of which type."""

    days: tuple[str, ...]
    merchants: tuple[str, ...]
    run_type: str
    dry_run: bool

    @classmethod
    def of(cls, command: str) -> Asked:
        """By the words of a command."""
        words = shlex.split(command)
        if "backfill" in words:
            return cls(("first",), SHOPS, "backfill", dry_run=False)
        conf = json.loads(words[words.index("-c") + 1]) if "-c" in words else {}
        names = {FIRST: "first", SECOND: "second"}
        days = sorted({names[day] for name, day in conf.items() if name in {"from_date", "to_date"}})
        merchants = tuple(conf.get("merchant_ids", SHOPS))
        return cls(tuple(days) or ("yesterday",), merchants, "manual", conf.get("dry_run", False))


@pytest.fixture(scope="module")
def days(world: World, scheduled_runs: list[DagRun]) -> dict[str, dt.date]:
    """Two settled days, and yesterday, each with two merchants of its own."""
    assert scheduled_runs
    first = world.today - dt.timedelta(days=6)
    return {"first": first, "second": first + dt.timedelta(days=1), "yesterday": world.yesterday}


def keys_of(days: dict[str, dt.date]) -> list[CounterKey]:
    return [CounterKey(shop, day, METRICS[0]) for day in days.values() for shop in SHOPS]


def for_days_of_today(command: str, days: dict[str, dt.date]) -> list[str]:
    """The words of a command, for days that Redis still has."""
    # A second whole day of a backfill would be 24 runs more.
    second = "first" if "backfill" in command else "second"
    of_today = {FIRST: str(days["first"]), SECOND: str(days[second])}
    # At once: one of them may be the other's day, by the date of today.
    return shlex.split(re.sub("|".join(of_today), lambda named: of_today[named[0]], command))


def test_each_way_to_aggregate_is_among_them() -> None:
    asked = [Asked.of(command) for command in AGGREGATING]
    assert {one.days for one in asked} >= {("yesterday",), ("first",), ("first", "second")}
    assert {one.run_type for one in asked} == {"manual", "backfill"}
    assert {one.merchants for one in asked} == {SHOPS, SHOPS[:1]}
    assert any(one.dry_run for one in asked)


@pytest.mark.parametrize("command", AGGREGATING)
def test_the_command_aggregates_what_it_says_and_nothing_else(
    world: World, days: dict[str, dt.date], command: str
) -> None:
    asked = Asked.of(command)
    for key in keys_of(days):
        world.count(key, 5)
    before = world.rows()
    known = {run.run_id for run in world.airflow.api.runs(DAG_ID)}
    if asked.run_type == "backfill":
        world.airflow.wait_for_backfills(DAG_ID)

    world.airflow.cli(*for_days_of_today(command, days)[1:], timeout=180)

    made = [run for run in world.airflow.api.runs(DAG_ID) if run.run_id not in known and run.run_type != "scheduled"]
    (run,) = [world.ended(run.run_id) for run in made]
    assert (run.run_type, run.state) == (asked.run_type, "success")
    wanted = set() if asked.dry_run else {days[day] for day in asked.days}
    verdicts = world.ledger(run)
    assert {day: verdicts.get(day) for day in wanted} == dict.fromkeys(wanted, "verified")
    # The first interval of a day sweeps the days before, too.
    assert set(verdicts) == wanted or asked.run_type == "backfill"
    after = world.rows()
    for key in keys_of(days):
        raised = key.date in wanted and key.merchant_id in asked.merchants
        counter = world.redis.get(f"usage:{key.merchant_id}:{key.date}:{key.metric_type}")
        assert counter is not None
        assert after.get(key) == (int(counter) if raised else before.get(key)), key


def test_after_a_pause_it_goes_on_and_the_status_of_a_day_is_told_without_airflow(
    world: World, days: dict[str, dt.date]
) -> None:
    of_decisions = [f"airflow dags unpause {DECISIONS_DAG_ID}"] if AIRFLOW_3 else []
    assert sorted(OTHERS) == [*(f"airflow dags {verb} {DAG_ID}" for verb in ("pause", "unpause")), *of_decisions]
    for command in sorted(OTHERS):
        world.airflow.cli(*shlex.split(command)[1:])
    for key in keys_of(days):
        world.count(key, 5)
    assert world.trigger(from_date=str(days["first"]), to_date=str(days["first"])).state == "success"
    assert {STATUS, f"{STATUS} --live"} <= set(docs.commands())
    for command in (STATUS, f"{STATUS} --live"):
        _, *arguments = for_days_of_today(command, days)
        told = subprocess.run(
            [sys.executable, "-m", "merchant_usage", *arguments],
            cwd=PROJECT,
            env={**os.environ, **world.addresses},
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 0, told.stderr
        assert str(days["first"]) in told.stdout
        assert "verified" in told.stdout
