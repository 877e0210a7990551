"""Imports flow one way: dags, plugins, local -> orchestration -> pipeline, cli, page -> steps -> source, sink -> model.

The command `page` serves the page, so the command line may know it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PROJECT

PACKAGE = "merchant_usage"
ANYWHERE = {f"{PACKAGE}.{name}" for name in ("clock", "errors", "log", "settings", "text")}
MODEL = ANYWHERE | {f"{PACKAGE}.model"}
ONE_SIDE = MODEL | {f"{PACKAGE}.driver_errors"}
STEPS = ONE_SIDE | {f"{PACKAGE}.{name}" for name in ("source", "sink", "steps")}
PIPELINE = STEPS | {f"{PACKAGE}.{name}" for name in ("connections", "tables", "pipeline")}

# Each room, and what of this project it may import. The longest name that fits is a file's room.
MAY_IMPORT = {
    **dict.fromkeys(ANYWHERE, ANYWHERE),
    PACKAGE: set(),
    f"{PACKAGE}.__main__": {f"{PACKAGE}.cli"},
    f"{PACKAGE}.model": MODEL,
    f"{PACKAGE}.driver_errors": ANYWHERE,
    f"{PACKAGE}.source": MODEL | {f"{PACKAGE}.source"},
    f"{PACKAGE}.sink": ONE_SIDE | {f"{PACKAGE}.sink"},
    f"{PACKAGE}.steps": STEPS,
    f"{PACKAGE}.connections": ONE_SIDE | {f"{PACKAGE}.source", f"{PACKAGE}.sink.queries"},
    f"{PACKAGE}.tables": MODEL,
    f"{PACKAGE}.pipeline": STEPS,
    f"{PACKAGE}.alerts": STEPS | {f"{PACKAGE}.alerts"},
    f"{PACKAGE}.page": PIPELINE | {f"{PACKAGE}.page"},
    # The command that serves the page.
    f"{PACKAGE}.cli": PIPELINE | {f"{PACKAGE}.cli", f"{PACKAGE}.page", f"{PACKAGE}.__version__"},
    f"{PACKAGE}.orchestration": PIPELINE | {f"{PACKAGE}.alerts", f"{PACKAGE}.page", f"{PACKAGE}.orchestration"},
    "dags": {PACKAGE},
    "plugins": {PACKAGE},
    "deploy": {PACKAGE},
    "local": {"local", PACKAGE},
}
OURS = {PACKAGE, "dags", "deploy", "plugins", "local", "include", "tests", "bench"}
WITH_AIRFLOW = {f"{PACKAGE}.orchestration", "dags", "plugins", "local"}
DRIVERS = {"redis", "hiredis", "psycopg"}
WITHOUT_REDIS = {f"{PACKAGE}.model", f"{PACKAGE}.sink", f"{PACKAGE}.tables", f"{PACKAGE}.alerts"} | ANYWHERE
WITHOUT_POSTGRES = {f"{PACKAGE}.model", f"{PACKAGE}.source", f"{PACKAGE}.tables"} | ANYWHERE


def room_of(module: str) -> str:
    """The room that a module lies in."""
    return max((room for room in MAY_IMPORT if f"{module}.".startswith(f"{room}.")), key=len)


def imported(source: str) -> set[str]:
    """Every module that a file names in an import, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def violations(module: str, source: str) -> list[str]:
    """What this module imports against the law."""
    room = room_of(module)

    def is_lawful(name: str) -> bool:
        root = name.split(".")[0]
        if root == "airflow":
            return room in WITH_AIRFLOW
        if root in {"redis", "hiredis"}:
            return room not in WITHOUT_REDIS
        if root == "psycopg":
            return room not in WITHOUT_POSTGRES
        return root not in OURS or any(f"{name}.".startswith(f"{allowed}.") for allowed in MAY_IMPORT[room])

    return sorted(name for name in imported(source) if not is_lawful(name))


FILES = sorted(
    path for room in ("dags", "deploy", "plugins", "local", PACKAGE) for path in (PROJECT / room).rglob("*.py")
)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_flow_one_way(path: Path) -> None:
    assert violations(module_of(path), path.read_text(encoding="utf-8")) == []


def test_every_room_was_looked_at() -> None:
    assert {room_of(module_of(path)) for path in FILES} >= set(MAY_IMPORT) - {"plugins"}


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("merchant_usage.steps.store", "from airflow.sdk import dag", ["airflow.sdk.dag"]),
        ("merchant_usage.cli.main", "def f():\n    import airflow", ["airflow"]),
        (
            "merchant_usage.steps.store",
            "from merchant_usage.orchestration import tasks",
            ["merchant_usage.orchestration.tasks"],
        ),
        ("merchant_usage.steps.store", "from merchant_usage import pipeline", ["merchant_usage.pipeline"]),
        ("merchant_usage.sink.ledger", "from merchant_usage.source import cluster", ["merchant_usage.source.cluster"]),
        ("merchant_usage.source.cluster", "from merchant_usage.sink import ledger", ["merchant_usage.sink.ledger"]),
        ("merchant_usage.source.cluster", "import psycopg", ["psycopg"]),
        ("merchant_usage.sink.ledger", "import redis", ["redis"]),
        ("merchant_usage.model.keys", "from psycopg import Connection", ["psycopg.Connection"]),
        ("merchant_usage.model.keys", "from merchant_usage.steps import scan", ["merchant_usage.steps.scan"]),
        ("merchant_usage.steps.store", "import local.servers", ["local.servers"]),
        ("merchant_usage.orchestration.tasks", "from tests.support import key", ["tests.support.key"]),
        ("merchant_usage.orchestration.tasks", "import airflow; from merchant_usage.steps.store import x", []),
        ("dags.usage_aggregation", "from local.demo import x", ["local.demo.x"]),
        ("local.demo", "from dags import usage_aggregation", ["dags.usage_aggregation"]),
        ("plugins.page", "from merchant_usage.sink import ledger; import airflow", []),
    ],
)
def test_the_law_is_enforced(module: str, source: str, found: list[str]) -> None:
    assert violations(module, source) == found


@pytest.mark.parametrize(
    "module",
    [
        *sorted(module_of(path) for path in FILES if "model" in path.parts),
        "merchant_usage.alerts.slack_message",
        "merchant_usage.alerts.register",
    ],
)
def test_no_driver_is_loaded_by_rules_and_texts(module: str) -> None:
    look = f"import sys, {module}; print(sorted({DRIVERS!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.strip() == "[]"
