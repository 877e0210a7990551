"""A process of ours that is stopped in a transaction, and a PostgreSQL that falls silent: nobody waits without end."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from local.servers import Postgres, Valkey
from merchant_usage.connections import postgres_from_url, prepare
from merchant_usage.errors import PostgresUnavailable
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.run import Run
from merchant_usage.pipeline import aggregate
from merchant_usage.sink import transactions
from merchant_usage.sink.transactions import transaction
from merchant_usage.steps.cleanup import delete_stale
from tests.faults.engine import APPLICATION, Job, frozen, heard, run_tasks
from tests.faults.leftovers import assert_nothing_left, wait_until
from tests.faults.proxy import LosingProxy
from tests.support import NOW, TODAY, YESTERDAY, Connect, StartPgbouncer, Usage, key, raw, settings

DATES = (YESTERDAY, TODAY)
IDLE_LIMIT = "SELECT current_setting('idle_in_transaction_session_timeout')"
NO_SESSION = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = %(application)s)"
FELL = key("m7", TODAY)


@pytest.fixture
def expected(usage: Usage) -> dict[CounterKey, int]:
    """Counters stored once that have grown since, but for one that fell back. What must be stored."""
    counters = {key(f"m{n}", day): 100 + n for n in range(50) for day in DATES}
    usage.write(counters)
    usage.aggregate(*DATES)
    grown = {counter: value + 1 for counter, value in counters.items()}
    usage.write({**grown, key("new"): 1, FELL: 5})
    usage.client.set("usage:malformed", 1)
    return {**grown, key("new"): 1, FELL: counters[FELL]}


@pytest.fixture
def job(valkey: Valkey, database_url: str, tmp_path: Path) -> Job:
    return Job(valkey.url, database_url, Run("the run", "scheduled", DATES, NOW), settings(), tmp_path)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(["did:start_run"], id="in the ledger"),
        pytest.param(["did:open_dead_letters"], id="with the bad keys written"),
        pytest.param(["did:upsert_staged"], id="with the rows written"),
        pytest.param(["did:lock_rows"], id="with the suspects locked"),
        pytest.param(["did:set_snapshot", "did:select_day_totals"], id="in the snapshot"),
        pytest.param(["commit:finish_run"], id="with the verdicts written"),
    ],
)
def test_a_frozen_worker_blocks_nobody_for_long(
    usage: Usage, job: Job, expected: dict[CounterKey, int], moment: list[str]
) -> None:
    with frozen(run_tasks, job, moment, idle_limit="1s"):
        usage.aggregate(*DATES)
        assert usage.rows() == expected
        wait_until(usage.conn, NO_SESSION, application=APPLICATION)
    run_tasks(job)
    assert usage.rows() == expected
    verdicts = {date: verdict for date, (verdict, _) in usage.ledger("the run").items()}
    assert verdicts == {YESTERDAY: "verified", TODAY: "mismatch"}, "the counter that fell waits for a decision"
    assert_nothing_left(usage.conn)


@pytest.mark.parametrize(
    ("set_by_role", "holds"), [("0", "5min"), ("1d", "5min"), ("5min", "5min"), ("2min", "2min"), ("1500ms", "1500ms")]
)
def test_limit_of_the_role_stands_if_it_is_less(connect: Connect, set_by_role: str, holds: str) -> None:
    conn = connect()
    conn.execute("SET IntervalStyle = 'sql_standard'")
    conn.execute("SELECT set_config('idle_in_transaction_session_timeout', %s, false)", [set_by_role])
    with transaction(conn):
        assert conn.execute(IDLE_LIMIT).fetchone() == (holds,)
    assert conn.execute(IDLE_LIMIT).fetchone() == (set_by_role,)


def test_every_transaction_is_bounded(usage: Usage, job: Job, expected: dict[CounterKey, int]) -> None:
    usage.client.set(raw(FELL), "no number")
    limits: dict[str, Any] = {}
    conns: list[psycopg.Connection] = []

    def hear(word: str) -> None:
        if word.startswith("commit:"):
            limits[word] = conns[0].cursor().execute(IDLE_LIMIT).fetchone()

    with heard(job.redis_url, job.postgres_url, hear) as (client, conn):
        conns.append(conn)
        aggregate(client, conn, job.run, job.settings)
        delete_stale(client, conn, [key("new")], [YESTERDAY], "usage")
        aggregate(client, conn, job.run, job.settings)
    assert len(limits) > 10
    assert set(limits.values()) == {("5min",)}, limits
    assert usage.rows() == expected


def test_nothing_is_left_for_whoever_gets_the_session_next(
    postgres: Postgres, database_url: str, pgbouncer: StartPgbouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions, "IDLE_LIMIT", "7s")
    url = pgbouncer(postgres, 1).through(database_url)
    with psycopg.connect(url) as first, psycopg.connect(url, autocommit=True) as second:
        with transaction(prepare(first), {"lock_timeout": "1s", "statement_timeout": None}):
            pid, limit = first.execute(f"SELECT pg_backend_pid(), ({IDLE_LIMIT})").fetchone() or (None, None)
            assert limit == "7s"
        left = "SELECT pg_backend_pid(), current_setting('lock_timeout')"
        assert second.execute(f"{left}, ({IDLE_LIMIT})").fetchone() == (pid, "0", "0")


class EndedError(BaseException):
    """What ends a task in Airflow is no Exception either."""


def ask_and_copy(conn: psycopg.Connection) -> None:
    with conn, conn.transaction():
        conn.execute("CREATE TEMP TABLE staged (a text)")
        signal.setitimer(signal.ITIMER_REAL, 1)
        conn.execute("SELECT 'question 1'")
        with conn.cursor().copy("COPY staged FROM STDIN") as copy:
            while True:
                copy.write("row 1 " * 10_000 + "\n")


@pytest.mark.parametrize("moment", ["question 1", "row 1 "])
def test_who_is_ended_does_not_wait_for_a_silent_server_again(database_url: str, moment: str) -> None:
    def end(*_: object) -> None:
        raise EndedError

    before = signal.signal(signal.SIGALRM, end)
    try:
        with LosingProxy(database_url, moment, hangs=True) as proxy:
            conn = prepare(psycopg.connect(proxy.url))
            with pytest.raises(EndedError):
                ask_and_copy(conn)
            assert conn.closed
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("moment", ["WITH", "COPY", "COMMIT"])
def test_the_command_line_does_not_wait_for_a_silent_server_without_end(
    usage: Usage, job: Job, expected: dict[CounterKey, int], moment: str
) -> None:
    with (
        LosingProxy(job.postgres_url, moment, hangs=True) as proxy,
        pytest.raises(PostgresUnavailable, match="nothing was heard of it for 10 s") as raised,
        postgres_from_url({"USAGE_POSTGRES_URL": proxy.url, "USAGE_TASK_TIMEOUT_SECONDS": "10"}) as conn,
    ):
        aggregate(usage.client, conn, job.run, job.settings)
    assert raised.value.heals
    assert conn.closed
    usage.aggregate(*DATES)
    assert usage.rows() == expected
