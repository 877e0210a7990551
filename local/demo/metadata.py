"""The database of Airflow's metadata: kept from one demo to the next while it is of use, and else made anew."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import psycopg
from psycopg import Connection, sql

from local.connections import with_database
from local.demo.errors import DemoError
from merchant_usage.settings import DAG_ID

DATABASE: Final = "airflow_usage_demo"
# The DAG's first interval begins so long before now: two runs to catch up.
START_AGE: Final = dt.timedelta(hours=2)
# An older start would mean many runs to catch up.
MAX_START_AGE: Final = dt.timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where it is, the DAG's start date that belongs to it, and the runs that earlier demos left in it."""

    url: str
    start: dt.datetime
    earlier_runs: frozenset[str]
    fresh: bool


def open_metadata(postgres_url: str, now: dt.datetime) -> Metadata:
    """Find the metadata database, or make it.

    It is kept if its start date is recent, its Airflow is this one, and all runs that aggregate ended well: a demo that
    was killed leaves runs that nobody would finish. (A question that nobody has answered yet is no such run.) The start
    date is kept as the database's comment, so neither ever lives without the other.

    Raises:
        DemoError: the database cannot be made or replaced.
    """
    url = with_database(postgres_url, DATABASE)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        start = _start_of_kept(admin, now)
        runs = None if start is None else _runs_if_all_succeeded(url)
        if start is not None and runs is not None:
            return Metadata(url, start, runs, fresh=False)
        try:
            admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(DATABASE)))
            admin.execute(
                sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0").format(sql.Identifier(DATABASE))
            )
        except psycopg.Error as error:
            raise DemoError(
                f"The database {DATABASE}, for Airflow's metadata, cannot be made: "
                f"{error.diag.message_primary or error}. The PostgreSQL user needs CREATEDB, and no other demo may be "
                "using that database. Without USAGE_POSTGRES_URL the demo starts a PostgreSQL of its own."
            ) from None
    start = (now - START_AGE).replace(minute=0, second=0, microsecond=0)
    return Metadata(url, start, frozenset(), fresh=True)


def mark_complete(postgres_url: str, metadata: Metadata) -> None:
    """Note that the tables are all there, and from when on the DAG runs. Without this the database is not kept."""
    note = json.dumps({"start": metadata.start.isoformat(), "airflow": version("apache-airflow")})
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(DATABASE), sql.Literal(note)))


def _start_of_kept(admin: Connection, now: dt.datetime) -> dt.datetime | None:
    found: Any = admin.execute(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", [DATABASE]
    ).fetchone()
    try:
        note = json.loads(found[0])
        start = dt.datetime.fromisoformat(note["start"])
        known = note["airflow"] == version("apache-airflow")
    except (TypeError, ValueError, KeyError):  # no database, no note, or not ours
        return None
    return start if known and START_AGE <= now - start <= MAX_START_AGE else None


def _runs_if_all_succeeded(url: str) -> frozenset[str] | None:
    try:
        with psycopg.connect(url) as conn:
            runs = conn.execute("SELECT run_id, state FROM dag_run WHERE dag_id = %s", [DAG_ID]).fetchall()
    except psycopg.Error:
        return None
    return frozenset(run_id for run_id, _ in runs) if all(state == "success" for _, state in runs) else None
