"""Creates, migrates and checks the tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from psycopg import Connection, errors

from merchant_usage.errors import MIGRATE_COMMAND, SchemaError
from merchant_usage.sink import grants, ownership
from merchant_usage.sink.queries import query, schema_files
from merchant_usage.sink.transactions import transaction
from merchant_usage.text import escape

_TEXT, _WHEN, _COUNT = "text", "timestamp with time zone", "bigint"
_WINDOW: Final = {"value": "numeric", "days": "integer", "days_sealed": "integer", "closed": "boolean"}

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
        "redis_key_sha256": "bytea",
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
        "attempt": "integer",
        "requested_by": _TEXT,
        "complete": "boolean",
        "key_prefix": _TEXT,
        "timezone": _TEXT,
        "settle_hours": "integer",
        "retention_days": "integer",
    },
    "usage_reading": {
        "run_id": _TEXT,
        "date": "date",
        "read_at": _WHEN,
        "attempt": "integer",
        "batch": "integer",
        "page": "bytea",
        "keys": _TEXT,
        "counters": _TEXT,
        "number": "integer",
    },
    "usage_decision": {
        "redis_key": "bytea",
        "usage_date": "date",
        "decision": _TEXT,
        "decided_by": _TEXT,
        "decided_at": _WHEN,
        "reason": _TEXT,
        "approved_by": _TEXT,
        "approved_at": _WHEN,
        "value_before": _COUNT,
        "value_after": _COUNT,
        "proposal_id": _COUNT,
        "approval_reason": _TEXT,
    },
    "usage_proposal": {
        "id": _COUNT,
        "letter_id": _COUNT,
        "redis_key": "bytea",
        "usage_date": "date",
        "proposed_by": _TEXT,
        "proposed_at": _WHEN,
        "reason": _TEXT,
        "redis_value": _COUNT,
        "value_before": _COUNT,
        "value_after": _COUNT,
    },
    "usage_deletion": {
        "merchant_id": _TEXT,
        "date": "date",
        "metric_type": _TEXT,
        "value": _COUNT,
        "begun_at": _WHEN,
    },
    "usage_absence": {
        "date": "date",
        "merchant_id": _TEXT,
        "metric_type": _TEXT,
        "seen_at": _WHEN,
    },
    "usage_hourly_history": {
        "held_since": _WHEN,
        "metric_value": _COUNT,
        "date": "date",
        "correction": "boolean",
        "merchant_id": _TEXT,
        "metric_type": _TEXT,
    },
    "usage_source": {
        "server": _TEXT,
        "redis_run_id": _TEXT,
        "evicted_keys": _COUNT,
        "seen_at": _WHEN,
    },
    "usage_seal": {
        "seal_number": _COUNT,
        "usage_date": "date",
        "version": "integer",
        "sealed_at": _WHEN,
        "run_id": _TEXT,
        "counters": _COUNT,
        "total": "numeric",
        "root": "bytea",
        "chain": "bytea",
        "signature": "bytea",
        "reason": _TEXT,
    },
    "usage_seal_page": {
        "usage_date": "date",
        "version": "integer",
        "page": _COUNT,
        "merchant_ids": "text[]",
        "totals": "numeric[]",
        "leaves": "bytea",
    },
    "usage_correction": {
        "merchant_id": _TEXT,
        "usage_date": "date",
        "version": "integer",
        "total_before": "numeric",
        "total_after": "numeric",
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

#: What people read; no run needs them, so that none waits until they are made again.
VIEWS: Final[dict[str, dict[str, str]]] = {
    "merchant_usage_hourly": {
        "merchant_id": _TEXT,
        "date": "date",
        "metric_type": _TEXT,
        "from_at": _WHEN,
        "to_at": _WHEN,
        "metric_value": _COUNT,
        "correction": "boolean",
    },
    "usage_sealed_date": {"usage_date": "date"},
    "merchant_usage_weekly": {"merchant_id": _TEXT, "week": "date", "metric_type": _TEXT, **_WINDOW},
    "merchant_usage_corrections": {
        "merchant_id": _TEXT,
        "usage_date": "date",
        "month": "date",
        "corrected_at": _WHEN,
        "version": "integer",
        "reason": _TEXT,
        "before": "numeric",
        "after": "numeric",
        "difference": "numeric",
    },
    "merchant_usage_monthly": {
        "merchant_id": _TEXT,
        "month": "date",
        "metric_type": _TEXT,
        **_WINDOW,
        "merchant_corrected": "numeric",
        "merchant_corrected_at": _WHEN,
    },
    "usage_explained": {
        "merchant_id": _TEXT,
        "date": "date",
        "metric_type": _TEXT,
        "happened_at": _WHEN,
        "kind": _TEXT,
        "by_whom": _TEXT,
        "value_before": "numeric",
        "value_after": "numeric",
        "told": _TEXT,
    },
}

USAGE: Final = "merchant_usage"
UNIQUE_KEY: Final = ["date", "merchant_id", "metric_type"]


_MISSING: Final = " is missing"


def migrate(conn: Connection) -> list[str]:
    """Bring the schema up to date; safe to call twice and from two processes at once.

    Returns the names of the files applied. All or nothing: one transaction under an advisory lock.

    Raises:
        SchemaError: an existing table cannot be used; it is left as it was.
        PostgresRefused: this role is not the owner of a table, or may make none; nothing is changed.
    """
    try:
        with transaction(conn):
            conn.execute(query("lock_schema"))
            ownership.require_owner(conn, EXPECTED | VIEWS)
            _refuse(_lasting_problems(conn))
            for path in schema_files():
                conn.execute(path.read_bytes())
            grants.require(conn, grants.STATUS)
            ownership.require_one_schema(conn, EXPECTED | VIEWS)
            _refuse(_problems(conn) + _column_problems(conn, VIEWS))
    except (errors.UndefinedTable, errors.UndefinedColumn) as error:
        existing = {table: columns for table, columns in EXPECTED.items() if _exists(conn, table)}
        said = f"PostgreSQL says: {escape(error.diag.message_primary or '')}"
        raise SchemaError(_sentence([*_column_problems(conn, existing), said])) from None
    return [path.stem for path in schema_files()]


def problems_of_usage_table(conn: Connection) -> list[str] | None:
    """What keeps a merchant_usage that is there already from being used; None if there is none."""
    return _lasting_problems(conn) if _exists(conn, USAGE) else None


def missing(conn: Connection) -> list[str]:
    """What `migrate` would add to a merchant_usage that can be used."""
    return [problem.removesuffix(_MISSING) for problem in _column_problems(conn, EXPECTED) if _MISSING in problem]


def check(conn: Connection, rights: grants.Rights = grants.STATUS) -> None:
    """Make sure that the tables are what this package writes to, and that this role may do its work with them.

    Args:
        rights: those that the work needs.

    Raises:
        SchemaError: naming all that is missing or of another type, and the command that mends it, if it can.
        PostgresRefused: naming each right that is missing, and the GRANT for it.
    """
    # Before the columns: a table in a schema that one may not look into seems to be missing.
    grants.require(conn, rights)
    ownership.require_one_schema(conn, EXPECTED)
    if problems := _problems(conn):
        _refuse(_lasting_problems(conn))
        can_help = any(_MISSING in problem for problem in problems)
        raise SchemaError(_sentence(problems) + (f" To create what is missing: {MIGRATE_COMMAND}" if can_help else ""))


def _refuse(problems: list[str]) -> None:
    if problems:
        raise SchemaError(_sentence(problems))


def _sentence(problems: list[str]) -> str:
    return f"The schema in PostgreSQL cannot be used: {'; '.join(problems)}."


def _problems(conn: Connection) -> list[str]:
    problems = _encoding_problems(conn) + _column_problems(conn, EXPECTED) + _key_problems(conn)
    return problems or _null_problems(conn)


def _lasting_problems(conn: Connection) -> list[str]:
    """What a migration cannot mend. To the application's table it adds nothing but `carried`."""
    if not _exists(conn, USAGE):
        return _encoding_problems(conn) + _lookalike_problems(conn)
    to_be_added = f"column {USAGE}.carried ({_COUNT}) is missing"
    problems = _column_problems(conn, {USAGE: EXPECTED[USAGE]})
    return _encoding_problems(conn) + [each for each in problems if each != to_be_added] + _key_problems(conn)


def _lookalike_problems(conn: Connection) -> list[str]:
    """Beside the table of an ORM, which the application writes to, an empty merchant_usage would look right."""
    columns = ", ".join(f"{name} {type_}" for name, type_ in EXPECTED[USAGE].items() if name != "carried")
    return [
        f"table {USAGE} is missing, but there is {name}, as an ORM names it: let the ORM map it to a table {USAGE} "
        f"({columns}) with a unique key on ({', '.join(UNIQUE_KEY)}), and rename what is there (ALTER TABLE {name} "
        f"RENAME TO {USAGE}, and RENAME COLUMN); if it is something else, first apply 001_merchant_usage.sql by hand"
        for (name,) in conn.execute(query("select_lookalikes"))
    ]


def _encoding_problems(conn: Connection) -> list[str]:
    row = conn.execute(query("show_server_encoding")).fetchone()
    encoding = row[0] if row else None
    return [] if encoding == "UTF8" else [f"the database's encoding is {encoding}, it must be UTF8"]


def _exists(conn: Connection, table: str) -> bool:
    return conn.execute(query("select_schema_columns"), {"tables": [table]}).rowcount > 0


def _column_problems(conn: Connection, expected: dict[str, dict[str, str]]) -> list[str]:
    found: dict[str, dict[str, str]] = {}
    problems: list[str] = []
    for table, column, type_, must_be_given, merging_collation in conn.execute(
        query("select_schema_columns"), {"tables": list(expected)}
    ):
        found.setdefault(table, {})[column] = type_
        if must_be_given and column not in expected[table] and _plain(column) not in map(_plain, expected[table]):
            problems.append(f"column {table}.{column} is NOT NULL without a default, which we cannot fill")
        if merging_collation and column in expected[table]:
            problems.append(
                f"column {table}.{column} has the collation {merging_collation}, which takes different ids for the "
                "same, and any deterministic collation will do "
                f'(ALTER TABLE {table} ALTER COLUMN {column} TYPE text COLLATE "C")'
            )
    for table, columns in expected.items():
        if table not in found:
            problems.append(f"table {table}{_MISSING}")
            continue
        for column, type_ in columns.items():
            actual = found[table].get(column)
            if actual is None:
                problems.append(f"column {table}.{column} ({type_}){_MISSING}{_renaming(table, column, found[table])}")
            elif actual != type_:
                problems.append(f"column {table}.{column} is {actual}, it must be {type_}")
    return problems


def _renaming(table: str, column: str, found: Iterable[str]) -> str:
    """How a column gets its name that an ORM has written together: "merchantId"."""
    for other in found:
        if other not in EXPECTED[table] and _plain(other) == _plain(column):
            return f', but there is "{other}" (ALTER TABLE {table} RENAME COLUMN "{other}" TO {column})'
    return ""


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _null_problems(conn: Connection) -> list[str]:
    """A value that is NULL equals nothing and is no number to raise. Looked for only where the column allows it."""
    if conn.execute(query("select_value_may_be_null")).fetchone() is None:
        return []
    row = conn.execute(query("select_null_value")).fetchone()
    return [f"column merchant_usage.{row[0]} holds NULL, it must hold a number"] if row is not None else []


def _key_problems(conn: Connection) -> list[str]:
    keys = conn.execute(query("select_usage_unique_keys")).fetchall()
    # A key on columns that are to be renamed is renamed with them.
    names = [sorted(map(_plain, columns)) for columns, _ in keys]
    if _exists(conn, USAGE) and sorted(map(_plain, UNIQUE_KEY)) not in names:
        return ["merchant_usage has no unique key on exactly (merchant_id, date, metric_type)"]
    return [
        f"the unique key of merchant_usage on ({', '.join(columns)}) has the collation {merging_collation}, which "
        "takes different ids for the same, and any deterministic collation will do"
        for columns, merging_collation in keys
        if merging_collation and set(columns) <= set(UNIQUE_KEY)
    ]
