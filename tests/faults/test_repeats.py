"""Decisions that meet runs, and runs that are repeated: a person's word stands, each attempt is proven by itself."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg import Connection

from local.servers import Valkey
from merchant_usage import clock, pipeline
from merchant_usage.errors import RowsGone, SettingsError, UsageMismatch
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.pages import PAGE
from merchant_usage.model.run import Run
from merchant_usage.settings import OnRegression
from merchant_usage.sink import ledger
from merchant_usage.steps import scan
from merchant_usage.steps.resolve import Decision, Outcome, Ruling, decide
from tests.faults.engine import APPLICATION, At, Job, heard, run_tasks
from tests.faults.leftovers import wait_until
from tests.support import NOW, TODAY, YESTERDAY, Connect, Stored, Usage, key, raw, settings

HOUR = dt.timedelta(hours=1)


def rule(usage: Usage, decision: Decision, *, conn: Connection | None = None, **which: object) -> Outcome:
    return decide(usage.client, conn or usage.conn, Ruling(decision, "a person"), "usage", **which)  # type: ignore[arg-type]  # key or date


def open_regressions(usage: Usage) -> list[bytes]:
    return [
        letter.redis_key
        for letter in usage.letters()
        if letter.reason == Reason.COUNTER_REGRESSED and not letter.resolved
    ]


# Decisions, and runs that are under way.


@pytest.mark.parametrize("date", [YESTERDAY, TODAY], ids=["settled", "live"])
@pytest.mark.parametrize("fell", ["before the run", "between storing and verifying"])
@pytest.mark.parametrize(
    ("decision", "value"), [(Decision.ACCEPT, 40), (Decision.CARRY, 140), (Decision.KEEP, 100)], ids=str
)
@pytest.mark.parametrize("moment", ["did:set_snapshot", "did:select_day_totals", "mget", "committed:set_snapshot"])
def test_a_decision_made_while_a_verification_runs_stands(
    usage: Usage,
    connect: Connect,
    valkey: Valkey,
    database_url: str,
    date: dt.date,
    fell: str,
    decision: Decision,
    value: int,
    moment: str,
) -> None:
    acme = key("acme", date)
    usage.write({acme: 100})
    usage.aggregate(date)
    if fell == "before the run":
        usage.write({acme: 40})
        stored = usage.store_only(date)
    else:
        stored = usage.store_only(date)
        usage.write({acme: 40})
        usage.aggregate(date, run_id="another run that sees it")
    assert open_regressions(usage) == [raw(acme)]
    person = connect()
    decides = At(moment, do=lambda: rule(usage, decision, conn=person, key=raw(acme)))
    with heard(valkey.url, database_url, decides) as (client, conn):
        pipeline.prove(client, conn, stored.plan, stored.batches, stored.results, settings())
    assert decides.happened
    assert open_regressions(usage) == [], "it was answered"
    assert usage.rows() == {acme: value}
    assert usage.verdicts(usage.aggregate(date, now=NOW + HOUR)) == {date: "verified"}
    assert usage.rows() == {acme: value}


def test_a_colleague_decides_one_of_many_meanwhile(
    usage: Usage, connect: Connect, valkey: Valkey, database_url: str
) -> None:
    """A decision on a date goes page by page; what is decided by then is passed over, a bad key holds up no other."""
    counters = {key(f"m{n:04}"): 100 for n in range(PAGE + 2)}
    usage.write(counters)
    usage.aggregate()
    usage.write(dict.fromkeys(counters, 5))
    usage.aggregate()
    first, last = min(counters), max(counters)
    usage.write({first: "x"})
    colleague = connect()
    meanwhile = At("committed:set_rows", do=lambda: rule(usage, Decision.KEEP, conn=colleague, key=raw(last)))
    with heard(valkey.url, database_url, meanwhile) as (client, conn):
        outcome = decide(client, conn, Ruling(Decision.CARRY, "a person"), "usage", date=YESTERDAY)
    assert meanwhile.happened
    assert len(outcome.decided) == len(counters) - 2
    assert [str(first) in refused for refused in outcome.refused] == [True]
    assert usage.rows() == {**dict.fromkeys(counters, 105), first: 100, last: 100}
    assert open_regressions(usage) == [raw(first)]


def test_two_people_decide_the_same_counter_at_once(
    usage: Usage, connect: Connect, valkey: Valkey, database_url: str
) -> None:
    for value in (100, 5):
        usage.write({key("acme"): value})
        usage.aggregate()
    second, watcher = connect(), connect()
    second.execute("SELECT set_config('application_name', 'second', false)")
    waits = (
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'second'"
        " AND wait_event_type = 'Lock'"
    )
    with ThreadPoolExecutor(1) as pool:
        others: list[object] = []

        def other_begins() -> None:
            others.append(pool.submit(rule, usage, Decision.CARRY, conn=second, key=raw(key("acme"))))
            wait_until(watcher, waits)

        with heard(valkey.url, database_url, At("did:lock_rows", do=other_begins)) as (client, conn):
            decide(client, conn, Ruling(Decision.ACCEPT, "a person"), "usage", key=raw(key("acme")))
        with pytest.raises(SettingsError, match="No open counter_regressed"):
            others[0].result(90)  # type: ignore[attr-defined]  # a future
    assert APPLICATION != "second"
    assert usage.rows() == {key("acme"): 5}


# What is carried adds up.

KEEP, CARRY = OnRegression.KEEP, OnRegression.CARRY


@pytest.mark.parametrize(
    ("seen", "truth"),
    [
        pytest.param([(100, KEEP), (3, KEEP), (150, KEEP), (10, CARRY)], 260, id="overtook before it fell again"),
        pytest.param([(100, KEEP), (3, KEEP), (2, CARRY)], 105, id="fell again at once"),
        pytest.param([(100, CARRY), (3, CARRY), (150, CARRY), (10, CARRY)], 260, id="always carried"),
        pytest.param([(100, KEEP), (3, KEEP), (150, CARRY)], 250, id="carrying came too late"),
        pytest.param([(100, KEEP), (None, KEEP), (7, CARRY)], 107, id="vanished and began anew"),
        pytest.param([(100, KEEP), (None, KEEP), (170, KEEP)], 270, id="vanished, began anew and overtook"),
        pytest.param([(100, KEEP), (5, KEEP), (None, KEEP), (9, KEEP)], 114, id="fell and vanished"),
        pytest.param([(100, CARRY), (5, CARRY), (None, CARRY), (9, CARRY)], 114, id="carried, then vanished"),
    ],
)
def test_carrying_adds_up(usage: Usage, seen: list[tuple[int | None, OnRegression]], truth: int) -> None:
    acme = key("acme", TODAY)
    for hours, (value, mode) in enumerate(seen):
        if value is None:
            usage.client.delete(raw(acme))
        else:
            usage.write({acme: value, key("other", TODAY): 1})
        usage.aggregate(TODAY, now=NOW - (8 - hours) * HOUR, on_regression=mode)
    assert usage.rows()[acme] == truth or open_regressions(usage) == [raw(acme)]
    if open_regressions(usage):
        rule(usage, Decision.CARRY, key=raw(acme))
    assert usage.rows()[acme] == truth
    assert open_regressions(usage) == []


@given(
    lives=st.lists(st.lists(st.integers(1, 200), min_size=1, max_size=3), min_size=1, max_size=4),
    modes=st.lists(st.sampled_from(OnRegression), min_size=12, max_size=12),
    vanishes=st.lists(st.booleans(), min_size=4, max_size=4),
)
@hypothesis_settings(max_examples=hypothesis_settings().max_examples // 4)
@pytest.mark.usefixtures("quiet")
def test_carrying_adds_up_whatever_comes(
    usage: Usage, lives: list[list[int]], modes: list[OnRegression], vanishes: list[bool]
) -> None:
    """A counter lives, falls and lives again; each fall is one that a run can see."""
    usage.client.flushall()
    usage.conn.execute("TRUNCATE merchant_usage, usage_dead_letter, usage_run, usage_reading, usage_decision")
    acme, other = key("acme", TODAY), key("other", TODAY)
    turn, truth, last = iter(modes), 0, 0
    now = NOW - 12 * HOUR

    def run(value: int | None) -> None:
        nonlocal now
        if value is None:
            usage.client.delete(raw(acme))
        else:
            usage.write({acme: value})
        usage.write({other: 1})
        now += HOUR / 2
        usage.aggregate(TODAY, now=now, on_regression=next(turn, KEEP))

    for life, vanished in zip(lives, vanishes, strict=False):
        value = 0
        if vanished and last:
            run(None)
            last = 0
        for by in life:
            if last and value == 0 and by >= last:
                by = max(last - 1, 0)
            value += by
            truth += by
            run(value)
            last = value
    if open_regressions(usage):
        rule(usage, Decision.CARRY, key=raw(acme))
    assert usage.rows()[acme] == truth


# Attempts of one run.


def test_a_live_counter_is_erased_with_its_row_between_storing_and_verifying(usage: Usage, job: Job) -> None:
    usage.write({key("acme", TODAY): 5, key("other", TODAY): 1})

    def erase() -> None:
        usage.client.delete(raw(key("acme", TODAY)))
        usage.conn.execute("DELETE FROM merchant_usage WHERE merchant_id = 'acme'")

    with pytest.raises(UsageMismatch):
        run_tasks(job, At("sql:set_snapshot", do=erase))
    job.clear("scan", "upsert", "verify")
    assert {report["verdict"] for report in run_tasks(job)} <= {"verified", "empty"}
    assert usage.rows() == {key("other", TODAY): 1}


def test_accepting_in_between_leaves_no_run_red(usage: Usage, job: Job) -> None:
    acme = key("acme", TODAY)
    usage.write({acme: 100})

    def accept() -> None:
        usage.write({acme: 5})
        usage.aggregate(TODAY)
        rule(usage, Decision.ACCEPT, key=raw(acme))

    run_tasks(job, At("sql:set_snapshot", do=accept))
    assert usage.rows() == {acme: 5}


def test_another_scope_on_the_second_attempt(usage: Usage) -> None:
    """Its Params were changed before it was cleared."""
    usage.write({key(merchant, date): 5 for merchant in ("acme", "beta") for date in (YESTERDAY, TODAY)})
    first = Run("the run", "manual", (YESTERDAY, TODAY), NOW)
    for _, batch in zip(range(2), scan.scan(usage.client, usage.conn, first, settings())[1], strict=False):
        pipeline.store(usage.client, usage.conn, batch, "the run", settings())
    proof = usage.aggregate(TODAY, merchants=("acme",), run_id="the run")
    assert usage.verdicts(proof) == {TODAY: "verified"}
    proof = usage.aggregate(YESTERDAY, run_id="the run")
    assert usage.verdicts(proof) == {YESTERDAY: "verified"}


def test_what_has_a_verdict_is_not_overwritten(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate(run_id="the run")
    usage.write({key("acme"): 4})
    usage.aggregate(run_id="the run", now=NOW + HOUR)
    found = usage.conn.execute("SELECT attempt, verdict FROM usage_run WHERE run_id = 'the run' ORDER BY attempt")
    assert found.fetchall() == [(1, "verified"), (2, "mismatch")]


def test_a_cleared_verification_is_one_more_attempt(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    stored = usage.store_only()
    usage.prove(stored)
    usage.write({key("acme"): 4})
    usage.prove(stored)
    found = usage.conn.execute("SELECT attempt, verdict FROM usage_run ORDER BY attempt").fetchall()
    assert found == [(1, "verified"), (2, "mismatch")]


def test_of_two_proofs_of_one_scan_the_newer_one_counts(usage: Usage) -> None:
    """As after `clear upsert_merchant_usage`: both attempts began when the scan did."""
    usage.write({key("acme"): 5})
    stored = usage.store_only()
    usage.conn.execute("DELETE FROM merchant_usage")
    with pytest.raises(UsageMismatch):
        usage.prove(stored)
    (batch,) = stored.batches
    results = [pipeline.store(usage.client, usage.conn, batch, stored.plan.run_id, settings())]
    usage.prove(stored._replace(results=results))
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 3")
    (report,) = usage.aggregate(now=NOW + HOUR).reports
    assert report.lowered == (5, 3)


def test_the_newer_of_two_proofs_of_one_scan_is_the_newest_verified(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    stored = usage.store_only()
    ended = [NOW + n * HOUR for n in range(2)]
    for moment in ended:
        with mock.patch.object(clock, "now", lambda moment=moment: moment):
            usage.prove(stored)
    newest = ledger.newest_verified(usage.conn)
    assert newest is not None
    assert newest.finished_at == ended[1]


@pytest.mark.parametrize("date", [YESTERDAY, TODAY], ids=["settled", "live"])
def test_the_proof_of_an_earlier_attempt_stands_for_no_later_one(usage: Usage, date: dt.date) -> None:
    usage.write({key("acme", date): 5})
    usage.aggregate(date, run_id="the run")
    run = Run("the run", "manual", (date,), NOW)
    plan, batches = scan.scan(usage.client, usage.conn, run, settings())
    results = [pipeline.store(usage.client, usage.conn, batch, run.run_id, settings()) for batch in batches]
    usage.conn.execute("DELETE FROM merchant_usage")
    with pytest.raises(UsageMismatch):
        usage.prove(Stored(plan, batches, results))


@pytest.mark.parametrize(
    ("damage", "grown"),
    [
        pytest.param(b"DELETE FROM merchant_usage WHERE merchant_id = 'acme'", 0, id="a row is gone"),
        pytest.param(b"DELETE FROM merchant_usage WHERE merchant_id = 'acme'", 9, id="and another makes up for it"),
        pytest.param(
            b"UPDATE merchant_usage SET metric_value = 3 WHERE merchant_id = 'acme'", 0, id="a row is lowered"
        ),
    ],
)
def test_a_cleared_verification_of_a_live_date_is_not_proven_by_the_one_before(
    usage: Usage, job: Job, damage: bytes, grown: int
) -> None:
    """What the run read is gone with its proof. Cleared as the sentence says, it is mended."""
    acme, beta = key("acme", TODAY), key("beta", TODAY)
    usage.write({acme: 5, beta: 1})
    run_tasks(job)
    usage.conn.execute(damage)
    usage.write({beta: 1 + grown})
    usage.aggregate(TODAY, merchants=("beta",))
    job.clear("verify")
    with pytest.raises(RowsGone, match="holds less of 2026-11-24 than it did then"):
        run_tasks(job)
    job.clear("upsert", "verify")
    assert {report["date"]: report["verdict"] for report in run_tasks(job)}[str(TODAY)] == "verified"
    assert usage.rows() == {acme: 5, beta: 1 + grown}


@pytest.mark.parametrize("date", [YESTERDAY, TODAY], ids=["settled", "live"])
def test_a_cleared_verification_is_proven_once_more_while_the_counter_grows(usage: Usage, date: dt.date) -> None:
    usage.write({key("acme", date): 5})
    stored = usage.store_only(date)
    usage.prove(stored)
    if date == TODAY:
        usage.write({key("acme", date): 6, key("beta", date): 1})
    assert usage.verdicts(usage.prove(stored)) == {date: "verified"}


@pytest.mark.parametrize("when", ["before the second is proven", "after the second is proven"])
def test_a_zombie_of_the_same_run_harms_nothing(usage: Usage, connect: Connect, when: str) -> None:
    """The first attempt's task hangs, is given up, and comes back while the second attempt is at work."""
    counters = {key(merchant, TODAY): 5 for merchant in ("acme", "beta")}
    usage.write(counters)
    run = Run("the run", "scheduled", (TODAY,), NOW)
    _, old_batches = scan.scan(usage.client, usage.conn, run, settings())
    plan, batches = scan.scan(usage.client, usage.conn, run, settings())
    results = [pipeline.store(usage.client, usage.conn, batch, run.run_id, settings()) for batch in batches]
    zombie = connect()

    def comes_back() -> None:
        for batch in old_batches:
            pipeline.store(usage.client, zombie, batch, run.run_id, settings())

    if when == "before the second is proven":
        comes_back()
    usage.write(dict.fromkeys(counters, 6))
    assert usage.verdicts(usage.prove(Stored(plan, batches, results))) == {TODAY: "verified"}
    comes_back()
    assert usage.rows() == dict.fromkeys(counters, 6)
    assert usage.verdicts(usage.aggregate(TODAY, now=NOW + HOUR)) == {TODAY: "verified"}


def test_readings_of_runs_that_fail_do_not_pile_up(usage: Usage) -> None:
    """Hour after hour a run stores everything and fails before it is proven."""
    usage.write({key(f"m{n}", TODAY): 1 for n in range(10)})
    for hour in range(12):
        usage.store_only(TODAY, now=NOW + hour * HOUR)
        usage.conn.execute("UPDATE usage_run SET finished_at = started_at, error = 'failed' WHERE finished_at IS NULL")
    assert usage.readings() <= 3 * 10


def test_readings_are_found_by_an_index(usage: Usage) -> None:
    usage.conn.execute(
        "INSERT INTO usage_reading (run_id, attempt, batch, date, page, keys, counters, number)"
        " SELECT 'run ' || n % 100, 1, n, '2026-11-24', '', '', '1', 1 FROM generate_series(1, 20000) AS n"
    )
    usage.conn.execute("ANALYZE usage_reading")
    plan = usage.conn.execute("EXPLAIN SELECT count(*) FROM usage_reading WHERE run_id = 'run 7' AND attempt = 1")
    assert "Index" in "\n".join(line for (line,) in plan)


@pytest.mark.parametrize("days", [0, 2, 9])
def test_a_cleared_verification_keeps_its_verdict_after_the_keys_have_expired(usage: Usage, days: int) -> None:
    usage.write({key("acme"): 5})
    stored = usage.store_only()
    assert usage.verdicts(usage.prove(stored)) == {YESTERDAY: "verified"}
    usage.client.flushall()
    later = stored.plan.resettled(NOW + dt.timedelta(days=days), settings())
    assert usage.verdicts(usage.prove(stored._replace(plan=later))) == {YESTERDAY: "verified"}
    assert ledger.sealed_dates(usage.conn, [YESTERDAY]) == {YESTERDAY}


@pytest.fixture
def job(valkey: Valkey, database_url: str, tmp_path: Path) -> Job:
    run = Run("the run", "scheduled", (YESTERDAY, TODAY), NOW)
    return Job(valkey.url, database_url, run, settings(), tmp_path)
