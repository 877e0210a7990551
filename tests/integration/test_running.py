"""`./run usage`, `airflow`, `psql` and `redis` speak to the running demo, or to what the environment names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from local.demo.report import COMMANDS
from local.running import FILE, environment_for, leave_environment
from local.servers import Valkey
from local.servers.processes import lock_folder
from merchant_usage.connections import POSTGRES_URL, REDIS_URL
from tests.support import PROJECT, Usage, key, raw

#: Nobody listens there.
ELSEWHERE = {REDIS_URL: "redis://127.0.0.1:1/0", POSTGRES_URL: "postgresql://u:p@127.0.0.1:1/x"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a demo would keep its data."""
    return tmp_path


@pytest.fixture
def demo(folder: Path, usage: Usage, valkey: Valkey, database_url: str) -> Iterator[Path]:
    """A demo that runs, as far as others can see."""
    usage.write({key("acme"): 1523})
    usage.aggregate()
    with closing(lock_folder(folder)):
        urls = {REDIS_URL: valkey.url, POSTGRES_URL: database_url}
        file = leave_environment(
            folder, urls, {"AIRFLOW_HOME": str(folder / "airflow"), "AIRFLOW__CORE__LOAD_EXAMPLES": "no"}
        )
        assert file.stat().st_mode & 0o077 == 0, "it holds passwords"
        yield folder


def say(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """What `./run` does with these words, for a demo in this folder."""
    ours = (REDIS_URL, POSTGRES_URL, "AIRFLOW_HOME")
    kept = {n: value for n, value in os.environ.items() if n not in ours and not n.startswith(("AIRFLOW__", "PG"))}
    code = "import sys, pathlib; from local import running; running.FOLDER = pathlib.Path(sys.argv[1]); "
    return subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit(running.main(sys.argv[2:]))", str(folder), *words],
        cwd=PROJECT,
        env={**kept, "PYTHONPATH": str(PROJECT), **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(("usage", "dead-letters"), "Open: none", id="usage"),
        pytest.param(("psql", "-Atc", "SELECT metric_value FROM merchant_usage"), "1523", id="psql"),
        pytest.param(("redis", "GET", raw(key("acme")).decode()), "1523", id="redis"),
        pytest.param(("redis", "KEYS", "usage:*"), raw(key("acme")).decode(), id="redis with a list"),
    ],
)
def test_they_speak_to_the_running_demo(demo: Path, words: tuple[str, ...], told: str) -> None:
    said = say(demo, *words)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.strip() == told


def test_what_they_tell_people_to_type_works_there(demo: Path) -> None:
    """`merchant-usage` is on nobody's path in this folder."""
    told = say(demo, "usage", "status").stdout
    assert "To aggregate them: ./run usage aggregate --from" in told
    assert "merchant-usage" not in told + say(demo, "usage", "--help").stdout
    assert say(demo, "usage", "--version").stdout.startswith("merchant-usage ")
    assert "complete -F _merchant_usage merchant-usage" in say(demo, "usage", "completion", "bash").stdout


def test_airflow_does_not_begin_with_what_it_cannot_draw(demo: Path) -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import airflow.cli.commands.dag_command"],
        env=environment_for("airflow", os.environ | {"AIRFLOW_HOME": str(demo / "airflow")}, demo),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "graphviz" not in loaded.stdout + loaded.stderr


def test_airflow_is_the_demos(demo: Path) -> None:
    said = say(demo, "airflow", "config", "get-value", "core", "load_examples")
    assert said.stdout.splitlines()[-1] == "no", said.stderr


@pytest.mark.parametrize("program", ["usage", "psql", "redis"])
def test_what_the_environment_names_goes_before_the_demo(demo: Path, program: str) -> None:
    words = {"usage": ["dead-letters"], "psql": ["-c", "SELECT 1"], "redis": ["PING"]}[program]
    said = say(demo, program, *words, **ELSEWHERE)
    assert said.returncode != 0
    assert "onnect" in said.stderr + said.stdout


@pytest.mark.parametrize("is_left", [False, True], ids=["never ran", "ended without clearing up"])
@pytest.mark.parametrize("program", ["airflow", "psql", "redis", "usage"])
def test_without_a_demo_they_say_so(folder: Path, program: str, is_left: bool) -> None:
    if is_left:
        (folder / "lock").touch()
        (folder / FILE).write_text("{}")
    said = say(folder, program, *(["status"] if program == "usage" else []))
    assert said.returncode == 2
    assert said.stdout == ""
    assert len(said.stderr.splitlines()) == 1
    assert ("USAGE_POSTGRES_URL" if program == "usage" else "No demo is running") in said.stderr


def test_each_command_that_the_demo_shows_exists() -> None:
    told = subprocess.run([PROJECT / "run", "help"], capture_output=True, text=True, check=True).stdout
    for command in COMMANDS:
        run, program, *_ = command.split()
        assert run == "./run"
        assert f"\n  {program} " in told


def test_what_is_typed_is_asked_line_by_line(demo: Path) -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import pathlib, sys; from local import running; running.FOLDER = pathlib.Path({str(demo)!r}); "
            "sys.exit(running.main(['redis']))",
        ],
        cwd=PROJECT,
        env={n: v for n, v in os.environ.items() if n not in (REDIS_URL, POSTGRES_URL)},
        input="PING\nNONSENSE\n'\nDBSIZE\n",
        capture_output=True,
        text=True,
        check=False,
    )
    pong, refused, unclosed, size = said.stdout.splitlines()
    assert (pong, size) in {("PONG", "1"), ("True", "1")}
    assert refused.startswith("(error) unknown command")
    assert unclosed.startswith("(error) ")
