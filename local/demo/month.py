"""The month before the demo: made in a process of its own while Airflow starts, and only once."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis
from psycopg import Connection

from local.airflow_environment import INHERITED, PROJECT
from local.demo import past
from local.demo.errors import DemoError
from local.demo.servers import Servers
from merchant_usage.connections import POSTGRES_URL, REDIS_URL
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.run import Attempt
from merchant_usage.sink import ledger, schema

FILE: Final = "month.json"
LOG: Final = "month.log"
STOP_SECONDS: Final = 5
EMPTY: Final = "DROP SCHEMA public CASCADE; CREATE SCHEMA public; DROP SCHEMA IF EXISTS usage_demo_clock CASCADE"


@dataclass
class Month:
    """What is being made up, or was by an earlier demo.

    Attributes:
        until: when it ends; None: there is none.
    """

    folder: Path
    until: dt.datetime | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def is_being_made(self) -> bool:
        """Whether this demo makes it."""
        return self.process is not None

    def wait(self) -> None:
        """Return when all of it is there.

        Raises:
            DemoError: it could not be made.
        """
        if self.process is None or self.until is None:
            return
        if self.process.wait():
            raise DemoError(f"The month before could not be made up. What happened is in {self.folder / LOG}.")
        self.process = None
        _note(self.folder, self.until, whole=True)

    def stop(self) -> None:
        """End it, whole or not: what is not is made anew by the next demo."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def found(self) -> list[tuple[CounterKey, str]]:
        """What there is to be found in it."""
        return [(event.key(self.until.date()), what) for event, what in past.TOLD.items()] if self.until else []

    @property
    def undecided(self) -> frozenset[dt.date]:
        """The day of a counter that went backwards, and waits for whoever tries the demo."""
        return frozenset({past.FELL_AND_WAITS.key(self.until.date()).date} if self.until else ())


def begin_month(servers: Servers, conn: Connection, folder: Path, until: dt.datetime) -> Month:
    """Begin to make it, unless it is there, on servers that are the demo's own.

    Where a demo has been that made none, none is made.
    """
    if not (servers.own_redis and servers.own_postgres):
        return Month(folder)
    noted = _noted(folder)
    if ledger.first_run_at(conn, Attempt("", 0)) is not None:
        if noted is None:
            return Month(folder)
        if noted["whole"]:
            return Month(folder, dt.datetime.fromisoformat(noted["until"]))
        _empty(servers, conn)
    _note(folder, until, whole=False)
    with (folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", past.__name__, until.isoformat()],
            env={
                **{name: os.environ[name] for name in INHERITED if name in os.environ},
                "PYTHONPATH": str(PROJECT),
                REDIS_URL: servers.redis_url,
                POSTGRES_URL: servers.postgres_url,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C in a terminal is for this process.
            start_new_session=True,
        )
    return Month(folder, until, process)


def _empty(servers: Servers, conn: Connection) -> None:
    """Forget what an earlier demo made that was ended before it was whole, and before anybody could add to it."""
    conn.execute(EMPTY)
    schema.migrate(conn)
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushdb()


def _noted(folder: Path) -> dict[str, Any] | None:
    file = folder / FILE
    if not file.exists():
        return None
    noted: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return noted


def _note(folder: Path, until: dt.datetime, *, whole: bool) -> None:
    draft = folder / f"{FILE}.new"
    draft.write_text(json.dumps({"until": until.isoformat(), "whole": whole}), encoding="utf-8")
    draft.replace(folder / FILE)
