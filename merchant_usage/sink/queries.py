"""Finds the SQL: one query a file under `include/sql`, named for what it does. A wheel carries it in the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# A wheel carries the folder inside the package; a checkout, an image and a DAG bundle have it beside the package.
_IN_WHEEL = Path(__file__).parents[1] / "sql"
SQL_FOLDER = _IN_WHEEL if _IN_WHEEL.is_dir() else Path(__file__).parents[2] / "include" / "sql"


@cache
def query(name: str) -> bytes:
    """The text of `include/sql/{name}.sql`. Values reach it as bound parameters only."""
    return (SQL_FOLDER / f"{name}.sql").read_bytes()


def schema_files() -> list[Path]:
    """The schema's files in the order in which they are applied."""
    return sorted((SQL_FOLDER / "schema").glob("*.sql"))
