"""A run from Redis to PostgreSQL: what it stores, what it leaves alone, and what it tells."""

from __future__ import annotations

import datetime as dt
from itertools import count

import pytest

from merchant_usage import pipeline
from merchant_usage.errors import UsageMismatch
from merchant_usage.model.dates import Scope
from merchant_usage.model.run import Run
from merchant_usage.settings import OnRegression
from merchant_usage.sink import ledger
from merchant_usage.steps import scan, store, tally
from merchant_usage.steps.preview import preview
from tests.support import NOW, TODAY, YESTERDAY, Connect, Usage, key, raw, settings

TWO_DAYS_AGO = YESTERDAY - dt.timedelta(days=1)
COUNTERS = {
    key("acme"): 5,
    key("acme", metric_type="calls"): 7,
    key("a:b:c"): 0,
    key("émoji 🎉 %*\n"): 2**63 - 1,
    key("x" * 1024, metric_type="y" * 256): 1,
}


def test_first_run_stores_every_counter(usage: Usage) -> None:
    usage.write(COUNTERS)
    usage.client.set("session:acme", "not ours")
    proof = usage.aggregate(run_id="first")
    assert usage.rows() == COUNTERS
    (report,) = proof.reports
    assert report.to_json() == {
        "date": str(YESTERDAY),
        "verdict": "verified",
        "settled": True,
        "redis_total": sum(COUNTERS.values()),
        "postgres_total": sum(COUNTERS.values()),
        "rows_inserted": 5,
        "rows_updated": 0,
        "rows_unchanged": 0,
        "dead_letters": 0,
        "keys": {"match": 5},
        "merchants": None,
    }
    assert usage.ledger("first") == {YESTERDAY: ("verified", None)}
    assert usage.letters() == []


def test_second_run_touches_no_row(usage: Usage) -> None:
    usage.write(COUNTERS)
    usage.aggregate()
    before = usage.row_versions()
    (report,) = usage.aggregate().reports
    assert usage.row_versions() == before
    assert (report.counts.inserted, report.counts.updated, report.counts.unchanged) == (0, 0, 5)
    # Nor was any row locked, which would cost as much WAL as a small update.
    assert usage.conn.execute("SELECT DISTINCT xmax::text FROM merchant_usage").fetchall() == [("0",)]


@pytest.mark.parametrize("merchants", [60, 2500], ids=["one page", "pages"])
def test_only_what_differs_is_staged(usage: Usage, connect: Connect, merchants: int) -> None:
    """Of a date that is over. Else each run would write catalog rows for a table, and copy all counters into it."""
    usage.write({key(f"m{number:04}"): number for number in range(merchants)})
    usage.aggregate()
    usage.write({key("m0007"): 100, key("m0008"): "poison", key("new"): 1})
    again = Usage(usage.client, connect(), count(100))
    (report,) = again.aggregate().reports
    assert (report.counts.inserted, report.counts.updated, report.counts.unchanged) == (1, 1, merchants - 2)
    assert report.counts.dead_letters == 1
    assert usage.rows()[key("m0007")] == 100
    usage.write({key("m0008"): 8})
    again.aggregate()
    once_more = Usage(usage.client, connect(), count(200))
    (report,) = once_more.aggregate().reports
    assert (report.counts.unchanged, report.keys) == (merchants + 1, {"match": merchants + 1})
    assert once_more.conn.execute("SELECT to_regclass('pg_temp.usage_staged')").fetchone() == (None,)


def test_growth_touches_only_the_rows_that_grew(usage: Usage) -> None:
    usage.write(COUNTERS)
    usage.aggregate()
    before = usage.row_versions()
    usage.client.incrby(raw(key("acme")), 100)
    usage.write({key("new"): 1})
    (report,) = usage.aggregate().reports
    after = usage.row_versions()
    assert {k for k in after if after[k] != before.get(k)} == {key("acme"), key("new")}
    assert usage.rows() == {**COUNTERS, key("acme"): 105, key("new"): 1}
    created, updated = usage.row_versions()[key("acme")][-2:]
    assert created == before[key("acme")][-2]
    assert updated > created
    assert (report.counts.inserted, report.counts.updated, report.counts.unchanged) == (1, 1, 4)


def test_run_keeps_to_its_dates(usage: Usage) -> None:
    usage.write({key("acme", TWO_DAYS_AGO): 1, key("acme", YESTERDAY): 2, key("acme", TODAY): 3})
    usage.aggregate(YESTERDAY)
    assert usage.rows() == {key("acme", YESTERDAY): 2}
    usage.aggregate(TWO_DAYS_AGO, TODAY)
    assert usage.rows() == {key("acme", TWO_DAYS_AGO): 1, key("acme", YESTERDAY): 2, key("acme", TODAY): 3}


def test_run_of_some_merchants_touches_no_other(usage: Usage) -> None:
    usage.write({key("acme"): 1, key("a:b"): 2, key("other"): 3})
    usage.aggregate()
    usage.write({key("acme"): 10, key("a:b"): 20, key("other"): 30, key("another"): 40})
    before = usage.row_versions()
    proof = usage.aggregate(merchants=("acme", "a:b"), run_id="some")
    assert usage.rows() == {key("acme"): 10, key("a:b"): 20, key("other"): 3}
    assert usage.row_versions()[key("other")] == before[key("other")]
    (report,) = proof.reports
    assert (report.verdict, report.redis_total, report.postgres_total) == ("verified", 30, 30)


def test_run_of_some_merchants_seals_no_date(usage: Usage) -> None:
    usage.write({key("acme"): 1})
    assert usage.verdicts(usage.aggregate(merchants=("acme",))) == {YESTERDAY: "verified"}
    assert ledger.sealed_dates(usage.conn, [YESTERDAY]) == set()


def test_prefix_is_kept_apart(usage: Usage) -> None:
    usage.client.mset({f"app:usage:acme:{YESTERDAY}:q": 1, f"usage:acme:{YESTERDAY}:q": 2, f"app:usag*:x:{TODAY}:q": 3})
    usage.aggregate(key_prefix="app:usage")
    assert usage.rows() == {key("acme", metric_type="q"): 1}
    assert usage.letters() == []


def test_verified_run_leaves_no_readings_and_a_failed_one_keeps_them(usage: Usage) -> None:
    usage.write({key("acme", TODAY): 1, key("acme"): 1})
    stored = usage.store_only(TODAY, YESTERDAY)
    assert usage.readings() == 1, "of the live date alone"
    usage.prove(stored)
    assert usage.readings() == 0


def test_readings_of_runs_that_never_came_back_are_cleared(usage: Usage) -> None:
    usage.write({key("acme", TODAY): 5})
    usage.store_only(TODAY)
    ended = usage.store_only(TODAY)
    usage.conn.execute(
        "UPDATE usage_run SET finished_at = %s WHERE run_id = %s", [NOW - dt.timedelta(hours=2), ended.plan.run_id]
    )
    usage.conn.execute(
        "INSERT INTO usage_reading (run_id, date, page, keys, counters, number) VALUES ('unknown', %s, '', '', '1', 1)",
        [TODAY],
    )
    assert usage.readings() == 3
    usage.aggregate()
    assert usage.readings() == 1, "of the run that is under way"


def test_large_batches_are_stored_part_by_part(usage: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_KEYS_PER_TRANSACTION", 7)
    monkeypatch.setattr("merchant_usage.model.pages.PAGE", 3)
    counters = {key(f"m{n:02}", day, metric): n for n in range(30) for day in (YESTERDAY, TODAY) for metric in "abc"}
    counters |= {key("giant", YESTERDAY, f"metric {n}"): n for n in range(50)}
    usage.write(counters)
    proof = usage.aggregate(YESTERDAY, TODAY, max_mapped_tasks=1)
    assert usage.rows() == counters
    assert usage.verdicts(proof) == {YESTERDAY: "verified", TODAY: "verified"}
    assert {report.date: report.counts.inserted for report in proof.reports} == {YESTERDAY: 140, TODAY: 90}
    transactions = usage.conn.execute("SELECT count(DISTINCT xmin::text) FROM merchant_usage").fetchone()
    assert transactions is not None
    assert transactions[0] >= len(counters) / 7


def test_many_merchants_and_small_scan_pages(usage: Usage) -> None:
    counters = {key(f"m{n}", metric_type=metric): n for n in range(2000) for metric in ("queries", "calls")}
    usage.write(counters)
    proof = usage.aggregate(scan_count=10, max_mapped_tasks=5)
    assert usage.rows() == counters
    assert proof.reports[0].keys == {"match": 4000}
    assert proof.merchants == []


def test_date_without_keys_and_rows_is_empty(usage: Usage) -> None:
    proof = usage.aggregate(run_id="empty")
    assert usage.verdicts(proof) == {YESTERDAY: "empty"}
    assert usage.ledger("empty") == {YESTERDAY: ("empty", None)}


def test_date_whose_keys_expired_is_told_and_its_rows_stay(usage: Usage) -> None:
    usage.write(COUNTERS)
    usage.aggregate()
    before = usage.row_versions()
    usage.client.delete(*[raw(counter) for counter in COUNTERS])
    proof = usage.aggregate(run_id="late")
    assert usage.verdicts(proof) == {YESTERDAY: "source_expired"}
    assert usage.ledger("late") == {YESTERDAY: ("source_expired", None)}
    assert usage.row_versions() == before


def test_one_expired_key_does_not_refute_its_date(usage: Usage) -> None:
    usage.write(COUNTERS)
    usage.aggregate()
    usage.client.delete(raw(key("acme")))
    (report,) = usage.aggregate().reports
    assert (report.verdict, report.keys) == ("verified", {"match": 4, "expired": 1})


def test_only_settled_dates_are_sealed(usage: Usage) -> None:
    usage.write({key("acme", YESTERDAY): 1, key("acme", TODAY): 1})
    usage.aggregate(YESTERDAY, TODAY, run_id="a")
    assert ledger.sealed_dates(usage.conn, [YESTERDAY, TODAY]) == {YESTERDAY}
    # A run that is repeated does its work again.


def test_repeated_run_starts_its_ledger_anew(usage: Usage) -> None:
    usage.write({key("acme", TODAY): 1})
    usage.aggregate(TODAY, run_id="same")
    usage.client.incr(raw(key("acme", TODAY)))
    proof = usage.aggregate(TODAY, run_id="same")
    assert usage.ledger("same") == {TODAY: ("verified", None)}
    assert proof.reports[0].counts.updated == 1


def test_verification_of_a_proven_run_can_be_repeated(usage: Usage) -> None:
    usage.write({key("acme", TODAY): 1})
    stored = usage.store_only(TODAY)
    usage.prove(stored)
    usage.client.incr(raw(key("acme", TODAY)))
    assert usage.verdicts(usage.prove(stored)) == {TODAY: "verified"}


def test_ledger_tells_what_was_found_and_done(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("beta"): 6, key("poison"): "x"})
    usage.aggregate(run_id="told")
    (row,) = ledger.runs(usage.conn, YESTERDAY, YESTERDAY)
    told = {name: row[name] for name in row if name not in {"started_at", "finished_at"}}
    assert told == {
        "usage_date": YESTERDAY,
        "run_id": "told",
        "attempt": 1,
        "run_type": "manual",
        "requested_by": None,
        "merchant_ids": None,
        "settled": True,
        "keys_scanned": 3,
        "merchants": 3,
        "rows_inserted": 2,
        "rows_updated": 0,
        "rows_unchanged": 0,
        "dead_letters": 1,
        "regressed": 0,
        "redis_total": 11,
        "postgres_total": 11,
        "verdict": "verified",
        "error": None,
    }
    assert row["started_at"] == NOW


def test_dry_run_writes_nothing_at_all(usage: Usage, logged: list[str]) -> None:
    usage.write({key("acme"): 5, key("gone"): 1, key("lower"): 9, key("same"): 2})
    usage.aggregate()
    usage.write({key("acme"): 6, key("lower"): 3, key("new"): 1, key("poison"): "x"})
    usage.client.delete(raw(key("gone")))
    usage.client.set("usage:malformed", 1)
    before = usage.everything()
    proof = preview(usage.client, usage.conn, Run("dry", "manual", (YESTERDAY,), NOW), settings())
    assert usage.everything() == before
    assert {str(found.key): str(found.verdict) for found in proof.failing} == {
        str(key("acme")): "behind",
        str(key("new")): "missing",
    }
    assert proof.reports[0].keys == {"match": 1, "behind": 1, "missing": 1, "regressed": 1, "expired": 1}
    told = "\n".join(logged)
    assert "mismatch" not in told, "a dry run passes no verdict"
    assert f"{YESTERDAY}: 2 counter(s) would be stored, 1 unchanged, 1 went backwards, 1 expired: " in told
    assert f"Would store: {key('acme')}: Redis has 6, PostgreSQL has 5 (behind)" in logged
    assert f"Went backwards: {key('lower')}: Redis has 3, PostgreSQL has 9 (regressed)" in logged
    assert "Would be a dead letter: usage:malformed" in told
    assert logged[-1] == (
        "Dry run, nothing was written: 2 counter(s) would be stored, 1 went backwards (would stay as stored), "
        "2 key(s) cannot be counted"
    )


def test_dry_run_says_how_many_more_there_are_than_it_lists(
    usage: Usage, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally, "MAX_DIFFERENCES_KEPT", 2)
    monkeypatch.setattr(UsageMismatch, "SHOWN", 2)
    monkeypatch.setattr(tally, "MAX_REGRESSIONS_KEPT", 2)
    monkeypatch.setattr(scan, "MAX_DEAD_LETTERS_A_SCAN", 2)
    usage.write({key(f"lower{n}"): 9 for n in range(5)})
    usage.aggregate()
    usage.write({key(f"lower{n}"): 3 for n in range(5)} | {key(f"new{n}"): 1 for n in range(6)})
    usage.client.mset({f"usage:malformed{n}": 1 for n in range(7)})
    run = Run("dry", "manual", (YESTERDAY,), NOW)
    preview(usage.client, usage.conn, run, settings(on_regression=OnRegression.CARRY))
    for line, more in (
        ("Would store: ", "and 4 more"),
        ("Went backwards: ", "and 3 more"),
        ("Would be a dead letter: ", "and 5 more"),
    ):
        told = [each.removeprefix(line) for each in logged if each.startswith(line)]
        assert len(told) == 3
        assert told[-1] == more
    assert logged[-1] == (
        "Dry run, nothing was written: 6 counter(s) would be stored, 5 went backwards (would be carried on from what "
        "is stored), 7 key(s) cannot be counted"
    )


def test_dry_run_of_a_live_date_tells_what_is_not_stored_yet(usage: Usage) -> None:
    usage.write({key("acme", TODAY): 5})
    before = usage.everything()
    proof = preview(usage.client, usage.conn, Run("dry", "manual", (TODAY,), NOW), settings())
    assert usage.everything() == before
    assert proof.reports[0].keys == {"missing": 1}


def test_progress_is_told_batch_by_batch(usage: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "KEYS_WORTH_A_BATCH", 1)
    usage.write({key(f"m{n}"): n for n in range(3)})
    told: list[tuple[int, int]] = []
    run = Run("told", "cli", (YESTERDAY,), NOW)
    pipeline.aggregate(usage.client, usage.conn, run, settings(), lambda done, all_: told.append((done, all_)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_repeated_run_has_no_verdict_until_it_ends_again(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate(run_id="again")
    assert usage.ledger("again") == {YESTERDAY: ("verified", None)}
    run = Run("again", "manual", (YESTERDAY,), NOW)
    attempt = ledger.start(usage.conn, run, [Scope(YESTERDAY, settled=True)], settings())
    assert attempt.number == 2
    assert usage.ledger("again") == {YESTERDAY: (None, None)}
    kept = usage.conn.execute("SELECT verdict FROM usage_run WHERE run_id = 'again' AND attempt = 1").fetchall()
    assert kept == [("verified",)]
