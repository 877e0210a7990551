"""What others who use Redis and PostgreSQL notice of a run: no command that keeps them waiting, few connections."""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection

from merchant_usage import clock
from merchant_usage.model.pages import PAGE
from tests.dags.support import Dag, Ended
from tests.faults.leftovers import wait_until
from tests.support import Usage, key, raw

TODAY = clock.now().date()
DAY = TODAY - dt.timedelta(days=3)
STALE = TODAY - dt.timedelta(days=20)
EXPIRING = TODAY - dt.timedelta(days=7)
CONF = {"from_date": str(EXPIRING), "to_date": str(DAY)}
MERCHANTS = 3 * PAGE
SCAN_COUNT = 700

# Each takes one key, or as many as its arguments say. What they do besides is to open a connection.
HARMLESS = {"DEL", "EVAL", "GET", "GETRANGE", "MGET", "SCAN", "TIME", "TTL", "TYPE"}
OPENING = {"AUTH", "CLIENT", "HELLO", "INFO", "SELECT"}
#: Of a command with more than 32 words, the log of commands keeps the first 31 and the number of the others.
LEFT_OUT = re.compile(rb" \.\.\. \(([0-9]+) more arguments\)$")
SHOWN = 31


class Commands:
    """All commands that Redis executes, as it logs them itself."""

    def __init__(self, usage: Usage) -> None:
        self._client = usage.client

    def forget(self) -> None:
        self._client.slowlog_reset()

    def by_name(self) -> dict[str, list[bytes]]:
        """What was executed, by the first word."""
        found: dict[str, list[bytes]] = defaultdict(list)
        answer: Any = self._client.slowlog_get(-1)
        for entry in answer:
            found[entry["command"].split()[0].decode().upper()].append(entry["command"])
        return found


def words(command: bytes) -> int:
    left_out = LEFT_OUT.search(command)
    return SHOWN + int(left_out[1]) if left_out else len(command.split())


@pytest.fixture
def commands(usage: Usage) -> Iterator[Commands]:
    """Every command counts as slow, and none is forgotten."""
    every = {"slowlog-log-slower-than": 0, "slowlog-max-len": 1_000_000}
    before: dict[str, Any] = {}
    for name, value in every.items():
        before.update(usage.client.config_get(name))  # type: ignore[arg-type]  # this client waits for its answers
        usage.client.config_set(name, value)
    yield Commands(usage)
    for name, value in before.items():
        usage.client.config_set(name, value)


def run(dag: Dag) -> Ended:
    return dag.run(
        CONF,
        USAGE_DELETE_STALE_KEYS="true",
        USAGE_SCAN_COUNT=str(SCAN_COUNT),
        USAGE_MAX_MAPPED_TASKS="2",
        USAGE_BATCH_COUNTERS="1",
    )


def test_no_command_of_a_run_keeps_others_waiting(dag: Dag, usage: Usage, commands: Commands) -> None:
    """With all that a run may meet: bad keys and values, a counter that fell, keys past the retention."""
    usage.write({key(f"m{n}", DAY): 5 for n in range(MERCHANTS)})
    usage.write({key("fell", DAY): 5, key("acme", EXPIRING): 5, key("acme", STALE): 5, key("half", DAY): "0.5"})
    usage.client.hset(raw(key("hash", DAY)).decode(), mapping={str(n): n for n in range(1000)})
    usage.client.set("usage:no date", 1)
    assert run(dag).state == "success"
    usage.write({key("fell", DAY): 4, key("acme", STALE): 5})
    commands.forget()
    ended = run(dag)
    executed = commands.by_name()
    assert ended.state == "success"
    assert not usage.client.exists(raw(key("acme", STALE))), "clean-up was on"
    assert "went backwards" in ended.log
    assert set(executed) - HARMLESS - OPENING - {"CONFIG", "SLOWLOG", "EXISTS"} == set()
    assert {"EVAL", "MGET", "SCAN", "TTL", "TYPE"} <= set(executed), "the run met too little"
    assert max(map(words, executed["MGET"])) == 1 + PAGE
    assert all(f"COUNT {SCAN_COUNT}".encode() in command for command in executed["SCAN"])
    # A script is one comparison of one key.
    assert all(b") end return 0 1 usage:acme:" in b" ".join(command.split()) for command in executed["EVAL"])
    assert all(words(command) == 2 for name in ("TTL", "TYPE") for command in executed[name])


def sessions(conn: Connection) -> int:
    """How many connections to this database have been opened so far."""
    wait_until(
        conn,
        "SELECT count(*) = 1 FROM pg_stat_activity"
        " WHERE datname = current_database() AND backend_type = 'client backend'",
    )
    row = conn.execute("SELECT sessions FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])


def test_a_task_has_one_connection_to_postgresql(dag: Dag, usage: Usage) -> None:
    usage.write({key(f"m{n}", day): 5 for n in range(6) for day in (DAY, EXPIRING)})
    before = sessions(usage.conn)
    ended = dag.run(CONF)
    assert ended.state == "success"
    assert len(ended.tasks) == 6 + 3
    # And one that looks whether anybody waits to hear that all is well again, once the run is over.
    assert sessions(usage.conn) - before == len(ended.tasks) + 1
