"""A real Airflow on 127.0.0.1, of separate processes as in production, for the demo and the scheduler tests.

    with LocalAirflow(home, postgres.create_database("airflow"), {"AIRFLOW_CONN_USAGE_REDIS": ...}) as airflow:
        airflow.api.trigger("usage_aggregation", {"from_date": "2026-11-01", "to_date": "2026-11-02"})

Passwords are handed over in the environment, never on a command line. All processes end with this one, even when
it is killed.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final, TextIO, TypeVar

from local.airflow_api import AirflowApi
from local.airflow_environment import PROJECT, airflow_environment
from local.processes import FolderWatcher, end_processes
from local.servers.processes import free_port, keep_password, lock_folder
from local.startable import Startable

#: Airflow's processes, and by what names their health is told.
COMPONENTS: Final = {
    "api-server": "metadatabase",
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
}

# Healthy after 10 to 20 s on two cores; slower machines and a busy moment are allowed for.
START_SECONDS: Final = 180
MIGRATE_SECONDS: Final = 180
# Airflow's own good order takes up to 5 s.
STOP_SECONDS: Final = 10
PORT_ATTEMPTS: Final = 3
LINES_SHOWN: Final = 15

Value = TypeVar("Value")


class AirflowError(RuntimeError):
    """The local Airflow did not do what it should. The message says which part, why, and where its log is."""


class LocalAirflow(Startable):
    """An Airflow of its own home, metadata database, environment and port."""

    COMPONENTS: ClassVar[Mapping[str, str]] = COMPONENTS
    API: ClassVar[type[AirflowApi]] = AirflowApi

    def __init__(
        self,
        home: Path,
        database_url: str,
        environment: Mapping[str, str] | None = None,
        *,
        components: Sequence[str] | None = None,
        dags_folder: Path = PROJECT / "dags",
        port: int | None = None,
        migrate: bool = True,
        before_scheduler: Callable[[], None] | None = None,
    ) -> None:
        """Describe it.

        Args:
            home: its folder: logs, secrets, configuration.
            database_url: of its metadata, `postgresql://...`.
            environment: more variables for all of its processes; these win.
            components: which processes to start; None for all.
            dags_folder: where the DAGs are.
            port: of the UI and the API; None for any that is free.
            migrate: whether `start` has to create or migrate the metadata tables.
            before_scheduler: called before the scheduler is started, when all else is: nothing runs before it returns.
        """
        self.home = home.expanduser().resolve()
        self._database_url = database_url
        self._given = dict(environment or {})
        self._components = tuple(components or self.COMPONENTS)
        self._dags_folder = dags_folder
        self._port = port
        self._migrate_first = migrate
        self._before_scheduler = before_scheduler
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._watcher: FolderWatcher | None = None
        self._lock: TextIO | None = None
        self._api: AirflowApi | None = None

    @property
    def url(self) -> str:
        """The address of the UI."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def logs(self) -> Path:
        """The folder with the log of each process and of each task."""
        return self.home / "logs"

    @property
    def api(self) -> AirflowApi:
        """A client of its REST API."""
        if self._api is None:
            raise AirflowError("Airflow was not started yet: it has no API.")
        return self._api

    @property
    def pids(self) -> list[int]:
        """Its components' process ids."""
        return [process.pid for process in self._processes.values()]

    @property
    def running(self) -> bool:
        """Whether it was started, and not ended by `close`."""
        return bool(self._processes)

    def _start(self) -> None:
        """Migrate the metadata, start all components, and wait until each says that it is healthy."""
        self._open()
        if self._migrate_first:
            self._migrate()
        port_is_fixed = self._port is not None
        for attempt in range(1, PORT_ATTEMPTS + 1):
            if not port_is_fixed:
                self._port = free_port()
            self._launch()
            try:
                self.wait_until(self._healthy, "all of Airflow is healthy", START_SECONDS)
            except AirflowError:
                # Somebody took the port after it was found free; the other processes know it by then.
                if port_is_fixed or attempt == PORT_ATTEMPTS or not self._port_was_taken():
                    raise
                self._end_components()
            else:
                return

    def close(self) -> None:
        """End every process, in good order and if need be by SIGKILL, and let go of the home."""
        self._end_components()
        if self._watcher is not None:
            end_processes(self._work, grace_seconds=0)
            self._watcher.dismiss()
            self._watcher = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def check(self) -> None:
        """Raise if one of its components has ended.

        Raises:
            AirflowError: with the last lines of that component's log.
        """
        for component, process in self._processes.items():
            if process.poll() is not None:
                raise AirflowError(
                    f"Airflow's {component} ended by itself (exit code {process.returncode}). "
                    f"The end of {self._log_of(component)}:\n{self._last_lines(component)}"
                )

    def wait_until(
        self, condition: Callable[[], Value | None], what: str, seconds: float, *, every: float = 0.2
    ) -> Value:
        """Ask `every` so many seconds until the condition gives something true; return that.

        Raises:
            AirflowError: it did not within the time, or a component ended meanwhile.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            if value := condition():
                return value
            if time.monotonic() > deadline:
                raise AirflowError(f"Waited {seconds:.0f} s in vain until {what}. The logs are in {self.logs}.")
            time.sleep(every)

    def cli(self, *arguments: str, timeout: float = 120) -> str:
        """Run `airflow ...` in this Airflow's environment; returns what it printed.

        Raises:
            AirflowError: it failed, or did not end in time; with the end of what it said.
        """
        command = f"`airflow {' '.join(arguments)}`"
        try:
            done = subprocess.run(
                [sys.executable, "-m", "airflow", *arguments],
                cwd=self._work,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
                # Ctrl-C in a terminal is for this process.
                start_new_session=True,
            )
        except subprocess.TimeoutExpired as expired:
            raise AirflowError(f"{command} did not end within {timeout:.0f} s:\n{_end(expired.stdout)}") from None
        if done.returncode:
            raise AirflowError(f"{command} failed (exit code {done.returncode}):\n{_end(done.stdout)}")
        return done.stdout.decode(errors="replace")

    @property
    def _work(self) -> Path:
        """The working directory of all its processes, and of no others: that is how they are found again."""
        return self.home / "work"

    def _open(self) -> None:
        if self._lock is None:
            for folder in (self.home, self._work, self.logs):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = lock_folder(self.home)
            end_processes(self._work, grace_seconds=0)  # left by a run that was killed
            self._watcher = FolderWatcher(self._work)

    def _migrate(self) -> None:
        said = self.cli("db", "migrate", timeout=MIGRATE_SECONDS)
        (self.logs / "db-migrate.log").write_text(said, encoding="utf-8")

    def _launch(self) -> None:
        environment = self.environment()
        for component in sorted(self._components, key="scheduler".__eq__):
            if component == "scheduler" and self._before_scheduler is not None:
                self._before_scheduler()
            # Task logs are read from the folder: nothing needs to serve them to the network.
            options = ["--skip-serve-logs"] if component in {"scheduler", "triggerer"} else []
            with self._log_of(component).open("wb") as log:
                self._processes[component] = subprocess.Popen(
                    [sys.executable, "-m", "airflow", component, *options],
                    cwd=self._work,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C in a terminal is for this process, which then stops Airflow in good order.
                    start_new_session=True,
                )
        self._api = self.API(self.url)

    def _end_components(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._processes.values():
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._processes:
            end_processes(self._work, grace_seconds=1)
        self._processes.clear()

    def _healthy(self) -> bool:
        health = self.api.health()
        return all(health.get(self.COMPONENTS[component]) == "healthy" for component in self._components)

    def environment(self) -> dict[str, str]:
        """All variables of its processes, secrets among them."""
        environment = airflow_environment(
            self.home, self.logs, self._database_url, self._port, keep_password(self.home), self._dags_folder
        )
        return {**environment, **self._given}

    def _log_of(self, component: str) -> Path:
        return self.logs / f"{component}.log"

    def _last_lines(self, component: str) -> str:
        return _end(self._log_of(component).read_bytes())

    def _port_was_taken(self) -> bool:
        return "api-server" in self._components and "address already in use" in self._last_lines("api-server")


def _end(said: bytes | None) -> str:
    return "\n".join((said or b"").decode(errors="replace").splitlines()[-LINES_SHOWN:])
