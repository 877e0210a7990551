"""What tests in several folders build on: fixed dates, and one object that holds a Redis, a PostgreSQL and verbs."""

from __future__ import annotations

import datetime as dt
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

import redis
from psycopg import Connection

from local.servers import Pgbouncer, Postgres
from merchant_usage.model.batches import Batch
from merchant_usage.model.keys import CounterKey, build_key
from merchant_usage.model.run import Plan, Run
from merchant_usage.model.verdict import Proof
from merchant_usage.pipeline import aggregate, prove, store
from merchant_usage.settings import Settings, load_settings
from merchant_usage.steps.scan import scan
from merchant_usage.steps.store import BatchResult

PROJECT = Path(__file__).resolve().parent.parent

# Half past noon: yesterday is over and settled, today is live.
NOW = dt.datetime(2026, 11, 24, 12, 30, tzinfo=dt.UTC)
TODAY = NOW.date()
YESTERDAY = TODAY - dt.timedelta(days=1)
TOMORROW = TODAY + dt.timedelta(days=1)

# Opens one more connection to a test's database.
Connect = Callable[[], Connection]
# Starts a PgBouncer in front of a PostgreSQL, with so many sessions of it for each database and role.
StartPgbouncer = Callable[[Postgres, int], Pgbouncer]

TABLES = (
    "merchant_usage",
    "usage_dead_letter",
    "usage_run",
    "usage_reading",
    "usage_alert",
    "usage_decision",
    "usage_proposal",
    "usage_deletion",
    "usage_absence",
    "usage_source",
    "usage_seal",
    "usage_seal_page",
    "usage_correction",
    "usage_hourly_history",
)


def key(merchant_id: str, date: dt.date = YESTERDAY, metric_type: str = "queries") -> CounterKey:
    """A counter of yesterday's queries, unless told otherwise."""
    return CounterKey(merchant_id, date, metric_type)


def raw(counter: CounterKey) -> bytes:
    """The counter's Redis key under the default prefix."""
    return build_key("usage", counter)


def settings(**changes: Any) -> Settings:
    """The default settings, but for these fields, and as many batches as there may be: one would hold all."""
    return replace(load_settings({}), **{"batch_counters": 1, **changes})


def tcp_options(conn: Connection) -> dict[str, int]:
    """How the kernel watches a connection to PostgreSQL, in libpq's names and units."""
    with socket.socket(fileno=os.dup(conn.fileno())) as tcp:
        return {
            "keepalives": int(bool(tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))),
            "keepalives_idle": tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
            "keepalives_interval": tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
            "keepalives_count": tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
            "tcp_user_timeout": tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        }


#: A machine that is gone is noticed within a minute.
WATCHED: Final = {
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


class Letter(NamedTuple):
    """A dead letter, as a test compares it."""

    redis_key: bytes
    reason: str
    detail: str
    usage_date: dt.date | None
    attempts: int
    resolved: bool


class Stored(NamedTuple):
    """A run that has stored everything and is yet to be proven."""

    plan: Plan
    batches: list[Batch]
    results: list[BatchResult]


@dataclass
class Usage:
    """A Redis and a migrated PostgreSQL, and what tests do with them."""

    client: redis.Redis
    conn: Connection
    _numbers: count[int]

    def write(self, counters: Mapping[CounterKey, int | str | bytes]) -> None:
        """Set counters, as the API would have counted them."""
        self.client.mset({raw(counter): value for counter, value in counters.items()})

    def aggregate(
        self,
        *dates: dt.date,
        merchants: tuple[str, ...] | None = None,
        now: dt.datetime = NOW,
        run_id: str | None = None,
        conn: Connection | None = None,
        **changes: Any,
    ) -> Proof:
        """Aggregate yesterday, or these dates."""
        run = Run(run_id or self.new_run_id(), "manual", dates or (YESTERDAY,), now, merchants)
        return aggregate(self.client, conn or self.conn, run, settings(**changes))

    def store_only(self, *dates: dt.date, now: dt.datetime = NOW, **changes: Any) -> Stored:
        """The first two steps of a run; a test then changes something before the third."""
        chosen = settings(**changes)
        run = Run(self.new_run_id(), "manual", dates or (YESTERDAY,), now)
        plan, batches = scan(self.client, self.conn, run, chosen)
        results = [store(self.client, self.conn, batch, run.run_id, chosen) for batch in batches]
        return Stored(plan, batches, results)

    def prove(self, stored: Stored, **changes: Any) -> Proof:
        """The third step of a run."""
        return prove(self.client, self.conn, stored.plan, stored.batches, stored.results, settings(**changes))

    def new_run_id(self) -> str:
        """A run id that no other run has."""
        return f"run {next(self._numbers)}"

    def rows(self) -> dict[CounterKey, int]:
        """All that is stored."""
        found = self.conn.execute("SELECT merchant_id, date, metric_type, metric_value FROM merchant_usage")
        return {CounterKey(*row[:3]): row[3] for row in found}

    def carried(self, counter: CounterKey) -> int:
        """What a row holds beyond its counter."""
        row = self.conn.execute(
            "SELECT carried FROM merchant_usage WHERE merchant_id = %s AND date = %s AND metric_type = %s", counter
        ).fetchone()
        assert row is not None
        return int(row[0])

    def verdicts(self, proof: Proof) -> dict[dt.date, str]:
        """The verdict of each date."""
        return {report.date: str(report.verdict) for report in proof.reports}

    def row_versions(self) -> dict[CounterKey, tuple[Any, ...]]:
        """Where each stored row lies, who wrote it and when: any write changes this."""
        found = self.conn.execute(
            "SELECT merchant_id, date, metric_type, ctid::text, xmin::text, metric_value, carried, created_at,"
            " updated_at FROM merchant_usage"
        )
        return {CounterKey(*row[:3]): row[3:] for row in found}

    def everything(self) -> dict[str, Any]:
        """All tables with row versions, and all of Redis: equal before and after if nothing was written at all."""
        found: dict[str, Any] = {}
        for table in TABLES:
            query = f"SELECT t.ctid::text, t.xmin::text, t.* FROM {table} AS t ORDER BY t.ctid"  # noqa: S608
            found[table] = self.conn.execute(query).fetchall()
        found["redis"] = {name: self.client.dump(name) for name in sorted(self.client.keys())}
        return found

    def letters(self) -> list[Letter]:
        """All dead letters, those resolved too, in the order of their keys."""
        found = self.conn.execute(
            "SELECT redis_key, reason, detail, usage_date, attempts, resolved_at IS NOT NULL"
            " FROM usage_dead_letter ORDER BY redis_key, reason, id"
        )
        return [Letter(*row) for row in found]

    def ledger(self, run_id: str) -> dict[dt.date, tuple[str | None, str | None]]:
        """Verdict and error of a run, by date."""
        found = self.conn.execute(
            "SELECT usage_date, verdict, error FROM usage_run WHERE run_id = %s ORDER BY attempt", [run_id]
        )
        return {date: (verdict, error) for date, verdict, error in found}

    def readings(self) -> int:
        """Counters in usage_reading."""
        row = self.conn.execute("SELECT coalesce(sum(number), 0) FROM usage_reading").fetchone()
        assert row is not None
        return int(row[0])
