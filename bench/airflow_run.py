"""`./run bench --dag`: whole DAG runs under a real scheduler, beside a DAG of the same shape that does nothing."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench.contestants import Figures
from bench.data import DAY, DataSet
from bench.running import Stage
from bench.tables import Sheet, yes_or_no
from local.airflow import LocalAirflow
from local.airflow_api import DagRun
from local.airflow_environment import PROJECT
from local.connections import postgres_connection, redis_connection
from merchant_usage.settings import DAG_ID, load_settings

NO_OP: Final = "no_op"
LOAD_SECONDS: Final = 120
RUN_SECONDS: Final = 900
#: A run's end is noticed so many seconds late at most.
SECONDS_BETWEEN_LOOKS: Final = 0.05
#: What a run under the scheduler may take of (the same without work + the engine's time).
OF_SHAPE_AND_ENGINE: Final = 1.5
PARSE_MILLISECONDS: Final = 50.0


def measure(stage_of: Callable[[DataSet], Stage], data: DataSet, rounds: int) -> dict[str, Any]:
    """Medians of the seconds of whole runs, after one of each that is not counted, and of parsing the DAG file."""
    stage = stage_of(data)
    batches, settings = stage.data.merchants, load_settings({})
    if batches > settings.max_mapped_tasks:
        batches = min(settings.max_mapped_tasks, ceil(stage.data.wanted / settings.batch_counters))
    with TemporaryDirectory(prefix="usage-bench-") as name:
        folder = Path(name).resolve()
        dags = folder / "dags"
        dags.mkdir()
        for file in (PROJECT / "bench" / "dags" / "no_op.py", PROJECT / "dags" / f"{DAG_ID}.py"):
            shutil.copy(file, dags)
        environment = {
            "AIRFLOW_CONN_USAGE_REDIS": redis_connection(stage.valkey.url),
            "AIRFLOW_CONN_USAGE_POSTGRES": postgres_connection(stage.postgres.url),
            "ENABLE_USAGE_AGGREGATION": "false",
        }
        database = stage.postgres.create_database("airflow")
        with LocalAirflow(folder / "airflow", database, environment, dags_folder=dags) as airflow:
            for dag_id in (NO_OP, DAG_ID):
                airflow.wait_until(partial(airflow.api.has_dag, dag_id), f"{dag_id} is loaded", LOAD_SECONDS)
            seconds: dict[str, list[float]] = defaultdict(list)
            for number in range(rounds + 1):
                measured = _round(airflow, stage, batches)
                print(f"DAG runs: round {number} of {rounds} done", file=sys.stderr)
                if number:
                    for what, taken in measured.items():
                        seconds[what].append(taken)
        parse = _parse_milliseconds(folder / "airflow", rounds)
    medians = {what: statistics.median(taken) for what, taken in seconds.items()}
    return {"description": stage.data.description, "batches": batches, "seconds": medians, "parse_milliseconds": parse}


def _round(airflow: LocalAirflow, stage: Stage, batches: int) -> Figures:
    measured = {"no_op_one": _dag_run(airflow, NO_OP, {"batches": 1})}
    measured["no_op_all"] = _dag_run(airflow, NO_OP, {"batches": batches})
    stage.empty()
    stage.settle()
    measured["dag"] = _dag_run(airflow, DAG_ID, {"from_date": str(DAY)})
    stage.settle()
    measured["dag_unchanged"] = _dag_run(airflow, DAG_ID, {"from_date": str(DAY)})
    stage.empty()
    stage.settle()
    measured["engine"] = stage.run("verified")["seconds"]
    return measured


def _dag_run(airflow: LocalAirflow, dag_id: str, conf: dict[str, Any]) -> float:
    """Seconds from asking for a run to seeing its end."""
    started = time.perf_counter()
    asked = airflow.api.trigger(dag_id, conf)

    def ended() -> DagRun | None:
        run = airflow.api.run(dag_id, asked.run_id)
        return run if run.finished else None

    run = airflow.wait_until(ended, f"{asked.run_id} has ended", RUN_SECONDS, every=SECONDS_BETWEEN_LOOKS)
    seconds = time.perf_counter() - started
    if run.state != "success":
        raise SystemExit(f"{dag_id}: run {run.run_id} ended as {run.state}")
    return seconds


def _parse_milliseconds(home: Path, rounds: int) -> Figures:
    ours = str(PROJECT / "dags" / f"{DAG_ID}.py")
    taken: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for what, asked in (("empty", "empty"), ("one_task", "one task"), ("ours", ours)):
            said = subprocess.run(
                [sys.executable, "-m", "bench.parse_time", asked],
                env={**os.environ, "AIRFLOW_HOME": str(home)},
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
            taken[what].append(float(said.splitlines()[-1]))
    return {what: statistics.median(times) for what, times in taken.items()}


def sheets(measured: dict[str, Any], rounds: int) -> list[Sheet]:
    """Both as tables."""
    seconds, parse, batches = measured["seconds"], measured["parse_milliseconds"], measured["batches"]
    rows = [
        ("the same shape without work, one mapped task", f"{seconds['no_op_one']:.1f}"),
        (f"the same shape without work, {batches} mapped tasks", f"{seconds['no_op_all']:.1f}"),
        ("the engine alone, one process, first load", f"{seconds['engine']:.1f}"),
        (f"usage_aggregation, first load, {batches} mapped tasks", f"{seconds['dag']:.1f}"),
        (f"usage_aggregation again, nothing changed, {batches} mapped tasks", f"{seconds['dag_unchanged']:.1f}"),
    ]
    wanted = [
        _target("first load / (one mapped task + engine)", seconds["dag"] / (seconds["no_op_one"] + seconds["engine"])),
        _target(
            f"first load / ({batches} mapped tasks + engine)",
            seconds["dag"] / (seconds["no_op_all"] + seconds["engine"]),
        ),
        _parse_target("an empty DAG", parse["ours"], parse["empty"]),
        _parse_target("a DAG of one empty task", parse["ours"], parse["one_task"]),
    ]
    return [
        Sheet(f"Whole runs under the scheduler, {measured['description']}, medians of {rounds}", ("", "seconds"), rows),
        Sheet("The DAG's targets", ("", "measured", "wanted", "met"), wanted),
    ]


def _target(what: str, ratio: float) -> tuple[str, str, str, str]:
    met = yes_or_no(ratio <= OF_SHAPE_AND_ENGINE)
    return what, f"{ratio:.2f}", f"<= {OF_SHAPE_AND_ENGINE}", met


def _parse_target(beside: str, ours: float, theirs: float) -> tuple[str, str, str, str]:
    what = f"parsing the DAG file ({ours:.0f} ms) over {beside} ({theirs:.0f} ms), ms"
    met = yes_or_no(ours - theirs <= PARSE_MILLISECONDS)
    return what, f"{ours - theirs:.0f}", f"<= {PARSE_MILLISECONDS:.0f}", met
