"""The docs teach nothing that no test runs, and say of each block what it is."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from merchant_usage.connections import POSTGRES_URL, REDIS_URL
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.verdict import Verdict
from merchant_usage.settings import VARIABLES, load_settings
from merchant_usage.sink.schema import EXPECTED, VIEWS
from merchant_usage.source.options import parse_redis_url
from tests import docs
from tests.support import PROJECT

#: Whose commands tests run: test_docs.py in tests/integration, tests/dags and tests/scheduler.
RUN = ("airflow", "merchant-usage", "redis-cli", "./run usage")


@pytest.mark.parametrize("command", docs.commands())
def test_command_is_run_by_a_test_or_it_is_said_why_not(command: str) -> None:
    assert docs.why_not_run(command) or command.startswith(tuple(f"{program} " for program in RUN))


def test_no_reason_is_left_of_a_command_that_is_not_taught_any_more() -> None:
    used = {docs.why_not_run(command) for command in docs.commands()}
    assert {why for why in docs.NOT_RUN.values() if why not in used} == set()


def test_the_ways_to_run_the_dag_are_all_taught() -> None:
    taught = {" ".join(command.split()[:3]) for command in docs.commands_of("airflow")}
    assert taught >= {"airflow dags trigger", "airflow dags backfill", "airflow backfill create"}


def test_commands_of_this_repository_exist() -> None:
    told = subprocess.run([PROJECT / "run", "help"], capture_output=True, text=True, check=True).stdout
    known = re.findall(r"^  (\w+) ", told, re.MULTILINE)
    taught = {shlex.split(command[command.index("./run") :])[1] for command in docs.commands() if "./run" in command}
    assert taught - set(known) == set()
    assert {"demo", "test"} <= taught


@pytest.mark.parametrize("page", docs.PAGES, ids=lambda page: page.name)
def test_blocks_are_fenced_and_say_what_they_are(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^ *```(\S*)$", text, re.MULTILINE)
    assert set(fences[::2]) <= docs.LANGUAGES
    assert set(fences[1::2]) <= {""}
    assert not re.search(r"\n\n    \S", text), "an indented block: what is it?"


def test_the_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def table_under(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of a page of the reference."""
    text = (PROJECT / "docs" / "reference" / page).read_text(encoding="utf-8")
    (table,) = re.findall(rf"^#+ {heading}\n[^#|]*\|.*\n\|-.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]


def test_every_platform_is_tested_by_tests_that_there_are() -> None:
    rows = table_under("versions.md", "Platforms")
    assert len(rows) > 10
    for platform, *_, tested_by, _ in rows:
        named = codes(tested_by)
        assert named, f"no test runs {platform}"
        for name in named:
            path, _, test = name.partition("::")
            assert f"\ndef {test}(" in (PROJECT / path).read_text(encoding="utf-8"), name


def codes(cell: str) -> list[str]:
    return re.findall("`([^`]+)`", cell)


def test_every_setting_is_told_with_its_default() -> None:
    told = {codes(name)[0]: "".join(codes(default)) for name, default, _ in table_under("settings.md", "Settings")}
    assert set(told) == set(VARIABLES)
    assert load_settings(told) == load_settings({})


def test_the_example_of_an_environment_has_all_settings_with_their_defaults_and_both_addresses() -> None:
    lines = (PROJECT / ".env.example").read_text(encoding="utf-8").splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    told = {codes(name)[0]: "".join(codes(default)) for name, default, _ in table_under("settings.md", "Settings")}
    addresses = {name: given.pop(name) for name in (REDIS_URL, POSTGRES_URL)}
    assert given == told
    assert parse_redis_url(addresses[REDIS_URL])
    assert conninfo_to_dict(addresses[POSTGRES_URL])["dbname"]


@pytest.mark.parametrize(
    ("heading", "kind"), [("Of a key", Verdict), ("Of a date", DateVerdict), ("Dead letters", Reason)]
)
def test_every_verdict_and_reason_is_told(heading: str, kind: type[Verdict | DateVerdict | Reason]) -> None:
    assert sorted(codes(row[0])[0] for row in table_under("verdicts.md", heading)) == sorted(kind)


# Those that a person may want to read.
TOLD_BY_COLUMN = {
    *("merchant_usage", "usage_dead_letter", "usage_decision", "usage_run", "usage_seal", "usage_hourly_history"),
    *VIEWS,
}


def test_every_table_is_told() -> None:
    text = (PROJECT / "docs" / "reference" / "tables.md").read_text(encoding="utf-8")
    assert set(re.findall("^## (.*)", text, re.MULTILINE)) == set(EXPECTED | VIEWS)
    assert set(EXPECTED | VIEWS) > TOLD_BY_COLUMN


@pytest.mark.parametrize("table", sorted(TOLD_BY_COLUMN))
def test_every_column_is_told(table: str) -> None:
    assert {name for row in table_under("tables.md", table) for name in codes(row[0])} == set((EXPECTED | VIEWS)[table])
