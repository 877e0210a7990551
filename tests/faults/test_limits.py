"""What concerns one date, one counter or one server's settings concerns nothing else."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from threading import Barrier

import pytest

from local.servers import Valkey
from merchant_usage import pipeline
from merchant_usage.errors import DatesNotStored, SchemaError, UsageError, UsageMismatch
from merchant_usage.model.dead_letter import DeadLetter, Reason
from merchant_usage.model.keys import CounterKey
from merchant_usage.settings import OnRegression
from merchant_usage.sink import dead_letters, ledger, schema
from merchant_usage.source.counters import MAX_VALUE
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.faults.engine import At, heard
from tests.support import NOW, TODAY, YESTERDAY, Connect, Usage, key, raw, settings

HOUR = dt.timedelta(hours=1)


# A date without a partition.


@pytest.fixture
def parted(usage: Usage) -> Usage:
    """There is a place for today and for yesterday, and for no other date."""
    usage.conn.execute("ALTER TABLE merchant_usage RENAME TO unparted")
    usage.conn.execute(
        "CREATE TABLE merchant_usage (LIKE unparted INCLUDING DEFAULTS, PRIMARY KEY (merchant_id, date, metric_type))"
        " PARTITION BY RANGE (date)"
    )
    usage.conn.execute(
        "CREATE TABLE november PARTITION OF merchant_usage FOR VALUES FROM ('2026-11-20') TO ('2026-12-01')"
    )
    return usage


def test_a_date_without_a_partition_is_that_dates_failure(parted: Usage) -> None:
    """One key of another year, and fifty merchants of today."""
    today = {key(f"m{n:02}", TODAY): n + 1 for n in range(50)}
    odd = dt.date(2026, 10, 1)
    parted.write({**today, key("m07", odd): 5, key("m07", YESTERDAY): 6})
    with pytest.raises(DatesNotStored, match="2026-10-01"):
        parted.aggregate(odd, YESTERDAY, TODAY, run_id="the run")
    assert parted.rows() == {**today, key("m07", YESTERDAY): 6}
    found = parted.ledger("the run")
    assert [found[date][0] for date in (YESTERDAY, TODAY)] == ["verified", "verified"]
    assert found[odd][0] in {"mismatch", "not_proven"}
    assert "2026-10-01" in (found[odd][1] or "")
    assert "2026-10-01" not in (found[TODAY][1] or "")


def test_a_key_of_1970_stops_nobody(parted: Usage) -> None:
    today = {key(f"m{n:02}", TODAY): n + 1 for n in range(50)}
    parted.write({**today, key("m07", dt.date(1970, 1, 1)): 5})
    with pytest.raises(UsageError):
        parted.aggregate(dt.date(1970, 1, 1), TODAY)
    assert parted.rows() == today


# A sum that does not fit.


@pytest.mark.parametrize("mode", OnRegression)
def test_an_overflow_is_that_counters(usage: Usage, mode: OnRegression) -> None:
    """Stored and counter would be more than a bigint holds."""
    great, others = key("great"), {key(f"m{n}"): n for n in range(3)}
    usage.write({great: MAX_VALUE - 3, **others})
    usage.aggregate()
    usage.write({great: 5})
    proof = usage.aggregate(now=NOW + HOUR, on_regression=mode)
    assert usage.verdicts(proof) == {YESTERDAY: "mismatch"}
    assert usage.rows() == {great: MAX_VALUE - 3, **others}
    assert {letter.redis_key for letter in usage.letters() if not letter.resolved} == {raw(great)}
    # Whoever decides to carry it is told, and nothing is half done.
    with pytest.raises(UsageError):
        decide(usage.client, usage.conn, Ruling(Decision.CARRY, "a person"), "usage", key=raw(great))
    assert usage.rows()[great] == MAX_VALUE - 3


def test_a_carried_counter_that_outgrows_a_bigint(usage: Usage) -> None:
    great, other = key("great", TODAY), key("other", TODAY)
    for value in (MAX_VALUE - 100, 5):
        usage.write({great: value, other: 1})
        usage.aggregate(TODAY, on_regression=OnRegression.CARRY)
    assert usage.rows()[great] == MAX_VALUE - 95
    usage.write({great: 500, other: 2})
    proof = usage.aggregate(TODAY, now=NOW + HOUR)
    assert usage.rows() == {great: MAX_VALUE - 95, other: 2}
    assert [(letter.redis_key, letter.reason) for letter in usage.letters() if not letter.resolved] == [
        (raw(great), Reason.OUT_OF_RANGE)
    ]
    assert usage.verdicts(proof) == {TODAY: "mismatch"}


# A commit that is durable whatever the server says.


def test_the_verdict_is_durable_where_the_database_is_not(usage: Usage, valkey: Valkey, database_url: str) -> None:
    name = usage.conn.info.dbname
    usage.conn.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
    usage.write({key("acme"): 5})
    found: list[str] = []

    with heard(valkey.url, database_url) as (client, conn):
        assert conn.execute("SHOW synchronous_commit").fetchone() == ("off",)

        def ask() -> None:
            row = conn.execute("SHOW synchronous_commit").fetchone()
            found.append(row[0])

        conn.hear = At("commit:finish_run", do=ask)
        stored = usage.store_only()
        pipeline.prove(client, conn, stored.plan, stored.batches, stored.results, settings())
        conn.hear = At("commit:decide_regression", do=ask)
        usage.write({key("acme"): 4})
        usage.aggregate(now=NOW + HOUR)
        decide(client, conn, Ruling(Decision.ACCEPT, "a person"), "usage", key=raw(key("acme")))
        assert conn.execute("SHOW synchronous_commit").fetchone() == ("off",), "for that transaction only"
    assert found == ["on", "on"]


# Letters in one order, and what the schema check says.


def test_scans_at_once_open_and_resolve_letters_without_a_deadlock(usage: Usage, connect: Connect) -> None:
    """Four at once, again and again, while keys turn bad and good."""
    keys = [key(f"m{n:03}", date) for n in range(150) for date in (YESTERDAY, TODAY)]
    usage.write(dict.fromkeys(keys, 1))
    runs = [Usage(usage.client, connect(), count(1000 * n)) for n in range(1, 5)]
    together = Barrier(len(runs))

    def work(number: int) -> int:
        done = 0
        together.wait()
        for turn in range(6):
            mine = keys[number::2] if turn % 2 else keys[::3]
            usage.write(dict.fromkeys(mine, "x" if (turn + number) % 2 else turn))
            with suppress(UsageMismatch):  # keys change between the steps: what is said of them is not the matter
                runs[number].aggregate(YESTERDAY, TODAY, max_mapped_tasks=3, on_regression=OnRegression.CARRY)
            done += 1
        return done

    with ThreadPoolExecutor(len(runs)) as pool:
        assert list(pool.map(work, range(4))) == [6] * 4
    found = usage.conn.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert found == (0,)


def test_letters_of_any_order_do_not_deadlock(usage: Usage, connect: Connect) -> None:
    """One opens what the other resolves, each in an order of its own."""
    letters = [DeadLetter(b"usage:m%03d:x" % n, Reason.MALFORMED_KEY, "no date", None) for n in range(200)]

    def work(number: int) -> None:
        conn = connect()
        for turn in range(25):
            some = letters[number * 7 + turn :] if number % 2 else letters[: -turn - 1][::-1]
            with conn.transaction():
                dead_letters.open_letters(conn, some)
                dead_letters.resolve(conn, [letter.redis_key for letter in some[::-1]], [Reason.MALFORMED_KEY])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    found = usage.conn.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert found == (0,)


@pytest.mark.parametrize("column", ["metric_value", "carried"])
def test_the_schema_check_names_a_null(usage: Usage, column: str) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate()
    usage.conn.execute(f"ALTER TABLE merchant_usage ALTER COLUMN {column} DROP NOT NULL".encode())
    schema.check(usage.conn)
    usage.conn.execute(f"UPDATE merchant_usage SET {column} = NULL".encode())  # noqa: S608 - a name of ours
    with pytest.raises(SchemaError, match=f"{column} holds NULL"):
        schema.check(usage.conn)
    with pytest.raises(SchemaError, match=f"{column} holds NULL"):
        usage.aggregate()


# What is said of each date.


def test_a_thousand_failures_of_one_date_leave_no_other_without_its_reason(usage: Usage) -> None:
    counters: dict[CounterKey, int | str | bytes] = {key(f"m{n:04}", YESTERDAY): 5 for n in range(1500)}
    earlier = YESTERDAY - dt.timedelta(days=1)
    for date in (earlier, YESTERDAY):
        counters[key("zz", date)] = 5
    usage.write(counters)
    stored = usage.store_only(earlier, YESTERDAY)
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 4")
    with pytest.raises(UsageMismatch):
        usage.prove(stored)
    found = usage.ledger(stored.plan.run_id)
    assert "zz queries" in (found[earlier][1] or "")
    assert found[YESTERDAY][1]
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 4")
    later = usage.store_only(YESTERDAY, TODAY, now=NOW + HOUR)
    assert ledger.sealed_dates(usage.conn, [YESTERDAY]) == set()
    usage.prove(later)


def test_a_thousand_failures_of_the_first_date(usage: Usage) -> None:
    """In the order of dates the flood comes first."""
    earlier = YESTERDAY - dt.timedelta(days=1)
    usage.write({key(f"m{n:04}", earlier): 5 for n in range(1500)})
    usage.write({key("zz", YESTERDAY): 5})
    stored = usage.store_only(earlier, YESTERDAY)
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 4")
    with pytest.raises(UsageMismatch):
        usage.prove(stored)
    assert "zz queries" in (usage.ledger(stored.plan.run_id)[YESTERDAY][1] or "")


def test_a_partial_scope_is_shown_as_such(usage: Usage, logged: list[str]) -> None:
    """A dead letter of another date became good: of that date the run handles one merchant."""
    usage.write({key("acme", YESTERDAY): "x", key("other", YESTERDAY): 1})
    usage.aggregate(YESTERDAY)
    usage.write({key("acme", YESTERDAY): 3})
    proof = usage.aggregate(TODAY, now=NOW + HOUR)
    assert {report.date: report.merchants for report in proof.reports} == {YESTERDAY: 1, TODAY: None}
    assert any(", 1 merchant: verified" in line and str(YESTERDAY) in line for line in logged)
