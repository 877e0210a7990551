"""Runs the DAG in another process, and tells how it ended."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.airflow_environment import shipped_settings
from merchant_usage.settings import DAG_ID
from tests.support import PROJECT

AIRFLOW_ENVIRONMENT = {
    "PYTHONPATH": str(PROJECT),
    "AIRFLOW__CORE__DAGS_FOLDER": str(PROJECT / "dags"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
}


def airflow_environment(home: Path) -> dict[str, str]:
    """Only ours: what the caller has set for another Airflow must not reach this one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "USAGE_"))}
    return {**kept, **shipped_settings(), **AIRFLOW_ENVIRONMENT, "AIRFLOW_HOME": str(home), "TMPDIR": str(home)}


@dataclass(frozen=True)
class Ended:
    """How a DAG run ended, and all that was logged meanwhile."""

    run_id: str
    state: str
    note: str | None
    tasks: list[tuple[str, str, str | None]]
    log: str
    #: What the upserts are mapped over, in XCom: Airflow hands all of it to each of them.
    mapped_bytes: int
    #: Its asset events: `asset`, `partition`, and `extra`, what they hold.
    asset_events: list[dict[str, Any]]

    @property
    def states(self) -> dict[str, list[str]]:
        """The states of each task's instances."""
        found: dict[str, list[str]] = {}
        for task_id, state, _ in self.tasks:
            found.setdefault(task_id, []).append(state)
        return found

    @property
    def events(self) -> list[dict[str, Any]]:
        """What its events of verified dates hold."""
        return [event["extra"] for event in self.asset_events if event["asset"] == "merchant_usage"]

    @property
    def days(self) -> dict[str | None, int]:
        """The partitions that it added, each with what was verified of the date."""
        told = [event for event in self.asset_events if event["asset"] == "merchant_usage_day"]
        assert len({event["partition"] for event in told}) == len(told)
        return {event["partition"]: event["extra"]["totals"][event["partition"]] for event in told}

    @property
    def names(self) -> list[str]:
        """What the UI calls the mapped tasks."""
        return sorted(name or "" for task_id, _, name in self.tasks if task_id == "upsert_merchant_usage")


class Runner:
    """The other process."""

    def __init__(self, process: subprocess.Popen[str], log: Path, environment: dict[str, str]) -> None:
        self._process, self._log = process, log
        #: Of any process of this Airflow.
        self.environment = environment

    def run(
        self,
        environ: dict[str, str],
        conf: dict[str, Any] | None,
        *,
        dag_id: str,
        scheduled: str | None,
        at: str | None,
        no_retries: bool,
        last: str | None,
        clock_ahead: int,
    ) -> Ended:
        """Run the DAG once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        begin = self._log.stat().st_size
        request = {
            "dag_id": dag_id,
            "environ": environ,
            "conf": conf,
            "scheduled": scheduled,
            "at": at,
            "no_retries": no_retries,
            "last": last,
            "clock_ahead": clock_ahead,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        log = self._log.read_bytes()[begin:].decode(errors="replace")
        assert answer, f"The process ended:\n{log[-5000:]}"
        told = json.loads(answer)
        tasks = [(t[0], t[1], t[2]) for t in told["tasks"]]
        return Ended(told["run_id"], told["state"], told["note"], tasks, log, told["mapped_bytes"], told["events"])


@dataclass
class Dag:
    """The DAG and the test's own servers."""

    runner: Runner
    connections: dict[str, str]
    temporary_folder: Path
    dag_id: str = DAG_ID

    def run(
        self,
        conf: dict[str, Any] | None = None,
        *,
        scheduled: str | None = None,
        at: str | None = None,
        no_retries: bool = False,
        without: str | None = None,
        last: str | None = None,
        clock_ahead: int = 0,
        **environ: str,
    ) -> Ended:
        """Run it.

        Args:
            scheduled: the start of its interval, if it is the scheduler's.
            at: when it was triggered, if that was not just now.
            without: a connection that is not there.
            last: the task that Airflow's database names last, of those of a run.
            clock_ahead: the seconds by which the worker's clock is wrong.
            environ: more variables.
        """
        connections = {name: value for name, value in self.connections.items() if name != without}
        environ = {"TMPDIR": str(self.temporary_folder), **connections, **environ}
        return self.runner.run(
            environ,
            conf,
            dag_id=self.dag_id,
            scheduled=scheduled,
            at=at,
            no_retries=no_retries,
            last=last,
            clock_ahead=clock_ahead,
        )


def refuse_our_names(name: str) -> str:
    """For Airflow's `stat_name_handler`: of somebody who has rules for names, and did not think of ours."""
    if name.startswith("usage."):
        raise ValueError(f"no such metric: {name}")
    return name
