"""Metrics leave a task's process before it ends, short as its life is."""

from __future__ import annotations

import pytest

from local.airflow_api import DagRun
from tests.receivers import Received
from tests.scheduler.world import World, wait_until


@pytest.fixture
def run_of_yesterday(between_runs: World) -> DagRun:
    between_runs.monitor.take()
    yesterday = str(between_runs.yesterday)
    return between_runs.trigger(from_date=yesterday, to_date=yesterday)


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
    # At least: keys of other days are scanned, too.
    assert got.counters["usage.keys_scanned"] >= len(of_yesterday)
    changes = {name: value for name, value in got.counters.items() if name.startswith("usage.records")}
    assert sum(changes.values()) >= len(of_yesterday)
    assert min(got.gauges["usage.lag"]) >= 0
