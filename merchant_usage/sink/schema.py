"""Creates, migrates and checks the tables."""

from __future__ import annotations

from typing import Final

from psycopg import Connection

from merchant_usage.errors import MIGRATE_COMMAND, SchemaError
from merchant_usage.sink.queries import query, schema_files

_TEXT, _WHEN, _COUNT = "text", "timestamp with time zone", "bigint"

EXPECTED: Final[dict[str, dict[str, str]]] = {
    "merchant_usage": {
        "merchant_id": _TEXT,
        "date": "date",
        "metric_type": _TEXT,
        "metric_value": _COUNT,
        "carried": _COUNT,
        "created_at": _WHEN,
        "updated_at": _WHEN,
    },
    "usage_dead_letter": {
        "redis_key": "bytea",
        "reason": _TEXT,
        "detail": _TEXT,
        "usage_date": "date",
        "first_seen_at": _WHEN,
        "last_seen_at": _WHEN,
        "attempts": "integer",
        "resolved_at": _WHEN,
        "redis_value": _COUNT,
        "postgres_value": _COUNT,
        "decision": _TEXT,
        "told_at": _WHEN,
    },
    "usage_run": {
        "run_id": _TEXT,
        "usage_date": "date",
        "run_type": _TEXT,
        "merchant_ids": "text[]",
        "settled": "boolean",
        "started_at": _WHEN,
        "finished_at": _WHEN,
        "keys_scanned": _COUNT,
        "merchants": _COUNT,
        "rows_inserted": _COUNT,
        "rows_updated": _COUNT,
        "rows_unchanged": _COUNT,
        "dead_letters": _COUNT,
        "regressed": _COUNT,
        "redis_total": "numeric",
        "postgres_total": "numeric",
        "verdict": _TEXT,
        "error": _TEXT,
    },
    "usage_reading": {
        "run_id": _TEXT,
        "merchant_id": _TEXT,
        "date": "date",
        "metric_type": _TEXT,
        "value": _COUNT,
        "read_at": _WHEN,
    },
    "usage_alert": {
        "alert_key": _TEXT,
        "kind": _TEXT,
        "run_id": _TEXT,
        "raised_at": _WHEN,
        "told": "boolean",
        "resolved_at": _WHEN,
    },
}

UNIQUE_KEY: Final = ["date", "merchant_id", "metric_type"]


def migrate(conn: Connection) -> list[str]:
    """Bring the schema up to date; safe to call twice and from two processes at once.

    Returns the names of the files applied. All or nothing: one transaction under an advisory lock.

    Raises:
        SchemaError: an existing table cannot be used; it is left as it was.
    """
    with conn.transaction():
        conn.execute(query("lock_schema"))
        # Before anything is laid over the application's table; `carried` is what it cannot have yet.
        if _exists(conn, "merchant_usage"):
            expected = {name: type_ for name, type_ in EXPECTED["merchant_usage"].items() if name != "carried"}
            _refuse(_column_problems(conn, {"merchant_usage": expected}) + _key_problems(conn))
        for path in schema_files():
            conn.execute(path.read_bytes())
        check(conn)
    return [path.stem for path in schema_files()]


def check(conn: Connection) -> None:
    """Make sure that the tables are what this package writes to.

    Raises:
        SchemaError: naming all that is missing or of another type, and the command that mends it.
    """
    _refuse(_encoding_problems(conn) + _column_problems(conn, EXPECTED) + _key_problems(conn))


def _refuse(problems: list[str]) -> None:
    if problems:
        raise SchemaError(
            f"The schema in PostgreSQL cannot be used: {'; '.join(problems)}. "
            f"To create what is missing: {MIGRATE_COMMAND}"
        )


def _encoding_problems(conn: Connection) -> list[str]:
    row = conn.execute(query("show_server_encoding")).fetchone()
    encoding = row[0] if row else None
    return [] if encoding == "UTF8" else [f"the database's encoding is {encoding}, it must be UTF8"]


def _exists(conn: Connection, table: str) -> bool:
    return conn.execute(query("select_schema_columns"), {"tables": [table]}).rowcount > 0


def _column_problems(conn: Connection, expected: dict[str, dict[str, str]]) -> list[str]:
    found: dict[str, dict[str, str]] = {}
    problems: list[str] = []
    for table, column, type_, must_be_given, deterministic in conn.execute(
        query("select_schema_columns"), {"tables": list(expected)}
    ):
        found.setdefault(table, {})[column] = type_
        if must_be_given and column not in EXPECTED[table]:
            problems.append(f"column {table}.{column} is NOT NULL without a default, which we cannot fill")
        if not deterministic and column in EXPECTED[table]:
            problems.append(f"column {table}.{column} has a collation that takes different ids for the same")
    for table, columns in expected.items():
        if table not in found:
            problems.append(f"table {table} is missing")
            continue
        for column, type_ in columns.items():
            actual = found[table].get(column)
            if actual is None:
                problems.append(f"column {table}.{column} ({type_}) is missing")
            elif actual != type_:
                problems.append(f"column {table}.{column} is {actual}, it must be {type_}")
    return problems


def _key_problems(conn: Connection) -> list[str]:
    keys = [row[0] for row in conn.execute(query("select_usage_unique_keys"))]
    if UNIQUE_KEY in keys or not _exists(conn, "merchant_usage"):
        return []
    return ["merchant_usage has no unique key on exactly (merchant_id, date, metric_type)"]
