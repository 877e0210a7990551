"""What the plugin mends of Airflow 2.11, where no run shows it each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.dags.support import airflow_environment
from tests.support import PROJECT

FORK = """
from multiprocessing import JoinableQueue
from airflow import plugins_manager, settings
from airflow.executors.local_executor import QueuedLocalWorker
from sqlalchemy import text

def server_process():
    with settings.engine.connect() as conn:
        return conn.execute(text("SELECT pg_backend_pid()")).scalar()

plugins_manager.ensure_plugins_loaded()
before = server_process()
tasks = JoinableQueue()
worker = QueuedLocalWorker(tasks, JoinableQueue())
worker.start()
tasks.put((None, None))
worker.join()
print("the same connection" if server_process() == before else "another connection")
"""


def test_a_forked_worker_leaves_the_connection_of_its_parent_open(tmp_path: Path, database_url: str) -> None:
    database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url.replace("postgresql:", "postgresql+psycopg2:")}
    done = subprocess.run(
        [sys.executable, "-c", FORK],
        cwd=PROJECT,
        env={**airflow_environment(tmp_path), **database},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "the same connection"
