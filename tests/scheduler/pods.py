"""An executor that does what KubernetesExecutor does: a process a task, which shares no disk with any other."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from airflow.executors.base_executor import BaseExecutor

from tests.scheduler.airflow3 import Airflow3

#: The variable that names the folder below which each pod has its own.
FOLDER: Final = "TESTS_PODS_FOLDER"


class PodExecutor(BaseExecutor):
    """Starts what a pod's container starts, in a home of its own that is empty."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pods: dict[Any, subprocess.Popen[bytes]] = {}

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        for workload in workload_items:
            key = workload.ti.key
            del self.queued_tasks[key]
            self.running.add(key)
            self._pods[key] = self._start(workload.model_dump_json())

    def _start(self, workload: str) -> subprocess.Popen[bytes]:
        pod = Path(os.environ[FOLDER]) / uuid.uuid4().hex
        pod.mkdir()
        alone = {
            **dict.fromkeys(("HOME", "TMPDIR", "AIRFLOW_HOME"), str(pod)),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(pod / "logs"),
        }
        with (pod / "log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "airflow.sdk.execution_time.execute_workload", "--json-string", workload],
                cwd=pod,
                env={**os.environ, **alone},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def sync(self) -> None:
        """Tell how those ended that have."""
        for key, pod in list(self._pods.items()):
            if pod.poll() is not None:
                del self._pods[key]
                (self.fail if pod.returncode else self.success)(key)

    def end(self) -> None:
        """Wait for those that are under way."""
        for pod in self._pods.values():
            pod.wait()

    def terminate(self) -> None:
        """End them."""
        for pod in self._pods.values():
            pod.kill()


class PodsAirflow(Airflow3):
    """An Airflow whose tasks share no disk, and hand over what they push by object storage."""

    def __init__(self, home: Path, database_url: str, environment: Mapping[str, str]) -> None:
        """Describe it."""
        self.pods, self.bucket = home / "pods", home / "bucket"
        for folder in (self.pods, self.bucket):
            folder.mkdir(parents=True)
        configuration = {
            FOLDER: str(self.pods),
            "AIRFLOW__CORE__EXECUTOR": "tests.scheduler.pods.PodExecutor",
            "AIRFLOW__CORE__XCOM_BACKEND": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
            "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": f"file://{self.bucket}",
            "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
            "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_COMPRESSION": "gzip",
        }
        super().__init__(
            home,
            database_url,
            {**configuration, **environment},
            components=["api-server", "scheduler", "dag-processor"],
        )
