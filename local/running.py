"""Lets people speak to the running demo, or to what their environment names, by the usual programs.

    ./run usage status
    ./run airflow dags list
    ./run psql
    ./run redis

A running demo leaves its addresses and its Airflow's environment in a file of its own, which nobody else can read.
Whatever the caller's environment names goes before it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from psycopg.conninfo import conninfo_to_dict

from local.airflow_environment import PROJECT
from local.servers.processes import write_private
from local.servers.programs import wheel_postgres
from merchant_usage.connections import POSTGRES_URL, REDIS_URL, redis_from_url
from merchant_usage.errors import UsageError

FOLDER: Final = PROJECT / ".local" / "demo"
FILE: Final = "environment.json"
#: What libpq calls the parts of an address in the environment, where a list of all processes does not show them.
PG_VARIABLES: Final = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
}
#: What people type for it in this folder, so that the commands it tells them work when they are pasted.
HERE: Final = {"MERCHANT_USAGE_PROGRAM": "./run usage"}
#: Airflow's command line says that it cannot draw, whatever it is asked.
QUIET: Final = {"PYTHONWARNINGS": "ignore:Could not import graphviz:UserWarning"}
NOTHING: Final = "No demo is running, and the environment does not name {}. ./run demo starts one."


class NothingToSpeakTo(Exception):
    """Its text is the whole message."""


def leave_environment(folder: Path, urls: Mapping[str, str], airflow: Mapping[str, str]) -> Path:
    """Let other commands find a demo that holds its folder; returns the file, which ends with it.

    Args:
        urls: the addresses of both servers, by variable.
        airflow: the whole environment of its Airflow.
    """
    file = folder / FILE
    write_private(file, json.dumps({"urls": dict(urls), "airflow": dict(airflow)}))
    return file


def environment_of_demo(folder: Path) -> dict[str, Any] | None:
    """What a demo that runs has left; None if none does, or it has not come so far."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        file = folder / FILE
        found: dict[str, Any] | None = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        return found
    return None


def environment_for(program: str, environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The environment that a program is to have.

    Raises:
        NothingToSpeakTo: no demo is running, and the caller's environment names nothing, either.
    """
    if program == "airflow":
        if any(name == "AIRFLOW_HOME" or name.startswith("AIRFLOW__") for name in environ):
            return {**QUIET, **environ}
        if demo := environment_of_demo(folder):
            return {**QUIET, **environ, **demo["airflow"]}
        raise NothingToSpeakTo(NOTHING.format("an Airflow (AIRFLOW_HOME)"))
    if any(environ.get(name) for name in (POSTGRES_URL, REDIS_URL)):
        return {**environ, **HERE}
    demo = environment_of_demo(folder)
    if demo is None and program != "usage":
        raise NothingToSpeakTo(NOTHING.format("a server (USAGE_POSTGRES_URL, USAGE_REDIS_URL)"))
    # The command line says by itself what it lacks, and --help needs no server.
    return {**environ, **HERE, **(demo["urls"] if demo else {})}


def main(arguments: Sequence[str]) -> int:
    """Become the program, or be the client of Redis. Returns the exit code."""
    program, *others = arguments
    try:
        environ = environment_for(program, os.environ, FOLDER)
        return (
            _redis(environ, others) if program == "redis" else _become([*_command(program, environ), *others], environ)
        )
    except (NothingToSpeakTo, UsageError) as error:
        print(f"run: {error}", file=sys.stderr)
        return 2


def _become(command: list[str], environ: Mapping[str, str]) -> NoReturn:
    """Ctrl-C, the terminal and the exit code are the program's own."""
    os.execve(command[0], command, environ)  # noqa: S606 - it needs no shell


def _command(program: str, environ: dict[str, str]) -> list[str]:
    if program == "usage":
        return [str(Path(sys.executable).with_name("merchant-usage"))]
    if program == "airflow":
        return [sys.executable, "-m", "airflow"]
    if not environ.get(POSTGRES_URL):
        raise NothingToSpeakTo(NOTHING.format("a PostgreSQL (USAGE_POSTGRES_URL)"))
    environ.update(psql_environment(environ[POSTGRES_URL]))
    return [find_psql()]


def find_psql() -> str:
    """This machine's psql, or that of the wheel."""
    return shutil.which("psql") or str(wheel_postgres().folder / "psql")


def psql_environment(url: str) -> dict[str, str]:
    """What tells psql of an address, so that no password stands on its command line."""
    parts = conninfo_to_dict(url)
    return {variable: str(parts[name]) for name, variable in PG_VARIABLES.items() if name in parts}


def _redis(environ: Mapping[str, str], command: Sequence[str]) -> int:
    """Ask Redis one command, or what is typed, line by line."""
    with redis_from_url(environ) as client:
        if command:
            return _ask(client, command)
        while (line := _typed()) is not None:
            try:
                words = shlex.split(line)
            except ValueError as error:
                print(f"(error) {error}")
                continue
            if words:
                _ask(client, words)
    return 0


def _typed() -> str | None:
    try:
        return input("redis> " if sys.stdin.isatty() else "")
    except EOFError:
        return None


def _ask(client: Any, words: Sequence[str]) -> int:
    try:
        print(_shown(client.execute_command(*words)))
    except Exception as error:  # noqa: BLE001 - whatever Redis says of what a person typed
        print(f"(error) {error}")
        return 1
    return 0


def _shown(reply: object) -> str:
    if isinstance(reply, bytes):
        return reply.decode(errors="backslashreplace")
    if isinstance(reply, dict):
        return "\n".join(f"{_shown(name)}: {_shown(value)}" for name, value in reply.items())
    if isinstance(reply, list | tuple | set):
        return "\n".join(_shown(each) for each in reply) or "(nothing)"
    return "(nothing)" if reply is None else str(reply)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
