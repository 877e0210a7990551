"""Airflow in a process of its own, with an empty SQLite of its own, for all tests that run the DAG."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local.servers import Valkey
from merchant_usage.orchestration.alerts import file_store
from merchant_usage.orchestration.compat import SHOWS_PAGES
from tests.dags.support import Dag, Runner, airflow_environment
from tests.dags.versions import AIRFLOW_3, METRICS_BEGIN_ANEW

# What is mended of the other version, and what cannot be asked of this one.
collect_ignore = [
    *(["test_airflow2.py"] if AIRFLOW_3 else []),
    *([] if METRICS_BEGIN_ANEW else ["test_metrics.py"]),
    *([] if SHOWS_PAGES else ["test_page.py"]),
]


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Airflow, ready to run the DAG."""
    home = tmp_path_factory.mktemp("airflow")
    with running(home, airflow_environment(home)) as started:
        yield started


@contextmanager
def running(home: Path, environment: dict[str, str]) -> Iterator[Runner]:
    """An Airflow of its own home, ready to run the DAGs of its folder."""
    migrated = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], env=environment, capture_output=True, text=True, check=False
    )
    assert migrated.returncode == 0, migrated.stderr
    log = home / "log"
    with (
        log.open("wb") as sink,
        subprocess.Popen(
            [sys.executable, Path(__file__).parent / "runner.py"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
        ) as process,
    ):
        try:
            yield Runner(process, log, environment)
            process.communicate(timeout=30)
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def temporary_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Alerts that are remembered in a file are of this test only."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(file_store, "_remembered", {})
    return folder


@pytest.fixture
def dag(runner: Runner, valkey: Valkey, database_url: str, temporary_folder: Path) -> Dag:
    """The DAG, connected to the servers of `usage`."""
    to_redis = {"conn_type": "redis", "host": "127.0.0.1", "port": valkey.port, "password": valkey.password}
    connections = {"AIRFLOW_CONN_USAGE_REDIS": json.dumps(to_redis), "AIRFLOW_CONN_USAGE_POSTGRES": database_url}
    return Dag(runner, connections, temporary_folder)
