"""The demo keeps its Airflow database while that is of use, and no longer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import psycopg
import pytest

from local.demo.metadata import DATABASE, Metadata, mark_complete, open_metadata
from local.servers import Postgres

NOW = dt.datetime(2026, 11, 24, 0, 20, tzinfo=dt.UTC)


@pytest.fixture
def complete(postgres: Postgres) -> Iterator[Metadata]:
    """A metadata database as a demo leaves it."""
    made = open_metadata(postgres.url, NOW)
    with psycopg.connect(made.url, autocommit=True) as conn:
        conn.execute("CREATE TABLE dag_run (dag_id text, run_id text, state text)")
        conn.execute("INSERT INTO dag_run VALUES ('usage_aggregation', 'one', 'success')")
    mark_complete(postgres.url, made)
    yield made
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {DATABASE}")


def test_a_new_one_starts_two_hours_ago_even_across_midnight(complete: Metadata) -> None:
    assert complete.fresh
    assert complete.start == dt.datetime(2026, 11, 23, 22, tzinfo=dt.UTC)


@pytest.mark.parametrize("later", [dt.timedelta(), dt.timedelta(hours=3, minutes=40)])
def test_it_is_kept_with_its_start_date(postgres: Postgres, complete: Metadata, later: dt.timedelta) -> None:
    kept = open_metadata(postgres.url, NOW + later)
    assert (kept.fresh, kept.start, kept.earlier_runs) == (False, complete.start, frozenset({"one"}))


def test_an_old_one_is_replaced(postgres: Postgres, complete: Metadata) -> None:
    later = open_metadata(postgres.url, NOW + dt.timedelta(hours=4))
    assert later.fresh
    assert later.start == complete.start + dt.timedelta(hours=4)


@pytest.mark.parametrize("state", ["running", "queued", "failed"])
def test_one_with_a_run_that_did_not_end_well_is_replaced(postgres: Postgres, complete: Metadata, state: str) -> None:
    with psycopg.connect(complete.url, autocommit=True) as conn:
        conn.execute("INSERT INTO dag_run VALUES ('usage_aggregation', 'two', %s)", [state])
    assert open_metadata(postgres.url, NOW).fresh


def test_one_with_a_question_that_nobody_has_answered_is_kept(postgres: Postgres, complete: Metadata) -> None:
    with psycopg.connect(complete.url, autocommit=True) as conn:
        conn.execute("INSERT INTO dag_run VALUES ('usage_decisions', 'two', 'running')")
    kept = open_metadata(postgres.url, NOW)
    assert (kept.fresh, kept.earlier_runs) == (False, frozenset({"one"}))


def test_one_that_was_never_completed_is_replaced(postgres: Postgres, complete: Metadata) -> None:
    assert open_metadata(postgres.url, NOW + dt.timedelta(hours=9)).fresh
    assert open_metadata(postgres.url, complete.start + dt.timedelta(hours=2)).fresh
