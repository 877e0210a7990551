"""What the docs teach: commands, settings and SQL, as tests take them from the pages to run them.

A fenced block says by its language what it is: `sh` holds commands, `sql` statements, `ini` the environment, and what
nobody types is `text`. In prose and tables whatever begins with the name of a program is a command, unless it is no
more than the first words of one that is taught elsewhere: `airflow dags backfill`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Final

from tests.support import PROJECT

PAGES: Final = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
LANGUAGES: Final = {"dockerfile", "ini", "sh", "sql", "text", "{toctree}"}
PROGRAMS: Final = {
    *("./run", "airflow", "apt-get", "astro", "aws", "docker", "helm", "kubectl", "merchant-usage", "pip", "pg_dump"),
    *("gcloud", "pre-commit", "psql", "python", "redis-cli", "systemctl", "uv"),
}

WORDS_OF_A_NAME: Final = 3

#: Commands that no test runs, by how they begin, and why.
NOT_RUN: Final = {
    "./run bench": "minutes long; test_bench runs what it runs, on little data",
    "./run check": "what continuous integration begins with",
    "./run demo": "an Airflow as the scheduler tests have one",
    "./run docs": "a part of ./run check",
    "./run lock": "fetches from a package index",
    "./run airflow": "test_running.py tries to whom it speaks; what it says is Airflow's",
    "./run messages": "test_messages.py runs what it runs",
    "./run psql": "test_running.py tries to whom it speaks; what it says is PostgreSQL's",
    "./run redis": "test_running.py tries to whom it speaks; what it says is Redis'",
    "./run screenshot": "needs a browser",
    "./run pictures": "needs a browser",
    "./run servers": "what continuous integration begins with",
    "./run setup": "a part of every other command",
    "./run test": "runs this test",
    "merchant-usage page": "serves until it is ended; test_page_command.py ends it",
    "openssl": "makes a key, as test_seals.py makes its own",
    "airflow dags delete": "the other tests look at that DAG; only its words are tried",
    "astro deploy": "needs an account",
    "astro dev init": "needs Docker",
    "astro dev start": "needs Docker",
    "aws": "needs an account; test_deploy.py checks the requests",
    "docker": "needs Docker; test_deploy.py checks what it builds and starts",
    "gcloud": "needs an account; test_platforms.py lays out the same folders",
    "helm": "needs a cluster; test_helm.py checks the values",
    "kubectl": "needs a cluster; test_deploy.py and test_helm.py check what it is given",
    "pg_dump": "is PostgreSQL's own, and not among the servers of the tests",
    "pip install": "fetches from a package index",
    "pip wheel": "fetches from a package index",
    "pre-commit install": "changes this repository",
    "cp": "changes the machine; test_deploy.py checks what is copied",
    "install": "changes the machine; test_deploy.py checks what is copied",
    "/opt/merchant-usage/bin/pip": "fetches from a package index",
    "python -m zipfile": "the standard library",
    "python3 -m venv": "the standard library",
    "systemctl": "needs root; test_deploy.py checks the units",
    "python -m merchant_usage": "the same as merchant-usage",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    page: str
    language: str
    text: str


def blocks(language: str) -> list[Block]:
    """All blocks of a language."""
    return [block for page in PAGES for block in _blocks(page) if block.language == language]


def grants(database: str) -> list[str]:
    """The statements for each role, of a database of this name in place of the one of the docs."""
    found = [block.text for block in blocks("sql") if block.page == "grants.md"]
    return [text.replace("DATABASE billing ", f"DATABASE {database} ") for text in found]


def commands() -> dict[str, str]:
    """Every command that is taught, and the first page that does."""
    taught: dict[str, str] = {}
    for block in blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                taught.setdefault(shlex.join(words), block.page)
    inline = {shlex.join(shlex.split(span)): page.name for page in PAGES for span in _spans(page)}
    whole = [*taught, *inline]
    for command, page_name in inline.items():
        is_name = command.count(" ") < WORDS_OF_A_NAME and any(longer.startswith(f"{command} ") for longer in whole)
        if not is_name:
            taught.setdefault(command, page_name)
    return taught


def commands_of(program: str) -> list[str]:
    """The commands of a program, but for those that no test runs."""
    return [command for command in commands() if command.startswith(f"{program} ") and why_not_run(command) is None]


def why_not_run(command: str) -> str | None:
    """Why no test runs a command; None if one does."""
    # What stands before it sets a variable: HYPOTHESIS_PROFILE=thorough ./run test
    plain = re.sub(r"^([A-Z_]+=\S+ )+", "", command)
    return next((why for begin, why in NOT_RUN.items() if f"{plain} ".startswith(f"{begin} ")), None)


def variables() -> list[tuple[str, str, str]]:
    """Page, name and value of every line of the environment."""
    lines = [(block.page, line) for block in blocks("ini") for line in block.text.splitlines()]
    return [(page, *_pair(line)) for page, line in lines if line and not line.startswith("#")]


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition("=")
    return name, value


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for _, language, body in re.findall(r"^( *)```(\S+)\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        yield Block(page.name, language, dedent(body))


def _spans(page: Path) -> Iterator[str]:
    """Inline code that begins as a command does."""
    text = re.sub(r"^( *)```\S+\n.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", text):
        plain = " ".join(span.split())
        if plain.partition(" ")[0] in PROGRAMS and " " in plain and "…" not in plain:
            yield plain
