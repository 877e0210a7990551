"""Imports flow one way: dags, plugins, local -> orchestration -> the rest of the package; Airflow stops there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support import PROJECT

# The package without the room that meets Airflow.
ENGINE = {
    f"merchant_usage.{name}"
    for name in (
        *("model", "source", "sink", "steps", "alerts", "cli"),
        *("clock", "connections", "driver_errors", "errors", "log", "pipeline", "settings", "tables", "text"),
    )
}

# Each room, and what of this project it may import. The longest name that fits is a file's room.
MAY_IMPORT = {
    "dags": {"merchant_usage"},
    "plugins": {"merchant_usage"},
    "local": {"local", "merchant_usage"},
    "merchant_usage": ENGINE,
    "merchant_usage.orchestration": {"merchant_usage"},
}
OURS = {"dags", "plugins", "local", "merchant_usage", "tests", "bench"}
WITHOUT_AIRFLOW = {"merchant_usage"}


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
            return room not in WITHOUT_AIRFLOW
        return root not in OURS or any(f"{name}.".startswith(f"{allowed}.") for allowed in MAY_IMPORT[room])

    return sorted(name for name in imported(source) if not is_lawful(name))


FILES = sorted(
    path for room in ("dags", "plugins", "local", "merchant_usage") for path in (PROJECT / room).rglob("*.py")
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
        ("merchant_usage.steps.store", "def f():\n    import airflow", ["airflow"]),
        (
            "merchant_usage.steps.store",
            "from merchant_usage.orchestration import tasks",
            ["merchant_usage.orchestration.tasks"],
        ),
        ("merchant_usage.steps.store", "from merchant_usage import orchestration", ["merchant_usage.orchestration"]),
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
