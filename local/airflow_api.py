"""A small client of Airflow's REST API: what the demo shows and the scheduler tests assert."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from urllib.parse import quote

import httpx

# What the API gives in one answer at most.
PAGE: Final = 100
TIMEOUT_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class DagRun:
    """A DAG run. A manual run has no interval."""

    run_id: str
    run_type: str
    state: str
    interval_start: dt.datetime | None
    interval_end: dt.datetime | None
    queued_at: dt.datetime | None
    note: str | None

    @property
    def finished(self) -> bool:
        """Whether it ended, well or not."""
        return self.state in {"success", "failed"}


@dataclass(frozen=True, slots=True)
class TaskInstance:
    """A task of a run. `name` is what the UI calls a mapped one; `map_index` is -1 for the others."""

    task_id: str
    map_index: int
    state: str | None
    name: str | None
    try_number: int

    @property
    def finished(self) -> bool:
        """Whether it ended, well or not."""
        return self.state in {"success", "failed", "skipped", "upstream_failed", "removed"}


class AirflowApi:
    """Asks a local Airflow whose API wants no login."""

    ROOT = "/api/v2"
    HEALTH = "/monitor/health"
    #: Makes a manual run one of no moment of its own.
    ANY_DATE: ClassVar[Mapping[str, Any]] = {"logical_date": None}

    def __init__(self, url: str) -> None:
        # A proxy of the user's has no part in this: it is on this machine.
        self._http = httpx.Client(
            base_url=f"{url}{self.ROOT}", timeout=TIMEOUT_SECONDS, trust_env=False, auth=_TokenForAll(url)
        )

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def health(self) -> dict[str, str | None]:
        """The state of each component, `healthy` or not; nothing while the API does not answer."""
        try:
            answer = self._http.get(self.HEALTH)
        except httpx.TransportError:
            return {}
        return {name: part.get("status") for name, part in answer.json().items()} if answer.is_success else {}

    def import_errors(self) -> list[str]:
        """What kept DAG files from being loaded."""
        return [error["stack_trace"] for error in self._pages("/importErrors", "import_errors")]

    def has_dag(self, dag_id: str) -> bool:
        """Whether the DAG was loaded."""
        return self._http.get(f"/dags/{dag_id}").is_success

    def runs(self, dag_id: str) -> list[DagRun]:
        """All runs of a DAG, in the order they came."""
        return [_run(data) for data in self._pages(f"/dags/{dag_id}/dagRuns", "dag_runs", order_by="id")]

    def run(self, dag_id: str, run_id: str) -> DagRun:
        """One run."""
        return _run(self._get(_run_path(dag_id, run_id)))

    def write_note(self, dag_id: str, run_id: str, text: str) -> None:
        """Give a run a note, as a person does in the UI."""
        self._http.patch(_run_path(dag_id, run_id), json={"note": text}).raise_for_status()

    def trigger(self, dag_id: str, conf: Mapping[str, Any], logical_date: dt.datetime | None = None) -> DagRun:
        """Start a run by hand, as `airflow dags trigger` does."""
        named = {"logical_date": logical_date.isoformat()} if logical_date else self.ANY_DATE
        answer = self._http.post(f"/dags/{dag_id}/dagRuns", json={**named, "conf": dict(conf)})
        answer.raise_for_status()
        return _run(answer.json())

    def mark(self, dag_id: str, run_id: str, state: str) -> None:
        """Set a run's state, as a person does in the UI."""
        self._http.patch(_run_path(dag_id, run_id), json={"state": state}).raise_for_status()

    def clear(self, dag_id: str, run_id: str, tasks: Sequence[str | tuple[str, int]]) -> None:
        """Clear tasks of a run, or (task id, map index) of mapped ones, with all that comes after them."""
        answer = self._http.post(
            f"/dags/{dag_id}/clearTaskInstances",
            json={
                "dry_run": False,
                "only_failed": False,
                "dag_run_id": run_id,
                "task_ids": tasks,
                "include_downstream": True,
            },
        )
        answer.raise_for_status()

    def complete_backfills(self, dag_id: str) -> bool:
        """Complete the DAG's backfills once their runs have ended; returns whether none is left.

        Another one cannot be made before, and the scheduler looks only every 30 s.
        """
        if any(run.run_type == "backfill" and not run.finished for run in self.runs(dag_id)):
            return False
        for backfill in self._pages("/backfills", "backfills", dag_id=dag_id):
            if backfill["completed_at"] is None:
                answer = self._http.put(f"/backfills/{backfill['id']}/cancel")
                # Unless the scheduler has looked meanwhile.
                if answer.status_code != httpx.codes.CONFLICT:
                    answer.raise_for_status()
        return True

    def tasks(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """All task instances of a run."""
        return [
            TaskInstance(
                task_id=data["task_id"],
                map_index=data["map_index"],
                state=data["state"],
                name=data["rendered_map_index"],
                try_number=data["try_number"],
            )
            for data in self._pages(f"{_run_path(dag_id, run_id)}/taskInstances", "task_instances")
        ]

    def log(self, dag_id: str, run_id: str, task: TaskInstance) -> str:
        """What a task's last attempt logged, a line an event."""
        return "\n".join(_event(event) for event in self._log_events(dag_id, run_id, task))

    def errors(self, dag_id: str, run_id: str, task: TaskInstance) -> list[str]:
        """The exceptions that a task's last attempt logged."""
        return [
            str(error["exc_value"])
            for event in self._log_events(dag_id, run_id, task)
            if not isinstance(event, str)
            for error in event.get("error_detail") or ()
        ]

    def frames(self, dag_id: str, run_id: str, task: TaskInstance) -> list[str]:
        """The files of the frames that a task's last attempt logged."""
        found = []
        for event in self._log_events(dag_id, run_id, task):
            if isinstance(event, str):
                found += re.findall(r'^\s*File "([^"]+)", line', event)
            else:
                found += [frame["filename"] for error in event.get("error_detail") or () for frame in error["frames"]]
        return found

    def _log_events(self, dag_id: str, run_id: str, task: TaskInstance) -> list[str | dict[str, Any]]:
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task.task_id}/logs/{task.try_number}"
        return list(self._get(path, map_index=task.map_index, full_content=True)["content"])

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """What a task left for others; None if nothing."""
        answer = self._http.get(f"{_run_path(dag_id, run_id)}/taskInstances/{task_id}/xcomEntries/{key}")
        return answer.json()["value"] if answer.is_success else None

    def asset_events(self, dag_id: str) -> list[dict[str, Any]]:
        """The asset events that a DAG's runs sent, each with `source_run_id` and `extra`."""
        return list(self._pages("/assets/events", "asset_events", source_dag_id=dag_id))

    def _get(self, path: str, **query: str | int | bool) -> Any:
        answer = self._http.get(path, params=query)
        answer.raise_for_status()
        return answer.json()

    def _pages(self, path: str, name: str, **query: str | int | bool) -> Iterator[Any]:
        offset = 0
        while page := self._get(path, limit=PAGE, offset=offset, **query)[name]:
            yield from page
            offset += len(page)
            if len(page) < PAGE:
                break


class _TokenForAll(httpx.Auth):
    """Asks for a token where the API wants one even of those who need no login: 3.1 and 3.2."""

    requires_response_body = True

    def __init__(self, url: str) -> None:
        self._url = url
        self._headers: dict[str, str] = {}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send a request, and once more with a token."""
        request.headers.update(self._headers)
        answer = yield request
        if answer.status_code == httpx.codes.UNAUTHORIZED and not self._headers:
            given = yield httpx.Request("GET", f"{self._url}/auth/token")
            if given.is_success:
                self._headers = {"Authorization": f"Bearer {given.json()['access_token']}"}
                request.headers.update(self._headers)
                yield request


def _run_path(dag_id: str, run_id: str) -> str:
    # A run id holds a plus sign: 2026-11-01T00:00:00+00:00.
    return f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _run(data: Mapping[str, Any]) -> DagRun:
    return DagRun(
        run_id=data["dag_run_id"],
        run_type=data["run_type"],
        state=data["state"],
        interval_start=_moment(data["data_interval_start"]),
        interval_end=_moment(data["data_interval_end"]),
        queued_at=_moment(data.get("queued_at")),
        note=data["note"],
    )


def _moment(text: str | None) -> dt.datetime | None:
    return None if text is None else dt.datetime.fromisoformat(text)


def _event(event: str | Mapping[str, Any]) -> str:
    if isinstance(event, str):
        return event
    errors = [f"{error.get('exc_type')}: {error.get('exc_value')}" for error in event.get("error_detail") or ()]
    return "\n".join([str(event.get("event", "")), *errors])
