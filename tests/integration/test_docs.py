"""What the docs teach for the engine and its servers, run as it stands there but for its dates: those of this week."""

from __future__ import annotations

import datetime as dt
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import Connection

from local.servers import Valkey
from merchant_usage import clock
from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL, REDIS_URL
from merchant_usage.log import Log, find_by
from tests import docs
from tests.support import PROJECT, Usage, key, raw

TODAY = clock.now().date()
# What the docs call the 20th is the first of five days, of which today is the last.
DAYS = [TODAY - dt.timedelta(days=days) for days in (4, 3, 2, 1, 0)]
#: All that Redis may still have.
KEPT = [TODAY - dt.timedelta(days=days) for days in range(8)]
COUNTERS = {key(merchant, day): 1000 + day.day for merchant in ("acme", "b:2") for day in DAYS}
REGRESSED = key("acme", DAYS[0])
PASSWORD = "a-password"


def of_this_week(command: str) -> str:
    """A command of the docs, for days of today and the Airflow of this test."""
    dated = re.sub(r"2026-11-(\d\d)", lambda day: str(TODAY - dt.timedelta(days=24 - int(day[1]))), command)
    return dated.replace("$AIRFLOW_HOME", os.environ["AIRFLOW_HOME"])


@pytest.fixture
def environment(
    monkeypatch: pytest.MonkeyPatch, valkey: Valkey, database_url: str, tmp_path: Path
) -> Iterator[pytest.MonkeyPatch]:
    """The two addresses, and an Airflow's folder; what a command sends its log to is taken back."""
    (tmp_path / "dags").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    monkeypatch.setenv(REDIS_URL, valkey.url)
    monkeypatch.setenv(POSTGRES_URL, database_url)
    find = Log.find
    yield monkeypatch
    find_by(find)


@pytest.fixture
def taught_days(environment: pytest.MonkeyPatch, usage: Usage) -> Usage:
    """Days that are stored and verified."""
    del environment
    usage.write(COUNTERS)
    usage.aggregate(*KEPT, now=clock.now())
    return usage


@pytest.mark.parametrize("command", docs.commands_of("merchant-usage"))
def test_the_command_does_what_it_says(command: str, taught_days: Usage, capsys: pytest.CaptureFixture[str]) -> None:
    _, *arguments = shlex.split(of_this_week(command))
    if "resolve" in arguments or "counter_regressed" in arguments:
        taught_days.write({REGRESSED: 5})
        taught_days.aggregate(DAYS[0], now=clock.now())

    assert main(arguments) == 0

    told, complained = capsys.readouterr()
    assert told
    assert "[error]" not in complained
    expected = {
        "aggregate": r"verified|would store",
        "completion": r"complete -F",
        "dag-file": r"^Wrote .*/dags/usage_(aggregation|decisions).py$|^# merchant-usage ",
        "dead-letters": r"Open: ",
        "decisions": r"waits for a decision|waiting",
        "explain": r"is sealed: it was over and settled|^Wrote evidence of ",
        "history": r"acme on |^date,metric_type,",
        "migrate": r"applied \w+",
        "preview": r"Nothing was written",
        "audit": r"The chain of seals is whole",
        "seals": r"Seals|\"chain\"",
        "prove": r"\"path\"",
        "prune": r"elete[d]? what is older",
        "resolve": r"stored [\d,]+ -> [\d,]+",
        "status": r"verified",
        "verify": r"match",
    }[arguments[0]]
    assert re.search(expected, told)
    if "resolve" not in arguments:
        assert [day for day in map(str, DAYS) if day in arguments and day not in told] == []
    if "counter_regressed" in arguments:
        assert raw(REGRESSED).decode() in told


def test_the_command_of_this_repository_is_the_same(taught_days: Usage, valkey: Valkey, database_url: str) -> None:
    del taught_days
    commands = docs.commands_of("./run usage")
    assert commands
    for command in commands:
        said = subprocess.run(
            shlex.split(command),
            cwd=PROJECT,
            env={**os.environ, REDIS_URL: valkey.url, POSTGRES_URL: database_url},
            capture_output=True,
            text=True,
            check=False,
        )
        assert said.returncode == 0, said.stderr


# A table by month is test_partitions', what each role needs test_roles'.
STATEMENTS = [block for block in docs.blocks("sql") if "PARTITION OF" not in block.text and block.page != "grants.md"]


@pytest.mark.parametrize("block", STATEMENTS, ids=lambda block: f"{block.page}: {block.text.splitlines()[0][:40]}")
def test_the_sql_is_understood(block: docs.Block, database: Connection) -> None:
    with database.transaction(force_rollback=True):
        cursor = database.execute(block.text.encode())
        assert cursor.statusmessage
