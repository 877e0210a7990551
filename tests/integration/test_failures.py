"""What goes wrong half-way: one merchant never stops the others, an outage is never an empty success."""

from __future__ import annotations

import datetime as dt
from itertools import count
from typing import LiteralString

import psycopg
import pytest
import redis
from psycopg import Connection

from local.servers import Postgres, Valkey
from merchant_usage.connections import prepare
from merchant_usage.driver_errors import explained
from merchant_usage.errors import (
    MIGRATE_COMMAND,
    PostgresRefused,
    PostgresUnavailable,
    RedisUnavailable,
    SchemaError,
    UpsertFailed,
)
from merchant_usage.sink import schema
from merchant_usage.steps import regressions
from tests.support import TODAY, YESTERDAY, Usage, key, raw

CHECK = "ALTER TABLE merchant_usage ADD CONSTRAINT no_bad CHECK (merchant_id NOT LIKE 'bad%')"
TRIGGER = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF NEW.merchant_id LIKE 'bad%' THEN RAISE EXCEPTION 'closed account'; END IF; RETURN NEW; END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON merchant_usage FOR EACH ROW EXECUTE FUNCTION refuse()
"""


@pytest.mark.parametrize("day", [YESTERDAY, TODAY], ids=["settled", "live"])
@pytest.mark.parametrize("tasks", [1, 4, 100], ids=["one batch", "four batches", "a batch each"])
@pytest.mark.parametrize(
    ("guard", "told"),
    [
        pytest.param(CHECK, "PostgreSQL refused a statement (23514): ", id="check"),
        pytest.param(TRIGGER, "PostgreSQL refused a statement (P0001): closed account", id="trigger"),
    ],
)
def test_refused_merchant_is_named_and_all_others_are_stored(
    usage: Usage, guard: LiteralString, told: str, tasks: int, day: dt.date
) -> None:
    usage.conn.execute(guard)
    good = {key(f"m{n:02}", day, metric): n for n in range(30) for metric in "ab"}
    usage.write({**good, key("bad", day): 1, key("mad", day): 1})
    with pytest.raises(UpsertFailed) as raised:
        usage.aggregate(day, run_id="refused", max_mapped_tasks=tasks)
    assert set(raised.value.failures) == {"bad"}
    assert raised.value.failures["bad"].startswith(told)
    assert "bad: PostgreSQL refused" in str(raised.value)
    assert usage.rows() == {**good, key("mad", day): 1}
    verdict, error = usage.ledger("refused")[day]
    # Of a day that is over a row is missing; of a live one nobody knows what was to be stored.
    assert verdict == ("mismatch" if day == YESTERDAY else "not_proven")
    assert error
    # Once the cause is mended, a run repairs all.
    usage.conn.execute("ALTER TABLE merchant_usage DROP CONSTRAINT IF EXISTS no_bad")
    usage.conn.execute("DROP TRIGGER IF EXISTS refuse ON merchant_usage")
    assert usage.verdicts(usage.aggregate(day)) == {day: "verified"}
    assert usage.rows()[key("bad", day)] == 1


OF_THE_STATEMENT = [
    pytest.param("PERFORM no_such_function()", "42883", id="no such function"),
    pytest.param("PERFORM 1 FROM nowhere", "42P01", id="no such table"),
    pytest.param("PERFORM NEW.nothing", "42703", id="no such column"),
    pytest.param("EXECUTE 'SELEC'", "42601", id="syntax"),
    pytest.param("RAISE insufficient_privilege", "42501", id="forbidden"),
    pytest.param("PERFORM 1 FROM nowhere.at_all", "42P01", id="no such schema"),
    pytest.param("CREATE TABLE nowhere.at_all ()", "3F000", id="nowhere to create it"),
]


@pytest.mark.parametrize("day", [YESTERDAY, TODAY], ids=["settled", "live"])
@pytest.mark.parametrize(("statement", "sqlstate"), OF_THE_STATEMENT)
def test_what_no_merchant_causes_is_tried_once(
    usage: Usage, statement: LiteralString, sqlstate: str, day: dt.date
) -> None:
    # No rollback takes back what a sequence has counted.
    usage.conn.execute(f"""
        CREATE SEQUENCE tries;
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM nextval('tries'); {statement}; RETURN NEW; END $$;
        CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON merchant_usage FOR EACH ROW EXECUTE FUNCTION fail()
    """)
    usage.write({key(f"m{n:02}", day): n for n in range(50)})
    with pytest.raises(PostgresRefused, match=sqlstate) as raised, explained():
        usage.aggregate(day, run_id="refused", max_mapped_tasks=1)
    told = str(raised.value)
    assert MIGRATE_COMMAND not in told, "it can mend nothing of it"
    assert "\n" not in told
    assert usage.conn.execute("SELECT last_value FROM tries").fetchone() == (1,)
    assert usage.rows() == {}
    _, error = usage.ledger("refused")[day]
    assert error == told


def test_many_refused_merchants_are_told_in_short(usage: Usage) -> None:
    usage.conn.execute(CHECK)
    usage.write({key(f"bad {n:02}"): n for n in range(15)} | {key("good"): 1})
    with pytest.raises(UpsertFailed) as raised:
        usage.aggregate(max_mapped_tasks=1)
    assert len(raised.value.failures) == 15
    assert str(raised.value).endswith("and 5 more")
    assert usage.rows() == {key("good"): 1}


def test_sum_that_does_not_fit_is_one_counters_failure(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("good"): 1})
    usage.aggregate()
    usage.conn.execute("UPDATE merchant_usage SET carried = %(n)s, metric_value = %(n)s + 5", {"n": 2**63 - 10})
    usage.conn.execute("UPDATE merchant_usage SET carried = 0, metric_value = 1 WHERE merchant_id = 'good'")
    usage.write({key("acme"): 100, key("good"): 2})
    for _ in range(2):
        proof = usage.aggregate(max_mapped_tasks=1)
        assert usage.verdicts(proof) == {YESTERDAY: "mismatch"}
        assert [(letter.redis_key, letter.reason) for letter in usage.letters()] == [(raw(key("acme")), "out_of_range")]
        assert usage.rows() == {key("acme"): 2**63 - 5, key("good"): 2}


def test_table_that_vanished_is_a_schema_error(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    stored = usage.store_only()
    usage.conn.execute("DROP TABLE merchant_usage CASCADE")
    with pytest.raises(SchemaError, match=r"merchant_usage.*Run: merchant-usage migrate"), explained():
        usage.prove(stored)


def test_redis_that_dies_half_way_fails_the_run(database: Connection) -> None:
    with Valkey() as server, redis.Redis.from_url(server.url) as client:
        usage = Usage(client, database, count(1))
        usage.write({key(f"m{n}"): n for n in range(10)})
        stored = usage.store_only()
        before = usage.row_versions()
        server.kill()
        with pytest.raises(RedisUnavailable), explained():
            usage.prove(stored)
        verdict, error = usage.ledger(stored.plan.run_id)[YESTERDAY]
        assert verdict is None
        assert error is not None
        assert error.startswith("Redis does not answer")
        with pytest.raises(RedisUnavailable), explained():
            usage.aggregate(run_id="down")
        assert usage.row_versions() == before
        verdict, error = usage.ledger("down")[YESTERDAY]
        assert verdict is None
        assert error is not None
        assert error.startswith("Redis does not answer")


def test_postgresql_that_dies_half_way_fails_the_run(redis_client: redis.Redis) -> None:
    with Postgres(settings={"fsync": "off"}) as server:
        conn = prepare(psycopg.connect(server.url, autocommit=True))
        schema.migrate(conn)
        usage = Usage(redis_client, conn, count(1))
        usage.write({key("acme"): 1})
        stored = usage.store_only()
        server.restart()
        with pytest.raises(PostgresUnavailable), explained():
            usage.prove(stored)
        conn.close()
        with psycopg.connect(server.url, autocommit=True) as again:
            proof = Usage(redis_client, prepare(again), count(1)).prove(stored)
            assert [str(report.verdict) for report in proof.reports] == ["verified"]


def test_lock_of_somebody_else_is_not_waited_for_forever(
    usage: Usage, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    usage.write({key("acme"): 1})
    usage.aggregate()
    usage.write({key("acme"): 2})
    monkeypatch.setitem(regressions.LIMITS, "lock_timeout", "50ms")
    with psycopg.connect(database_url) as other:
        other.execute("SELECT * FROM merchant_usage FOR UPDATE")
        with pytest.raises(PostgresUnavailable, match="lock timeout"), explained():
            usage.aggregate()
    assert usage.rows() == {key("acme"): 1}
    usage.aggregate()
    assert usage.rows() == {key("acme"): 2}
