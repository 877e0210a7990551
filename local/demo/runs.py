"""Follows the DAG's runs to their end, and says whether each was verified."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from psycopg import Connection

from local.airflow import LocalAirflow
from local.airflow_api import DagRun
from local.demo.errors import DemoError
from local.demo.screen import Screen, Update
from merchant_usage import clock
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.run import SCHEDULED
from merchant_usage.orchestration.names import SCAN_TASK_ID
from merchant_usage.settings import DAG_ID, Settings
from merchant_usage.sink import ledger

# A run takes about 10 s; one whose tasks are retried three times, four minutes.
RUN_SECONDS: Final = 420
# Every answer costs the same two cores that the runs need.
POLL_SECONDS: Final = 1.0

# What a date may be told in a run that is fine. (Days before the demo's first are empty.)
FINE: Final = frozenset({DateVerdict.VERIFIED, DateVerdict.EMPTY, DateVerdict.SOURCE_EXPIRED})


@dataclass(frozen=True, slots=True)
class RunVerdict:
    """How a run ended: the ledger's verdicts by date, or why there are none."""

    run: DagRun
    verdicts: dict[dt.date, str]
    note: str
    verified: bool


def name_of(run: DagRun) -> str:
    """What people call a run."""
    if run.interval_start is None or run.interval_end is None or run.run_type == "manual":
        return f"{run.run_type} run"
    return f"{run.run_type} run {run.interval_start:%d %b %H:%M} to {run.interval_end:%H:%M}"


def has_caught_up(runs: Sequence[DagRun], settings: Settings) -> bool:
    """Whether there is a finished run for every interval that is over."""
    done = {run.interval_start for run in runs if run.run_type == SCHEDULED and run.finished}
    start, now = settings.start_date, clock.now()
    while start + settings.interval <= now:
        if start not in done:
            return False
        start += settings.interval
    return True


class Followed:
    """The runs of this demo, shown while they go on."""

    def __init__(self, airflow: LocalAirflow, screen: Screen, earlier: frozenset[str]) -> None:
        """Follow all runs of this Airflow but the `earlier` ones."""
        self._airflow = airflow
        self._screen = screen
        self._earlier = earlier
        self._finished: set[str] = set()

    def until(self, is_enough: Callable[[list[DagRun]], bool], also_check: Callable[[], None]) -> list[DagRun]:
        """Show the runs until there are enough; returns all of this demo so far.

        Args:
            is_enough: told all runs that there are.
            also_check: called again and again; it raises if there is no point in going on.

        Raises:
            DemoError: the DAG cannot be loaded.
            AirflowError: it takes too long, or a part of Airflow ended.
        """

        def look() -> list[DagRun] | None:
            also_check()
            runs = self._airflow.api.runs(DAG_ID) if self._airflow.api.has_dag(DAG_ID) else []
            if not runs and (errors := self._airflow.api.import_errors()):
                raise DemoError(f"The DAG cannot be loaded:\n{errors[0]}")
            for run in runs:
                if run.run_id not in self._earlier and run.run_id not in self._finished:
                    self._show(run, update)
            return runs if is_enough(runs) else None

        with self._screen.bars() as update:
            runs = self._airflow.wait_until(look, "all runs have ended", RUN_SECONDS, every=POLL_SECONDS)
        return [run for run in runs if run.run_id not in self._earlier]

    def _show(self, run: DagRun, update: Update) -> None:
        tasks = self._airflow.api.tasks(DAG_ID, run.run_id)
        update(name_of(run), sum(task.finished for task in tasks), len(tasks))
        if run.finished:
            self._finished.add(run.run_id)
            self._screen.say(
                f"{name_of(run)}: {run.state}, {len(tasks)} tasks", "" if run.state == "success" else "red"
            )


def judge_runs(
    airflow: LocalAirflow,
    conn: Connection,
    runs: Sequence[DagRun],
    settings: Settings,
    undecided: Collection[dt.date] = (),
) -> list[RunVerdict]:
    """What the ledger says of these runs.

    Args:
        undecided: dates on which a counter went backwards on purpose. They are a mismatch until somebody decides, which
            is no fault of a run that takes them along: the first of a day does.
    """
    today = clock.now().date()
    rows = ledger.runs(conn, today - dt.timedelta(days=settings.retention_days + 1), today)
    verdicts = []
    for run in runs:
        of_run = {row["usage_date"]: row["verdict"] or "none" for row in rows if row["run_id"] == run.run_id}
        note = "" if run.state == "success" else _why_red(airflow, run)
        told = {said for date, said in of_run.items() if said != DateVerdict.MISMATCH or date not in undecided}
        proven = DateVerdict.VERIFIED in told and told <= FINE
        if not of_run and run.state == "success":
            # A run whose dates were all verified, over and settled says so instead of proving them again.
            note = (airflow.api.xcom(DAG_ID, run.run_id, SCAN_TASK_ID, "plan") or {}).get("nothing_to_do", "")
            proven = bool(note)
        verdicts.append(RunVerdict(run, dict(sorted(of_run.items())), note, proven and run.state == "success"))
    return verdicts


def _why_red(airflow: LocalAirflow, run: DagRun) -> str:
    red = [task for task in airflow.api.tasks(DAG_ID, run.run_id) if task.state == "failed"]
    if not red:
        return f"the run is {run.state}"
    named = red[0].task_id + (f" [{red[0].name}]" if red[0].name else "")
    errors = airflow.api.errors(DAG_ID, run.run_id, red[0])
    return f"{named} is red: {errors[-1] if errors else 'see its log'}"
