"""PostgreSQL's now() is the test's: a function of that name is found before it, by the defaults of columns too."""

from __future__ import annotations

import datetime as dt

from psycopg import Connection

_NOW = """
CREATE SCHEMA clock;
CREATE TABLE clock.present (at timestamptz);
INSERT INTO clock.present VALUES (now());
CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM clock.present';
DO $$
DECLARE
    of_column record;
BEGIN
    FOR of_column IN
        SELECT d.adrelid::regclass AS relation, a.attname AS name
        FROM pg_attrdef AS d JOIN pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
        WHERE pg_get_expr(d.adbin, d.adrelid) = 'now()'
    LOOP
        EXECUTE format(
            'ALTER TABLE %s ALTER COLUMN %I SET DEFAULT clock.now()', of_column.relation, of_column.name
        );
    END LOOP;
    -- New tables and views stay where they were.
    EXECUTE format('ALTER DATABASE %I SET search_path = public, clock, pg_catalog', current_database());
END
$$;
SET search_path = public, clock, pg_catalog;
"""


def install(conn: Connection) -> None:
    """From now on in this session, and in all that begin later."""
    conn.execute(_NOW)


def set_to(conn: Connection, at: dt.datetime) -> None:
    """Let it be that time, for all who begin a query."""
    conn.execute("UPDATE clock.present SET at = %s", [at])
