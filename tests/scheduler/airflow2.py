"""A real Airflow 2.11 on 127.0.0.1: the same as `local.airflow`, where it is the same."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from local.airflow_api import AirflowApi, TaskInstance
from local.airflow_environment import shipped_settings
from tests.scheduler.tested import BACKFILL_SECONDS, Again, TestedAirflow

# No login, as in the other lane: it listens on this machine only.
WEBSERVER_CONFIG: Final = """
AUTH_ROLE_PUBLIC = "Admin"
WTF_CSRF_ENABLED = False
"""

ENVIRONMENT: Final = {
    **shipped_settings(),
    "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
    "AIRFLOW__SCHEDULER__PARSING_PROCESSES": "1",
    "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
    "AIRFLOW__WEBSERVER__WORKERS": "1",
}

# The event of a log line: what comes after its moment, place and level.
LINE: Final = re.compile(r"^\[[^]]+\] (?:\{[^}]+\} )?(?:[A-Z]+ - )?")


class AirflowApi2(AirflowApi):
    """Asks Airflow 2.11, whose API is another version."""

    ROOT = "/api/v1"
    HEALTH = "/health"
    ANY_DATE: ClassVar[Mapping[str, Any]] = {}

    def clear(self, dag_id: str, run_id: str, tasks: Sequence[str | tuple[str, int]]) -> None:
        """Clear tasks as a click in the UI does: the API of this version knows no mapped ones."""
        run = self._get(f"/dags/{dag_id}/dagRuns/{run_id}")
        for task in tasks:
            task_id, map_index = (task, None) if isinstance(task, str) else task
            form: dict[str, Any] = {
                "dag_id": dag_id,
                "task_id": task_id,
                "execution_date": run["logical_date"],
                "confirmed": "true",
                "downstream": "true",
            }
            if map_index is not None:
                form["map_index"] = map_index
            root = str(self._http.base_url).removesuffix(f"{self.ROOT}/")
            answer = self._http.post(f"{root}/clear", data=form, headers={"Accept": "application/json"})
            answer.raise_for_status()

    def complete_backfills(self, dag_id: str) -> bool:
        """A backfill is over when its command ends."""
        del dag_id
        return True

    def asset_events(self, dag_id: str) -> list[dict[str, Any]]:
        """The dataset events, by the names of the other version."""
        events = self._pages("/datasets/events", "dataset_events", source_dag_id=dag_id)
        return [{**event, "name": event["dataset_uri"]} for event in events]

    def errors(self, dag_id: str, run_id: str, task: TaskInstance) -> list[str]:
        """The exceptions of a task's last attempt: the last lines of their tracebacks."""
        said = self.log(dag_id, run_id, task)
        return re.findall(r"^airflow\.exceptions\.AirflowFailException: (.*(?:\n(?!\[20).*)*)", said, re.MULTILINE)

    def _log_events(self, dag_id: str, run_id: str, task: TaskInstance) -> list[str | dict[str, Any]]:
        answer = self._http.get(
            f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task.task_id}/logs/{task.try_number}",
            params={"map_index": task.map_index, "full_content": True},
            headers={"Accept": "text/plain"},
        )
        answer.raise_for_status()
        return [LINE.sub("", line) for line in answer.text.splitlines()]


class Airflow2(TestedAirflow):
    """Airflow 2.11: the web server is the API, and the scheduler parses the DAGs."""

    COMPONENTS: ClassVar[Mapping[str, str]] = {"webserver": "metadatabase", "scheduler": "scheduler"}
    API = AirflowApi2

    def backfill(
        self, dag_id: str, first: dt.datetime, last: dt.datetime, *, again: Again, conf: Mapping[str, Any]
    ) -> None:
        """Run it in a process of its own, beside the scheduler."""
        assert again is not Again.FAILED, "this version has no such choice"
        options = ["--reset-dagruns", "--yes"] if again is Again.COMPLETED else []
        options += ["--conf", json.dumps(conf)] if conf else []
        dates = ["--start-date", first.isoformat(), "--end-date", last.isoformat()]
        self.cli("dags", "backfill", dag_id, *dates, *options, timeout=BACKFILL_SECONDS)

    def _open(self) -> None:
        super()._open()
        (self.home / "webserver_config.py").write_text(WEBSERVER_CONFIG, encoding="utf-8")

    def environment(self) -> dict[str, str]:
        environment = super().environment()
        url = environment["AIRFLOW__API__BASE_URL"]
        # SQLAlchemy 1.4 knows no psycopg 3.
        database = environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("+psycopg:", "+psycopg2:")
        return {
            **{name: value for name, value in environment.items() if "SQL_ALCHEMY" not in name},
            **ENVIRONMENT,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__WEBSERVER__BASE_URL": url,
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": environment["AIRFLOW__API__PORT"],
            "AIRFLOW__WEBSERVER__SECRET_KEY": environment["AIRFLOW__API__SECRET_KEY"],
        }
