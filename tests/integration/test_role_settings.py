"""Whatever a role sets for its sessions, the work ends the same: it is set for a transaction, or not relied on."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import redis
from psycopg import Connection, sql

from local.servers import Postgres, Valkey
from merchant_usage import clock
from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL, REDIS_URL, postgres_from_url
from merchant_usage.log import Log, find_by
from merchant_usage.model.run import Attempt
from merchant_usage.sink import ledger
from merchant_usage.steps.cleanup import OldDates, clean_up
from tests.support import TABLES, StartPgbouncer, key, raw, settings

TODAY = clock.now().date()
DAY = TODAY - dt.timedelta(days=1)
NAME = "a:b é\u4e2d'\\"
SAME = ["--from", str(DAY), "--to", str(TODAY)]

SETTINGS: dict[str, dict[str, str]] = {
    "as in Germany": {
        "DateStyle": "German",
        "IntervalStyle": "postgres_verbose",
        "TimeZone": "Asia/Kathmandu",
        "bytea_output": "escape",
        "extra_float_digits": "-15",
        "lc_messages": "C",
        "lc_numeric": "C",
    },
    "as in America": {
        "DateStyle": "SQL, MDY",
        "IntervalStyle": "iso_8601",
        "TimeZone": "America/St_Johns",
        "client_encoding": "LATIN1",
    },
    "as in old times": {
        "DateStyle": "Postgres, DMY",
        "IntervalStyle": "sql_standard",
        "TimeZone": "<+0545>-05:45",
        "client_encoding": "SQL_ASCII",
        "standard_conforming_strings": "off",
        "escape_string_warning": "on",
        "backslash_quote": "off",
        "transform_null_equals": "on",
        "quote_all_identifiers": "on",
    },
    "serializable": {"default_transaction_isolation": "serializable", "default_transaction_deferrable": "on"},
    "repeatable read": {"default_transaction_isolation": "repeatable read", "synchronous_commit": "off"},
    "plans made once": {"plan_cache_mode": "force_generic_plan", "cursor_tuple_fraction": "0", "work_mem": "64kB"},
    "plans of few ways": {
        "plan_cache_mode": "force_custom_plan",
        **dict.fromkeys(
            ["enable_bitmapscan", "enable_hashagg", "enable_hashjoin", "enable_indexscan", "enable_mergejoin"], "off"
        ),
        **dict.fromkeys(["enable_indexonlyscan", "enable_material", "enable_sort", "enable_tidscan"], "off"),
        "from_collapse_limit": "1",
        "join_collapse_limit": "1",
    },
    "plans without scans": {"enable_seqscan": "off", "enable_nestloop": "off", "jit": "on", "jit_above_cost": "0"},
    "plans of many workers": {
        "max_parallel_workers_per_gather": "4",
        "parallel_setup_cost": "0",
        "parallel_tuple_cost": "0",
        "min_parallel_table_scan_size": "0",
        "min_parallel_index_scan_size": "0",
        "parallel_leader_participation": "off",
    },
    "plans of other ways": {
        **dict.fromkeys(["enable_gathermerge", "enable_memoize", "enable_incremental_sort", "enable_nestloop"], "off"),
        **dict.fromkeys(["enable_partition_pruning", "enable_parallel_append", "enable_parallel_hash"], "off"),
        **dict.fromkeys(["enable_partitionwise_join", "enable_partitionwise_aggregate", "geqo"], "on"),
        "constraint_exclusion": "on",
        "geqo_threshold": "2",
        "default_statistics_target": "1",
    },
    "hardly any memory": {
        "work_mem": "64kB",
        "hash_mem_multiplier": "1",
        "temp_buffers": "800kB",
        "maintenance_work_mem": "1MB",
        "temp_tablespaces": "no_such_tablespace",
    },
    "arrays of old times": {"array_nulls": "off", "xmlbinary": "hex", "lc_time": "C", "lc_monetary": "C"},
    "strict functions": {
        "plpgsql.extra_errors": "all",
        "plpgsql.extra_warnings": "all",
        "plpgsql.variable_conflict": "error",
    },
    "impatient": {
        "statement_timeout": "10s",
        "lock_timeout": "1s",
        "idle_session_timeout": "1min",
        "deadlock_timeout": "100ms",
        "exit_on_error": "on",
    },
    "schemas of nobody": {"search_path": '"$user", "no such schema", public, pg_catalog'},
    "others": {
        "row_security": "off",
        "check_function_bodies": "off",
        "client_min_messages": "debug1",
        "xmloption": "document",
        "default_toast_compression": "pglz",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "10s",
    },
}


def set_for_sessions(url: str, chosen: dict[str, str]) -> None:
    """Give each new session of the role on this database these settings."""
    with psycopg.connect(url, autocommit=True) as conn:
        for name, value in chosen.items():
            # A list of names is no text in quotes, unlike all else.
            shown = value if name == "search_path" else sql.Literal(value).as_string()
            role = f"ALTER ROLE CURRENT_USER IN DATABASE {conn.info.dbname} SET {name} TO {shown}"
            conn.execute(role.encode())


@pytest.fixture
def url(
    monkeypatch: pytest.MonkeyPatch, valkey: Valkey, redis_client: redis.Redis, empty_database_url: str
) -> Iterator[str]:
    """The address of a database without tables, which the commands know, as they know that of an empty Redis."""
    monkeypatch.setenv(REDIS_URL, valkey.url)
    monkeypatch.setenv(POSTGRES_URL, empty_database_url)
    find = Log.find
    redis_client.mset({raw(key("acme", DAY)): 5, raw(key(NAME, DAY)): 6, raw(key("bad", DAY)): "x"})
    redis_client.mset({raw(key("acme", TODAY)): 7})
    yield empty_database_url
    find_by(find)


def counted(conn: Connection) -> dict[tuple[Any, ...], int]:
    found = conn.execute("SELECT merchant_id, date, metric_value FROM merchant_usage")
    return {(merchant, day): value for merchant, day, value in found}


def test_through_a_pooler_it_is_the_same_and_nothing_of_it_stays(
    url: str, postgres: Postgres, pgbouncer: StartPgbouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two clients of one session: what one of them sets does not reach the other."""
    set_for_sessions(url, {**SETTINGS["as in America"], **SETTINGS["serializable"]})
    pooled = pgbouncer(postgres, 1).through(url)
    monkeypatch.setenv(POSTGRES_URL, pooled)

    def set_by_role(conn: Connection) -> list[tuple[Any, ...]]:
        names = [
            "DateStyle",
            "TimeZone",
            "client_encoding",
            "default_transaction_isolation",
            "statement_timeout",
            "jit",
        ]
        return [conn.execute("SELECT current_setting(%s)", [name]).fetchone() or () for name in names]

    with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as other:
        before = set_by_role(other)
        assert ("SQL, MDY",) in before
        assert main(["migrate"]) == 0
        assert set_by_role(other) == before
        assert main(["aggregate", *SAME]) == 0
        assert set_by_role(other) == before


REFUSED = [
    pytest.param(
        {"default_transaction_read_only": "on"}, 3, "default_transaction_read_only is on", id="nothing may be written"
    ),
    pytest.param({"search_path": '"no such schema"'}, 2, "table merchant_usage is missing", id="no schema"),
]


@pytest.mark.parametrize(("chosen", "code", "told"), REFUSED)
def test_what_forbids_the_work_is_told_in_one_sentence(
    url: str, capsys: pytest.CaptureFixture[str], chosen: dict[str, str], code: int, told: str
) -> None:
    assert main(["migrate"]) == 0
    set_for_sessions(url, chosen)
    capsys.readouterr()
    assert main(["aggregate", *SAME]) == code
    (complaint,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert told in complaint
    with psycopg.connect(url) as conn:
        assert conn.execute("SELECT count(*) FROM public.merchant_usage").fetchone() == (0,)


def test_time_limit_that_nothing_can_meet_is_said_once(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate"]) == 0
    set_for_sessions(url, {"statement_timeout": "1ms"})
    capsys.readouterr()
    # On a machine that is fast enough all of it may be done.
    assert main(["aggregate", *SAME]) in {0, 3}
    complaints = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(complaints) <= 1
    assert all("statement timeout" in line for line in complaints)


def work(redis_client: redis.Redis, capsys: pytest.CaptureFixture[str]) -> None:
    """All that the commands do; `migrate` has been called."""
    said = ""

    def run(*arguments: str, code: int = 0) -> None:
        nonlocal said
        ended = main(arguments)
        said, complained = capsys.readouterr()
        assert ended == code, complained

    run("migrate")
    run("aggregate", *SAME)
    redis_client.mset({raw(key("acme", DAY)): 50, raw(key(NAME, DAY)): 4, raw(key("new", TODAY)): 1})
    run("aggregate", *SAME, "--dry-run")
    run("aggregate", *SAME, code=1)  # a counter went backwards, and waits for a decision
    run("status", "--json", code=1)
    assert [row["usage_date"] for row in json.loads(said)["dates"]] != []
    run("status", code=1)
    assert str(DAY) in said
    run("verify", *SAME, code=1)
    run("dead-letters", "--json")
    assert {row["reason"] for row in json.loads(said)["letters"]} == {"counter_regressed", "not_an_integer"}
    run("dead-letters")
    assert "counter_regressed" in said
    run("resolve", raw(key(NAME, DAY)).decode(), "--carry")
    run("aggregate", *SAME)
    run("verify", *SAME)
    run("prune")
    with postgres_from_url() as conn:
        stored = {("acme", DAY): 50, (NAME, DAY): 10, ("acme", TODAY): 7, ("new", TODAY): 1}
        assert counted(conn) == stored
        dates = OldDates(frozenset([DAY]), DAY)
        done = clean_up(redis_client, conn, lambda: [key("acme", DAY)], dates, settings(delete_stale_keys=True))
        assert done.cleaned.deleted == 1


@pytest.mark.parametrize("chosen", SETTINGS.values(), ids=SETTINGS)
def test_the_work_ends_the_same(
    url: str, redis_client: redis.Redis, capsys: pytest.CaptureFixture[str], chosen: dict[str, str]
) -> None:
    set_for_sessions(url, chosen)
    assert main(["migrate"]) == 0
    work(redis_client, capsys)


ONLY_READ_COMMITTED = """
CREATE OR REPLACE FUNCTION only_read_committed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION '% of % is %', TG_OP, TG_TABLE_NAME, current_setting('transaction_isolation');
    END IF;
    RETURN NULL;
END $$
"""


def test_nothing_is_written_in_the_isolation_of_the_role(
    url: str, redis_client: redis.Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two runs at once would fail each other's single statements, too."""
    assert main(["migrate"]) == 0
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(ONLY_READ_COMMITTED)
        for table in TABLES:
            trigger = "CREATE TRIGGER isolation BEFORE INSERT OR UPDATE OR DELETE ON {} EXECUTE FUNCTION {}()"
            names = sql.Identifier(table), sql.Identifier("only_read_committed")
            conn.execute(sql.SQL(trigger).format(*names))
    set_for_sessions(url, SETTINGS["serializable"])
    work(redis_client, capsys)
    with postgres_from_url() as conn:
        ledger.fail(conn, Attempt("a run that failed", 1), "why", clock.now())
