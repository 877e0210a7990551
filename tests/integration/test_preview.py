"""The first look at servers that are not ours yet: it reads, says what is there, and could not write if it tried."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis
from psycopg import Connection, sql

from local.servers import Valkey
from merchant_usage import clock
from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL, REDIS_URL
from merchant_usage.log import Log, find_by
from merchant_usage.model.run import Run
from merchant_usage.settings import load_settings
from merchant_usage.sink import schema
from merchant_usage.steps.look import look
from tests.support import Usage, key, raw

TODAY = clock.now().date()
DAY = TODAY - dt.timedelta(days=3)
PASSWORD = "a-password"
#: As an application makes it: without the column carried, and with one of its own.
APPLICATIONS_TABLE = """
CREATE TABLE merchant_usage (
    merchant_id text NOT NULL, date date NOT NULL, metric_type text NOT NULL, metric_value bigint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(), invoice text,
    PRIMARY KEY (merchant_id, date, metric_type))
"""


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch, usage: Usage, valkey: Valkey, database_url: str) -> Iterator[Usage]:
    """The two addresses are those of users that may do nothing but read."""
    name = f"looker_{usage.conn.info.dbname}"
    role = sql.Identifier(name)
    database = sql.Identifier(usage.conn.info.dbname)
    usage.conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, PASSWORD))
    usage.conn.execute(sql.SQL("REVOKE TEMPORARY, CREATE ON DATABASE {} FROM PUBLIC").format(database))
    usage.conn.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(role))
    usage.conn.execute(sql.SQL("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {}").format(role))
    usage.client.execute_command(
        "ACL", "SETUSER", "looker", "reset", "on", f">{PASSWORD}", "~usage:*", "+scan", "+mget", "+get", "+type"
    )
    monkeypatch.setenv(POSTGRES_URL, re.sub("//[^@]+@", f"//{name}:{PASSWORD}@", database_url))
    monkeypatch.setenv(REDIS_URL, re.sub("//[^@]*@", f"//looker:{PASSWORD}@", valkey.url))
    find = Log.find
    yield usage
    find_by(find)
    usage.client.execute_command("ACL", "DELUSER", "looker")
    usage.conn.execute(sql.SQL("DROP OWNED BY {}; DROP ROLE {}").format(role, role))


def looked(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What the command answers to a program."""
    capsys.readouterr()
    assert main(["preview", "--json", *arguments]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def day_of(found: dict[str, Any], date: dt.date) -> dict[str, Any]:
    (day,) = [day for day in found["days"] if day["date"] == str(date)]
    return dict(day)


def without_tables(conn: Connection) -> None:
    conn.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")


def test_what_is_there_what_would_be_stored_and_what_is_odd(reading: Usage, capsys: pytest.CaptureFixture[str]) -> None:
    reading.write({key("acme", DAY): 5, key("b", DAY): 6, key("c", DAY): 7, key("d", DAY): 8})
    reading.aggregate(DAY, now=clock.now())
    reading.write({key("acme", DAY): 9, key("b", DAY): 2, key("new", DAY): 1, key("bad", DAY): "1.5"})
    reading.client.delete(raw(key("d", DAY)))
    reading.client.set("usage:no date", 1)
    reading.client.set(raw(key("old", TODAY - dt.timedelta(days=30))), 1)
    before = reading.everything()

    found = looked(capsys)

    assert reading.everything() == before
    assert day_of(found, DAY) == {
        "date": str(DAY),
        "merchants": 5,
        "keys": 4,
        "redis_total": 19,
        "rows": 4,
        "postgres_total": 26,
        "new": 1,
        "raised": 1,
        "unchanged": 1,
        "lower": 1,
        "bad": 1,
        "without_counter": 1,
    }
    assert len(found["days"]) == 8
    assert found["other_dates"] == {str(TODAY - dt.timedelta(days=30)): 1}
    assert found["keys"] == 7
    assert found["tables"] == "All tables are there."
    assert found["run"]["rows_written"] == 2
    odd = "\n".join(found["odd"])
    assert (
        f"1 counter(s) are lower than what is stored, which a run keeps until somebody decides: b queries of {DAY}: "
        in odd
    )
    assert "Redis 2, PostgreSQL 6" in odd
    assert f"1 key(s) cannot be counted (not_an_integer): {raw(key('bad', DAY)).decode()}." in odd
    assert "1 key(s) cannot be counted (malformed_key): usage:no date." in odd


def test_before_there_is_any_table(reading: Usage, capsys: pytest.CaptureFixture[str]) -> None:
    without_tables(reading.conn)
    reading.write({key("acme", DAY): 5})
    found = looked(capsys, str(DAY))
    assert found["tables"] == "There is no table merchant_usage yet: merchant-usage migrate makes it and the others."
    assert (day_of(found, DAY)["new"], day_of(found, DAY)["rows"]) == (1, 0)
    assert found["odd"] == []
    assert found["unseen"] == ["whether Redis may evict keys (+info)", "how long keys live (+ttl)"]
    assert reading.conn.execute("SELECT count(*) FROM pg_class WHERE relname = 'merchant_usage'").fetchone() == (0,)


def test_a_table_that_the_application_made(reading: Usage, capsys: pytest.CaptureFixture[str]) -> None:
    without_tables(reading.conn)
    reading.conn.execute(f"{APPLICATIONS_TABLE}; GRANT SELECT ON merchant_usage TO PUBLIC")
    reading.conn.execute("INSERT INTO merchant_usage VALUES ('acme', %s, 'queries', 5)", [DAY])
    reading.write({key("acme", DAY): 9, key("b", DAY): 1})
    found = looked(capsys, str(DAY))
    assert found["tables"].startswith(
        "There is a table merchant_usage that a run can use. merchant-usage migrate adds "
    )
    assert "column merchant_usage.carried" in found["tables"]
    day = day_of(found, DAY)
    assert (day["raised"], day["new"], day["postgres_total"]) == (1, 1, 5)


def test_a_table_that_cannot_be_used_is_told_and_not_asked(reading: Usage, capsys: pytest.CaptureFixture[str]) -> None:
    without_tables(reading.conn)
    reading.conn.execute("CREATE TABLE merchant_usage (merchant_id integer, date date)")
    reading.write({key("acme", DAY): 9})
    found = looked(capsys, str(DAY))
    assert found["tables"] == "There is a table merchant_usage, and a run cannot use it."
    assert "PostgreSQL: column merchant_usage.merchant_id is integer, it must be text." in found["odd"]
    assert day_of(found, DAY)["new"] == 1
    assert found["unseen"][0] == "the rows of merchant_usage, which has to fit first: all counters are told as new"


def test_another_prefix_is_the_first_thing_that_is_odd(reading: Usage, capsys: pytest.CaptureFixture[str]) -> None:
    reading.client.set("metering:acme:2026-11-20:queries", 5)
    (odd,) = looked(capsys)["odd"]
    assert odd.startswith(
        "No key of Redis begins with 'usage:', though database 0 holds keys: is USAGE_KEY_PREFIX right"
    )


def test_people_are_told_in_tables_and_sentences(reading: Usage, capsys: pytest.CaptureFixture[str]) -> None:
    reading.write({key("acme", DAY): 1523})
    assert main(["preview", str(DAY)]) == 0
    told = capsys.readouterr().out
    assert "Nothing was written" in told
    assert re.search(rf"\| {DAY} \| +1 \| +1 \| +1,523 \|", told)
    assert "PostgreSQL: All tables are there." in told
    assert "A run of these dates, about: " in told
    assert "1 rows written" in told
    assert told.endswith("Odd: nothing.\n")


def test_the_users_can_do_nothing_else(reading: Usage) -> None:
    with psycopg.connect(os.environ[POSTGRES_URL], autocommit=True) as conn:
        for statement in (
            "UPDATE merchant_usage SET metric_value = 0",
            "CREATE TEMPORARY TABLE t ()",
            "CREATE TABLE t ()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement.encode())
    with redis.Redis.from_url(os.environ[REDIS_URL]) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.set("usage:x", 1)
    assert reading.rows() == {}


def test_an_owner_cannot_write_by_it_either(usage: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL refuses while it looks, whatever the role may do."""
    usage.write({key("acme", DAY): 5})
    usage.aggregate(DAY, now=clock.now())

    def forget_all(conn: Connection) -> list[str]:
        conn.execute("DELETE FROM merchant_usage")
        return []

    monkeypatch.setattr(schema, "problems_of_usage_table", forget_all)
    run = Run("look", "manual", (DAY,), clock.now())
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        look(usage.client, usage.conn, run, load_settings({}))
    assert usage.rows() == {key("acme", DAY): 5}
