"""Green means proven: every planted lie is caught and named, and a counter that grows is never taken for one."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg
import pytest
import redis

from local.servers import Postgres, Valkey
from merchant_usage import pipeline
from merchant_usage.connections import prepare
from merchant_usage.errors import RunIncomplete, UsageMismatch
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.verdict import Proof
from merchant_usage.sink import schema
from merchant_usage.source import counters
from merchant_usage.steps import page_comparison
from tests.support import TODAY, TOMORROW, YESTERDAY, Connect, Stored, Usage, key, raw, settings

DATES = pytest.mark.parametrize("date", [YESTERDAY, TODAY], ids=["settled", "live"])


def change(usage: Usage, counter: CounterKey, difference: int) -> None:
    """Plant a lie in one row."""
    found = usage.conn.execute(
        "UPDATE merchant_usage SET metric_value = metric_value + %s"
        " WHERE merchant_id = %s AND date = %s AND metric_type = %s",
        [difference, *counter],
    )
    assert found.rowcount == 1


def remove(usage: Usage, counter: CounterKey) -> None:
    usage.conn.execute("DELETE FROM merchant_usage WHERE merchant_id = %s AND date = %s AND metric_type = %s", counter)


@pytest.fixture
def stored(usage: Usage, request: pytest.FixtureRequest) -> Stored:
    """A run over 60 counters of 20 merchants that is stored, and yet to be proven."""
    date = request.node.callspec.params["date"]
    usage.write({key(f"m{n:02}", date, metric): 1000 + n for n in range(20) for metric in ("a", "b", "c")})
    return usage.store_only(date, max_mapped_tasks=4)


@DATES
def test_honest_table_is_verified(usage: Usage, stored: Stored, date: dt.date) -> None:
    assert usage.verdicts(usage.prove(stored)) == {date: "verified"}


@DATES
@pytest.mark.parametrize(
    ("lies", "told"),
    [
        pytest.param(
            {"m07 b": None},
            ["m07 b of {date}: Redis has 1,007, PostgreSQL has no row{read} (missing)"],
            id="a row deleted",
        ),
        pytest.param(
            {"m07 b": -1}, ["m07 b of {date}: Redis has 1,007, PostgreSQL has 1,006{read} (behind)"], id="one less"
        ),
        pytest.param(
            {"m07 b": -1007}, ["m07 b of {date}: Redis has 1,007, PostgreSQL has 0{read} (behind)"], id="nothing left"
        ),
        pytest.param(
            {"m07 b": -1, "m07 c": 1},
            ["m07 b of {date}: Redis has 1,007, PostgreSQL has 1,006{read} (behind)"],
            id="sums of the merchant cancel",
        ),
        pytest.param(
            {"m03 a": 4, "m07 a": -4},
            ["m07 a of {date}: Redis has 1,007, PostgreSQL has 1,003{read} (behind)"],
            id="sums of the date cancel",
        ),
        pytest.param(
            {"m00 a": None, "m19 c": -19},
            [
                "m00 a of {date}: Redis has 1,000, PostgreSQL has no row{read} (missing)",
                "m19 c of {date}: Redis has 1,019, PostgreSQL has 1,000{read} (behind)",
            ],
            id="two lies",
        ),
    ],
)
def test_lie_is_caught_and_named(
    usage: Usage, stored: Stored, date: dt.date, lies: dict[str, int | None], told: list[str]
) -> None:
    for row, difference in lies.items():
        merchant, metric = row.split()
        if difference is None:
            remove(usage, key(merchant, date, metric))
        else:
            change(usage, key(merchant, date, metric), difference)
    before = usage.row_versions()
    with pytest.raises(UsageMismatch) as raised:
        usage.prove(stored)

    def line(template: str) -> str:
        number = template.split("Redis has ")[1].split(", ")[0]
        return template.format(date=date, read=f", this run read {number}" if date == TODAY else "")

    assert sorted(raised.value.lines) == [line(template) for template in told]
    assert raised.value.total == len(told)
    verdict, error = usage.ledger(stored.plan.run_id)[date]
    assert verdict == "mismatch"
    assert error is not None
    assert sorted(error.splitlines()) == [line(template) for template in told]
    assert usage.row_versions() == before, "verification mends nothing"


@DATES
def test_one_too_many_is_flagged(usage: Usage, stored: Stored, date: dt.date) -> None:
    change(usage, key("m07", date, "b"), 1)
    proof = usage.prove(stored)
    assert usage.verdicts(proof) == {date: "mismatch"}
    assert proof.reports[0].keys == {"match": 59, "regressed": 1}
    assert [(letter.redis_key, letter.detail) for letter in usage.letters()] == [
        (raw(key("m07", date, "b")), "Redis has 1,007, PostgreSQL has 1,008")
    ]


@DATES
def test_row_that_nobody_counted_is_told_as_expired(usage: Usage, stored: Stored, date: dt.date) -> None:
    """It cannot be told from a row whose key expired, which is no fault."""
    usage.conn.execute("INSERT INTO merchant_usage VALUES ('ghost', %s, 'a', 5)", [date])
    proof = usage.prove(stored)
    assert proof.reports[0].keys == {"match": 60, "expired": 1}
    assert proof.reports[0].postgres_total == proof.reports[0].redis_total + 5


@DATES
def test_row_too_many_does_not_hide_one_too_few(usage: Usage, stored: Stored, date: dt.date) -> None:
    usage.conn.execute("INSERT INTO merchant_usage VALUES ('ghost', %s, 'a', 5)", [date])
    remove(usage, key("m00", date, "a"))
    proofs: list[Proof] = []
    with pytest.raises(UsageMismatch, match=r"m00 a of .*: Redis has 1,000, PostgreSQL has no row"):
        pipeline.prove(usage.client, usage.conn, *stored, settings(), proofs.append)
    assert proofs[0].reports[0].keys == {"match": 59, "missing": 1, "expired": 1}


def test_what_an_attempt_read_before_is_not_forgotten(usage: Usage) -> None:
    """The key is gone when the scan is repeated, and somebody deleted the row that the first attempt had stored."""
    usage.write({key("acme", TODAY): 5, key("gone", TODAY): 6})
    stored = usage.store_only(TODAY, max_mapped_tasks=1)
    remove(usage, key("gone", TODAY))
    usage.client.delete(raw(key("gone", TODAY)))
    stored = stored._replace(batches=[batch.only(["acme"]) for batch in stored.batches])
    with pytest.raises(
        UsageMismatch, match=r"gone queries .*: Redis has nothing, PostgreSQL has no row, this run read 6"
    ):
        usage.prove(stored)


@DATES
def test_lie_on_another_date_is_not_this_runs(usage: Usage, stored: Stored, date: dt.date) -> None:
    usage.conn.execute("INSERT INTO merchant_usage VALUES ('m00', %s, 'a', 5)", [TOMORROW])
    before = usage.row_versions()[key("m00", TOMORROW, "a")]
    assert usage.verdicts(usage.prove(stored)) == {date: "verified"}
    assert usage.row_versions()[key("m00", TOMORROW, "a")] == before


@DATES
def test_message_is_short_however_many_lies(usage: Usage, stored: Stored, date: dt.date) -> None:
    usage.conn.execute("DELETE FROM merchant_usage WHERE date = %s", [date])
    with pytest.raises(UsageMismatch) as raised:
        usage.prove(stored)
    assert raised.value.total == 60
    assert len(str(raised.value).splitlines()) == 22
    assert str(raised.value).splitlines()[-1] == "  ... and 40 more"


def test_lie_is_mended_by_storing_again(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("beta"): 6})
    stored = usage.store_only()
    remove(usage, key("acme"))
    change(usage, key("beta"), -1)
    with pytest.raises(UsageMismatch):
        usage.prove(stored)
    assert usage.verdicts(usage.aggregate()) == {YESTERDAY: "verified"}
    assert usage.rows() == {key("acme"): 5, key("beta"): 6}


def test_settled_date_that_still_grows_is_behind(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    stored = usage.store_only()
    usage.client.incr(raw(key("acme")))
    with pytest.raises(UsageMismatch, match=r"acme queries of .*: Redis has 6, PostgreSQL has 5 \(behind\)"):
        usage.prove(stored)


def test_live_date_may_grow_and_get_new_merchants(usage: Usage) -> None:
    usage.write({key("acme", TODAY): 5})
    stored = usage.store_only(TODAY)
    usage.write({key("acme", TODAY): 8, key("new", TODAY): 1})
    (report,) = usage.prove(stored).reports
    assert (report.verdict, report.keys) == ("verified", {"growing": 1})


def test_row_lowered_to_where_redis_fell_back_is_behind(usage: Usage) -> None:
    """The two agree, and yet this run read more than both: usage is lost."""
    usage.write({key("acme", TODAY): 6})
    stored = usage.store_only(TODAY)
    change(usage, key("acme", TODAY), -1)
    usage.write({key("acme", TODAY): 5})
    with pytest.raises(UsageMismatch, match=r"Redis has 5, PostgreSQL has 5, this run read 6 \(behind\)"):
        usage.prove(stored)


@pytest.mark.parametrize("date", [YESTERDAY, TODAY], ids=["settled", "live"])
def test_parallel_run_that_stores_during_verification_is_no_regression(
    usage: Usage, connect: Connect, monkeypatch: pytest.MonkeyPatch, date: dt.date
) -> None:
    """After our second look at Redis it counts on, and another run stores that, before we compare."""
    other = Usage(usage.client, connect(), count(100))
    usage.write({key("acme", date): 5})
    stored = usage.store_only(date)

    def read_then_be_overtaken(*arguments: Any) -> Any:
        monkeypatch.undo()  # the other run compares, too
        read = list(counters.read_pages(*arguments))
        usage.write({key("acme", date): 9})
        other.store_only(date)
        return iter(read)

    monkeypatch.setattr(page_comparison, "read_pages", read_then_be_overtaken)
    (report,) = usage.prove(stored).reports
    assert (report.verdict, report.keys) == ("verified", {"match": 1})
    assert usage.letters() == []
    assert usage.rows() == {key("acme", date): 9}


def test_key_that_vanished_before_it_was_stored_is_missing(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("other"): 1})
    stored = usage.store_only()
    remove(usage, key("acme"))
    usage.client.delete(raw(key("acme")))
    with pytest.raises(UsageMismatch, match=r"acme queries .*Redis has nothing, PostgreSQL has no row \(missing\)"):
        usage.prove(stored)


def test_key_that_expired_after_it_was_stored_is_no_fault(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("other"): 1})
    stored = usage.store_only()
    usage.client.delete(raw(key("acme")))
    (report,) = usage.prove(stored).reports
    assert (report.verdict, report.keys) == ("verified", {"match": 1, "expired": 1})


def test_counter_that_broke_after_it_was_stored_is_told(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("other"): 1})
    stored = usage.store_only()
    usage.write({key("acme"): "x"})
    proof = usage.prove(stored)
    assert usage.verdicts(proof) == {YESTERDAY: "mismatch"}
    assert [(letter.redis_key, letter.reason) for letter in usage.letters()] == [(raw(key("acme")), "not_an_integer")]
    assert usage.verdicts(usage.aggregate()) == {YESTERDAY: "mismatch"}, "what it counts now nobody knows"
    usage.write({key("acme"): 6})
    assert usage.verdicts(usage.aggregate()) == {YESTERDAY: "verified"}


def test_batch_without_a_result_cannot_be_proven(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("beta"): 6})
    stored = usage.store_only()
    with pytest.raises(RunIncomplete, match=r"1 of 2 batches were not stored, so this run is not proven"):
        usage.prove(stored._replace(results=stored.results[:1]))
    assert usage.ledger(stored.plan.run_id) == {YESTERDAY: ("not_proven", "1 of 2 batches were not stored")}


def test_readings_that_are_gone_cannot_be_proven(usage: Usage) -> None:
    usage.write({key("acme", TODAY): 5, key("beta", TODAY): 6})
    stored = usage.store_only(TODAY)
    usage.conn.execute("DELETE FROM usage_reading WHERE keys LIKE '%acme%'")
    with pytest.raises(RunIncomplete, match="read 2 counters of live dates, but only 1 of these readings are left"):
        usage.prove(stored)
    verdict, error = usage.ledger(stored.plan.run_id)[TODAY]
    assert verdict is None
    assert error is not None
    assert "only 1 of these readings are left" in error


def test_crash_of_postgresql_before_verification_is_noticed(redis_client: redis.Redis) -> None:
    """The readings are not crash-safe on purpose: after a real crash they are gone, and the run says so."""
    with Postgres(settings={"fsync": "off"}) as server:
        with psycopg.connect(server.url, autocommit=True) as conn:
            schema.migrate(conn)
            usage = Usage(redis_client, prepare(conn), count(1))
            usage.write({key("acme", TODAY): 5, key("acme"): 1})
            stored = usage.store_only(TODAY, YESTERDAY)
            # A batch's commit does not wait for the disk; what is lost with it is not what is looked at here.
            conn.execute("CHECKPOINT")
            server.kill()
        server.start()
        with psycopg.connect(server.url, autocommit=True) as conn:
            usage = Usage(redis_client, prepare(conn), count(1))
            assert usage.rows() == {key("acme", TODAY): 5, key("acme"): 1}
            with pytest.raises(RunIncomplete, match="only 0 of these readings are left"):
                usage.prove(stored)
            assert set(usage.verdicts(usage.aggregate(TODAY, YESTERDAY)).values()) == {"verified"}


@contextmanager
def traffic(url: str) -> Iterator[Callable[[], int]]:
    """A writer that counts as fast as it can, old merchants and new ones. Gives how often it has written."""
    stop, started = threading.Event(), threading.Event()
    rounds = 0

    def write() -> None:
        nonlocal rounds
        with redis.Redis.from_url(url) as client:
            while not stop.is_set():
                pipeline = client.pipeline(transaction=False)
                for n in range(50):
                    pipeline.incrby(raw(key(f"m{n % 25}", TODAY, f"metric {n % 2}")), rounds % 7)
                pipeline.incr(raw(key(f"new {rounds % 1000}", TODAY)))
                pipeline.execute()
                rounds += 1
                started.set()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert started.wait(10)
        yield lambda: rounds
    finally:
        stop.set()
        writer.join()


def test_no_false_alarm_while_counters_race(usage: Usage, valkey: Valkey) -> None:
    with traffic(valkey.url) as rounds:
        for _ in range(25):
            before = rounds()
            proof = usage.aggregate(TODAY, max_mapped_tasks=3)
            assert usage.verdicts(proof) == {TODAY: "verified"}
            assert rounds() > before, "the writer wrote during the run"
    usage.aggregate(TODAY)
    assert usage.rows() == {counter: int(usage.client.get(raw(counter)) or -1) for counter in usage.rows()}
    assert len(usage.rows()) == usage.client.dbsize()
    assert usage.letters() == []
    assert usage.readings() == 0


def test_lie_is_caught_while_counters_race(usage: Usage, valkey: Valkey) -> None:
    with traffic(valkey.url):
        stored = usage.store_only(TODAY)
        change(usage, key("m3", TODAY, "metric 1"), -1)
        with pytest.raises(UsageMismatch) as raised:
            usage.prove(stored)
    assert raised.value.total == 1
    assert raised.value.lines[0].startswith("m3 metric 1 of ")
