"""Metrics leave a task's process before it ends, short as its life is."""

from __future__ import annotations

import pytest

from local.airflow_api import DagRun
from tests.receivers import Received
from tests.scheduler.world import World, wait_until


@pytest.fixture
def run_of_yesterday(world: World, scheduled_runs: list[DagRun]) -> DagRun:
    assert scheduled_runs
    world.monitor.take()
    return world.trigger(from_date=str(world.yesterday), to_date=str(world.yesterday))


def test_each_task_is_heard_of(world: World, run_of_yesterday: DagRun) -> None:
    assert run_of_yesterday.state == "success"
    samples = []

    def heard() -> Received | None:
        samples.extend(world.monitor.take_samples())
        got = Received(samples)
        told = {name.replace("phase=", "").replace(" ", ".") for name in got.timers}
        wanted = {f"usage.phase_duration.{phase}" for phase in ("scan", "upsert", "verify")}
        return got if wanted <= told and "usage.lag" in got.gauges else None

    got = wait_until(heard, "all tasks of the run were heard of")
    of_yesterday = [key for key in world.counters() if key.date == world.yesterday]
    # At least: the scheduler may have begun an hourly run meanwhile.
    assert got.counters["usage.keys_scanned"] >= len(of_yesterday)
    changes = {name: value for name, value in got.counters.items() if name.startswith("usage.records")}
    assert sum(changes.values()) >= len(of_yesterday)
    assert min(got.gauges["usage.lag"]) >= 0
