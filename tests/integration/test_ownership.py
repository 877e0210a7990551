"""Tables that stand there but belong to someone else, or hide those that are meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import Connection

from merchant_usage.connections import prepare
from merchant_usage.driver_errors import explained
from merchant_usage.errors import PostgresRefused, SchemaError
from merchant_usage.sink import schema
from tests.support import TABLES

PASSWORD = "a-password"
OWNER, OTHER = "usage_owner_of_tests", "usage_other_of_tests"

EVERYTHING = """
SELECT n.nspname, c.relname, c.relowner, c.xmin::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT starts_with(n.nspname, 'pg_')
ORDER BY 1, 2
"""

# The statements that give a role all there is.
OWN = """
SELECT format('ALTER TABLE %%s OWNER TO %%I', oid::regclass, %s::text) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v')
UNION ALL
SELECT format('ALTER FUNCTION %%s OWNER TO %%I', oid::regprocedure, %s::text) FROM pg_proc
WHERE pronamespace = 'public'::regnamespace
"""


@pytest.fixture
def owned(database: Connection) -> Iterator[Connection]:
    """A database whose tables belong to a role that is no superuser; the connection is a superuser's."""
    database.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    for role in (OWNER, OTHER):
        database.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'".encode())
        database.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {role}".encode())
    for (statement,) in database.execute(OWN, [OWNER, OWNER]).fetchall():
        database.execute(statement.encode())
    yield database
    for role in (OWNER, OTHER):
        database.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}".encode())


@contextmanager
def connected(role: str, database_url: str, search_path: str | None = None) -> Iterator[Connection]:
    url = re.sub("//[^@]+@", f"//{role}:{PASSWORD}@", database_url)
    options = f"-c search_path={search_path}" if search_path else ""
    with explained(), psycopg.connect(url, autocommit=True, options=options) as conn:
        yield prepare(conn)


def everything(conn: Connection) -> list[tuple[object, ...]]:
    return conn.execute(EVERYTHING).fetchall()


@pytest.mark.parametrize("table", TABLES)
def test_table_of_another_owner_is_named_and_nothing_is_changed(
    owned: Connection, database_url: str, table: str
) -> None:
    owned.execute(f"ALTER TABLE {table} OWNER TO {OTHER}".encode())
    missing = "usage_source" if table != "usage_source" else "usage_alert"
    owned.execute(f"DROP TABLE {missing}".encode())
    before = everything(owned)
    with connected(OWNER, database_url) as conn, pytest.raises(PostgresRefused) as raised:
        schema.migrate(conn)
    assert not raised.value.heals
    assert str(raised.value).startswith(
        f"The PostgreSQL role {OWNER} may not migrate, and nothing was changed: public.{table} belongs to {OTHER}. "
        f"Run merchant-usage migrate as {OTHER}."
    )
    assert everything(owned) == before


def test_several_owners_are_all_named(owned: Connection, database_url: str) -> None:
    owned.execute(f"ALTER TABLE usage_run OWNER TO {OTHER}".encode())
    owned.execute("CREATE ROLE usage_third_of_tests LOGIN PASSWORD 'a-password'")
    owned.execute("GRANT USAGE, CREATE ON SCHEMA public TO usage_third_of_tests")
    try:
        with connected("usage_third_of_tests", database_url) as conn, pytest.raises(PostgresRefused) as raised:
            schema.migrate(conn)
    finally:
        owned.execute("DROP OWNED BY usage_third_of_tests; DROP ROLE usage_third_of_tests")
    assert f"public.usage_run belongs to {OTHER}." in str(raised.value)
    assert "public.usage_alert, public.usage_dead_letter" in str(raised.value)
    assert f"Run merchant-usage migrate as a role that is a member of {OTHER} and {OWNER}." in str(raised.value)


def test_member_of_the_owner_may_migrate(owned: Connection, database_url: str) -> None:
    owned.execute(f"ALTER TABLE merchant_usage OWNER TO {OTHER}; GRANT {OTHER} TO {OWNER}".encode())
    with connected(OWNER, database_url) as conn:
        schema.migrate(conn)


def test_schema_in_which_nothing_may_be_made_is_named(owned: Connection, database_url: str) -> None:
    owned.execute(f"REVOKE CREATE ON SCHEMA public FROM {OWNER}".encode())
    with connected(OWNER, database_url) as conn, pytest.raises(PostgresRefused) as raised:
        schema.migrate(conn)
    assert str(raised.value).endswith(
        "may not migrate, and nothing was changed: it lacks CREATE on schema public. What gives it, said by the owner "
        f"of the schema: GRANT CREATE ON SCHEMA public TO {OWNER};"
    )


def test_search_path_without_a_schema_is_told(owned: Connection, database_url: str) -> None:
    del owned
    with connected(OWNER, database_url, "nowhere") as conn, pytest.raises(SchemaError) as raised:
        schema.migrate(conn)
    assert str(raised.value) == "There is no schema to make tables in: search_path is nowhere."


@pytest.fixture
def hidden(owned: Connection) -> Connection:
    """The same, where another's schema has a table of our name."""
    owned.execute(f"CREATE SCHEMA {OTHER} AUTHORIZATION {OTHER}; GRANT USAGE ON SCHEMA {OTHER} TO PUBLIC".encode())
    owned.execute(f"CREATE TABLE {OTHER}.usage_run (LIKE public.usage_run INCLUDING ALL)".encode())
    owned.execute(f"ALTER TABLE {OTHER}.usage_run OWNER TO {OTHER}".encode())
    return owned


def test_table_of_the_same_name_that_comes_first_is_named(hidden: Connection, database_url: str) -> None:
    told = f"{OTHER}.usage_run, which belongs to {OTHER}, hides public.usage_run, which belongs to {OWNER}"
    before = everything(hidden)
    with connected(OWNER, database_url, f"{OTHER},public") as conn:
        with pytest.raises(PostgresRefused) as raised:
            schema.migrate(conn)
        assert f"{OTHER}.usage_run belongs to {OTHER}." in str(raised.value)
        assert told in str(raised.value)
        with pytest.raises(SchemaError) as unusable:
            schema.check(conn, frozenset())
        assert told in str(unusable.value)
        assert "search_path" in str(unusable.value)
    assert everything(hidden) == before


def test_table_of_the_same_name_that_comes_later_is_let_be(hidden: Connection, database_url: str) -> None:
    del hidden
    with connected(OWNER, database_url, f"public,{OTHER}") as conn:
        schema.migrate(conn)
        schema.check(conn)


def test_no_second_table_is_made_before_that_of_the_application(
    empty_database: Connection,
) -> None:
    """It would be empty, and filled from then on."""
    empty_database.execute(
        "CREATE TABLE merchant_usage (merchant_id text, date date, metric_type text, metric_value bigint,"
        " created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(),"
        " PRIMARY KEY (merchant_id, date, metric_type));"
        "CREATE SCHEMA billing; SET search_path TO billing, public"
    )
    before = everything(empty_database)
    with pytest.raises(SchemaError) as raised:
        schema.migrate(empty_database)
    assert (
        "a table that is made now is made in billing (search_path: billing, public), and hides public.merchant_usage"
        in str(raised.value)
    )
    assert everything(empty_database) == before
