"""The environment of every process of a local Airflow: its whole configuration, and its secrets."""

from __future__ import annotations

import base64
import hashlib
import os
from importlib.metadata import version
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent

# All that Airflow's processes inherit: an AIRFLOW_HOME, a proxy or a PGHOST of the user's must not reach them.
INHERITED: Final = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "USER")

# LocalExecutor is given no more processes than a small machine can run; the rest makes things start quickly.
CONFIGURATION: Final = {
    "AIRFLOW__API__HOST": "127.0.0.1",
    "AIRFLOW__API__WORKERS": "1",
    "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
    # The default asks DNS for the machine's full name, which takes seconds where there is no network.
    "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__PARALLELISM": "4",
    # No login: it listens on this machine only.
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "PYTHONUNBUFFERED": "1",
}


def shipped_settings() -> dict[str, str]:
    """What the project ships for the Airflow that is installed: nothing for 3.3, `airflow2.env` for 2.11."""
    if not version("apache-airflow").startswith("2."):
        return {}
    lines = (PROJECT / "airflow2.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def airflow_environment(
    home: Path, logs: Path, database_url: str, port: int | None, secret: str, dags_folder: Path
) -> dict[str, str]:
    """All variables, for an Airflow of this home, metadata database and port.

    Args:
        secret: a random text, the same at each start; Airflow's own keys are derived from it.
    """
    url = f"http://127.0.0.1:{port}"
    # The same driver for the API's asynchronous queries: it takes every option that a PostgreSQL address may hold.
    database_url = database_url.replace("postgresql://", "postgresql+psycopg://", 1)

    def derived(purpose: str) -> bytes:
        return hashlib.sha512(f"{purpose}:{secret}".encode()).digest()

    return {
        "USER": "usage",
        **{name: os.environ[name] for name in INHERITED if name in os.environ},
        **CONFIGURATION,
        "PYTHONPATH": str(PROJECT),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__PORT": str(port or 0),
        "AIRFLOW__API__SECRET_KEY": derived("api").hex(),
        "AIRFLOW__API_AUTH__JWT_SECRET": derived("jwt").hex(),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(derived("fernet")[:32]).decode(),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database_url,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs),
    }
