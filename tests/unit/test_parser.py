"""The arguments of the command line, and what its help teaches."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys

import pytest

from merchant_usage import __version__
from merchant_usage.cli.main import main
from merchant_usage.cli.parser import build_parser
from merchant_usage.errors import PROGRAM
from merchant_usage.steps.resolve import Decision
from tests.support import PROJECT

COMMANDS = (
    "preview",
    "migrate",
    "aggregate",
    "verify",
    "status",
    "history",
    "dead-letters",
    "resolve",
    "decisions",
    "explain",
    "prune",
    "audit",
    "seals",
    "prove",
    "page",
    "dag-file",
    "completion",
)


def help_of(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([command, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_teaches_by_examples_and_tells_its_exit_codes(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = help_of(command, capsys)
    assert "exit codes:" in told
    examples = [line.strip() for line in told.splitlines() if line.strip().startswith(f"{PROGRAM} {command}")]
    assert examples
    for example in examples:
        words = shlex.split(example.split("   ")[0].split(" | ")[0])[1:]
        assert build_parser().parse_args(words).command, example


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"merchant-usage {__version__}\n"


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert re.findall(r"^    ([a-z-]+)\b", told, re.MULTILINE) == list(COMMANDS)
    assert all(f"\n  {code} " in told for code in (0, 1, 2, 3, 130))


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_its_function(command: str) -> None:
    given = {
        "resolve": ["key", "--keep"],
        "completion": ["bash"],
        "history": ["acme"],
        "prove": ["acme", "yesterday"],
        "explain": ["acme", "yesterday"],
    }
    words = [command, *given.get(command, [])]
    module, _, function = build_parser().parse_args(words).command.partition(":")
    assert callable(getattr(importlib.import_module(f"merchant_usage.cli.{module}"), function))


@pytest.mark.parametrize("decision", Decision)
def test_every_decision_can_be_given(decision: Decision) -> None:
    assert build_parser().parse_args(["resolve", "key", f"--{decision}"]).decision == decision


def test_a_key_that_is_no_text_stays_what_it_was() -> None:
    key = b"usage:caf\xe9:2026-11-01:queries".decode(errors="surrogateescape")
    assert build_parser().parse_args(["resolve", key, "--keep"]).key == b"usage:caf\xe9:2026-11-01:queries"


@pytest.mark.parametrize("most", ["0", "-1", "1_0", "x", "", "1000001", "9" * 30])
def test_how_many_letters_is_a_number_that_makes_sense(most: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dead-letters", f"--most={most}"]) == 2
    assert "is not a whole number from 1 to 1000000" in capsys.readouterr().err


def test_an_id_that_begins_with_a_dash_can_be_given() -> None:
    assert build_parser().parse_args(["aggregate", "--merchant=-1", "--merchant=--all"]).merchant == ["-1", "--all"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["aggregate", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["aggregate", "--merchant", "-dash"], "argument --merchant: expected one argument"),
        (["status", "2026-11-01", "2026-11-02"], "unrecognized arguments: 2026-11-02"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_told_with_the_usage_of_its_command(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.startswith(f"usage: {PROGRAM} {words[0]} ")
    assert seen.err.endswith(f"\nerror: {told}\n")


def test_words_are_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aggregate", "--dry"]) == 2
    assert "unrecognized arguments: --dry" in capsys.readouterr().err


@pytest.mark.parametrize(
    "module", ["psycopg", "redis", "pydantic", "structlog", "rich", "airflow", "fastapi", "jinja2"]
)
def test_help_loads_nothing_heavy(module: str) -> None:
    look = (
        f"import sys; from merchant_usage.cli.main import main; main(['--help']); sys.exit({module!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", look], cwd=PROJECT, capture_output=True, check=False).returncode == 0
