"""Runs contestants, each in a process of its own, on servers that start each run alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Final

import psycopg
import redis
from psycopg import Connection

from bench.contestants import Figures
from bench.data import DataSet
from local.servers import Postgres, Valkey
from merchant_usage.connections import prepare
from merchant_usage.sink import schema

#: What would start in the middle of some runs and not of others is done between them instead: see `Stage`.
POSTGRES_SETTINGS: Final = {"autovacuum": "off", "checkpoint_timeout": "1h", "max_wal_size": "16GB"}
#: No append-only file: it is rewritten in the background, at times that nobody chose.
VALKEY_CONFIG: Final = ("appendonly no",)


@dataclass(frozen=True)
class Stage:
    """The servers with one data set in Redis, and the means to bring both into the state a run starts from."""

    valkey: Valkey
    postgres: Postgres
    client: redis.Redis
    conn: Connection
    data: DataSet

    @classmethod
    def set(cls, valkey: Valkey, postgres: Postgres, conn: Connection, data: DataSet) -> Stage:
        """Fill Redis with a data set."""
        client = redis.Redis.from_url(valkey.url)
        client.flushall()
        data.write(client)
        return cls(valkey, postgres, client, conn, data)

    def empty(self) -> None:
        """Drop all tables and make them anew."""
        self.conn.execute("DROP SCHEMA public CASCADE")
        self.conn.execute("CREATE SCHEMA public")
        schema.migrate(self.conn)

    def settle(self) -> None:
        """Do what the server does by itself in the hour between two runs. Nobody pays for what another left."""
        self.conn.execute("VACUUM (ANALYZE)")
        self.conn.execute("CHECKPOINT")

    def grow(self) -> None:
        """Raise a tenth of the counters."""
        self.data.grow(self.client)

    def start(self, contestant: str) -> subprocess.Popen[bytes]:
        """Start a contestant."""
        urls = {"USAGE_REDIS_URL": self.valkey.url, "USAGE_POSTGRES_URL": self.postgres.url}
        return subprocess.Popen(
            [sys.executable, "-m", "bench.one", contestant, json.dumps(asdict(self.data))],
            env={**os.environ, **urls},
            stdout=subprocess.PIPE,
        )

    def run(self, contestant: str) -> Figures:
        """Run a contestant to its end; returns what it measured, and the seconds of its whole process."""
        started = time.perf_counter()
        process = self.start(contestant)
        said, _ = process.communicate()
        seconds = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(f"Contestant {contestant} failed on {self.data.description}")
        figures: Figures = json.loads(said)
        return {**figures, "process_seconds": seconds}

    def number(self, query: Any) -> float:
        """The one number that a query answers with."""
        row = self.conn.execute(query).fetchone()
        assert row is not None  # for aggregates and functions there is always one
        return float(row[0])


def admin_connection(postgres: Postgres) -> Connection:
    """A connection for what is done between the runs."""
    return prepare(psycopg.connect(postgres.url, autocommit=True, application_name="usage-bench-admin"))
