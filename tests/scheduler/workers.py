"""A real Airflow 3.3 whose tasks run on Celery workers, as on several machines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from local.airflow import AirflowError
from local.servers import Valkey
from tests.scheduler.airflow3 import Airflow3

NAMES: Final = ("first", "second")
START_SECONDS: Final = 180

# A worker that was lost is noticed within seconds, not minutes, and what it had fetched comes back to the queue.
CONFIGURATION: Final = {
    "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
    "AIRFLOW__CELERY__WORKER_CONCURRENCY": "1",
    "AIRFLOW__CELERY__OPERATION_TIMEOUT": "10",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "1",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
}


class CeleryAirflow(Airflow3):
    """An Airflow with two workers, each of which runs one task at a time."""

    def __init__(self, home: Path, database_url: str, broker: Valkey, environment: Mapping[str, str]) -> None:
        """Describe it. The broker keeps the queue, and what became of its messages."""
        urls = {
            "AIRFLOW__CELERY__BROKER_URL": broker.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": broker.url.removesuffix("/0") + "/1",
        }
        super().__init__(
            home,
            database_url,
            {**CONFIGURATION, **urls, **environment},
            components=["api-server", "scheduler", "dag-processor"],
        )
        self.workers: dict[str, psutil.Process] = {}

    def start(self) -> None:
        """Start Airflow, then the workers, and wait until they take tasks."""
        super().start()
        processes = {name: self._start_worker(name) for name in NAMES}
        self.workers = {name: psutil.Process(process.pid) for name, process in processes.items()}
        self.wait_until(
            lambda: all(" ready." in self._log_of(name).read_text(errors="replace") for name in NAMES),
            "both workers are ready",
            START_SECONDS,
        )

    def worker_of(self, pid: int) -> str:
        """Which worker a process belongs to."""
        line = {pid, *(parent.pid for parent in psutil.Process(pid).parents())}
        for name, worker in self.workers.items():
            if worker.pid in line:
                return name
        raise AirflowError(f"Process {pid} belongs to no worker.")

    def kill(self, name: str) -> None:
        """End a worker and all its processes at once, as if its machine were gone."""
        worker = self.workers.pop(name)
        processes = [worker, *worker.children(recursive=True)]
        for process in processes:
            process.kill()
        # No component that ended by itself.
        self._processes.pop(name).wait()
        psutil.wait_procs(processes)

    def _start_worker(self, name: str) -> subprocess.Popen[bytes]:
        options = ["--celery-hostname", f"{name}@%h", "--pid", str(self.home / f"{name}.pid")]
        with self._log_of(name).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", "celery", "worker", *options, "--skip-serve-logs"],
                cwd=self._work,
                # Celery refuses root unless told that this is meant.
                env={**self.environment(), "C_FORCE_ROOT": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._processes[name] = process
        return process
