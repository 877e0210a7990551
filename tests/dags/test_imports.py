"""Imports flow one way: dags, plugins, local -> include.orchestration -> include.usage; Airflow stops at the last."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.support import PROJECT

# Each room, and what of this project it may import. The longest name that fits is a file's room.
MAY_IMPORT = {
    "dags": {"include.orchestration", "include.usage"},
    "plugins": {"include.orchestration", "include.usage"},
    "local": {"local", "include.orchestration", "include.usage"},
    "include": {"include"},
    "include.orchestration": {"include.orchestration", "include.usage"},
    "include.usage": {"include.usage"},
}
OURS = {"dags", "plugins", "local", "include", "tests", "bench"}
WITHOUT_AIRFLOW = {"include", "include.usage"}


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


FILES = sorted(path for room in ("dags", "plugins", "local", "include") for path in (PROJECT / room).rglob("*.py"))


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
        ("include.usage.store", "from airflow.sdk import dag", ["airflow.sdk.dag"]),
        ("include.usage.store", "def f():\n    import airflow", ["airflow"]),
        ("include.usage.store", "from include.orchestration import steps", ["include.orchestration.steps"]),
        ("include.usage.store", "from include import orchestration", ["include.orchestration"]),
        ("include.usage.store", "import local.servers", ["local.servers"]),
        ("include.orchestration.steps", "from tests.support import key", ["tests.support.key"]),
        ("include.orchestration.steps", "import airflow; from include.usage.store import x", []),
        ("dags.usage_aggregation", "from local.demo import x", ["local.demo.x"]),
        ("local.demo", "from dags import usage_aggregation", ["dags.usage_aggregation"]),
        ("plugins.page", "from include.usage import ledger; import airflow", []),
    ],
)
def test_the_law_is_enforced(module: str, source: str, found: list[str]) -> None:
    assert violations(module, source) == found
