"""Finds the SQL: one query a file under `include/sql`, named for what it does. A wheel carries it in the package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from psycopg import Connection

# A wheel carries the folder inside the package; a checkout, an image and a DAG bundle have it beside the package.
_IN_WHEEL = Path(__file__).parents[1] / "sql"
SQL_FOLDER = _IN_WHEEL if _IN_WHEEL.is_dir() else Path(__file__).parents[2] / "include" / "sql"


_cursors = count(1)


@cache
def query(name: str) -> bytes:
    """The text of `include/sql/{name}.sql`. Values reach it as bound parameters only."""
    return (SQL_FOLDER / f"{name}.sql").read_bytes()


def stream(conn: Connection, name: str, parameters: Mapping[str, Any], at_once: int) -> Iterator[tuple[Any, ...]]:
    """The rows of a query, so many at a time, however many there are. Needs a transaction.

    Several may be read at once, of one query too.
    """
    with conn.cursor(name=f"usage_{name}_{next(_cursors)}") as cursor:
        cursor.execute(query(name), parameters)
        while rows := cursor.fetchmany(at_once):
            yield from rows


def schema_files() -> list[Path]:
    """The schema's files in the order in which they are applied."""
    return sorted((SQL_FOLDER / "schema").glob("*.sql"))
