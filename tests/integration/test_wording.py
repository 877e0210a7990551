"""What people read of a run is true and complete: of whom, why totals differ, and what is stored."""

from __future__ import annotations

import datetime as dt

import pytest

from merchant_usage.errors import UpsertFailed
from merchant_usage.model.verdict import Proof
from merchant_usage.steps.resolve import Decision, Ruling, decide
from merchant_usage.tables import describe
from tests.support import TODAY, YESTERDAY, Usage, key, raw

BEFORE = YESTERDAY - dt.timedelta(days=1)
ONE = dt.timedelta(days=1)


def decided(usage: Usage, decision: Decision, merchant: str) -> None:
    decide(usage.client, usage.conn, Ruling(decision, "tester"), "usage", key=raw(key(merchant)))


def table_row(proof: Proof, date: dt.date) -> str:
    """What the table of a run says of a date."""
    (line,) = [line for line in describe(proof).splitlines() if line.startswith(f"| {date}")][:1]
    return line


def test_a_run_of_some_merchants_says_so(usage: Usage, caplog: pytest.LogCaptureFixture) -> None:
    usage.write({key("acme"): 1, key("beta"): 2, key("gamma"): 3})
    with caplog.at_level("INFO"):
        proof = usage.aggregate(merchants=("acme", "beta"))
    assert f"{YESTERDAY}, 2 merchants: verified, Redis 3, PostgreSQL 3" in caplog.text
    assert table_row(proof, YESTERDAY).startswith(f"| {YESTERDAY}, 2 merchants | verified |")
    (report,) = usage.aggregate(merchants=("acme",)).reports
    assert report.name == f"{YESTERDAY}, 1 merchant"
    whole = usage.aggregate()
    assert table_row(whole, YESTERDAY).startswith(f"| {YESTERDAY} | verified |")


@pytest.mark.parametrize("tasks", [1, 100], ids=["one batch", "a batch each"])
def test_a_refused_row_concerns_its_date_alone(usage: Usage, tasks: int) -> None:
    usage.conn.execute(
        "ALTER TABLE merchant_usage ADD CONSTRAINT c CHECK (merchant_id <> 'bad' OR metric_value < 1000)"
    )
    usage.write({key("bad", BEFORE): 5000, key("bad"): 5, key("good", BEFORE): 7, key("good"): 8, key("bad", TODAY): 1})
    with pytest.raises(UpsertFailed):
        usage.aggregate(BEFORE, YESTERDAY, TODAY, run_id="refused", max_mapped_tasks=tasks)
    assert {date: verdict for date, (verdict, _) in usage.ledger("refused").items()} == {
        BEFORE: "mismatch",
        YESTERDAY: "verified",
        TODAY: "verified",
    }
    assert usage.rows() == {key("bad"): 5, key("good", BEFORE): 7, key("good"): 8, key("bad", TODAY): 1}


def test_a_counter_of_another_date_that_went_backwards_does_not_touch_what_matches(usage: Usage) -> None:
    usage.write({key("bad", BEFORE): 10, key("bad"): 5})
    usage.aggregate(BEFORE, YESTERDAY)
    usage.write({key("bad", BEFORE): 9})
    assert usage.verdicts(usage.aggregate(BEFORE, YESTERDAY)) == {BEFORE: "mismatch", YESTERDAY: "verified"}


def test_verified_with_unequal_totals_explains_itself(usage: Usage, caplog: pytest.LogCaptureFixture) -> None:
    usage.write({key("gone"): 10_000, key("kept"): 8000, key("carried"): 9000, key("fine"): 500})
    usage.aggregate()
    usage.write({key("kept"): 70, key("carried"): 3})
    usage.aggregate()
    decided(usage, Decision.KEEP, "kept")
    decided(usage, Decision.CARRY, "carried")
    usage.client.delete(raw(key("gone")))
    caplog.clear()
    with caplog.at_level("INFO"):
        proof = usage.aggregate()
    told = f"{YESTERDAY}: verified, Redis 573, PostgreSQL 27,503: 1 expired, 1 kept, 1 carried"
    assert told in caplog.text
    assert "1 expired, 1 kept, 1 carried" in table_row(proof, YESTERDAY)
    assert proof.reports[0].to_json()["why_unequal"] == {"expired": 1, "kept": 1, "carried": 1}


def test_a_counter_that_became_a_bad_value_is_named_among_the_reasons(
    usage: Usage, caplog: pytest.LogCaptureFixture
) -> None:
    usage.write({key("acme"): 10, key("beta"): 1})
    usage.aggregate()
    usage.write({key("acme"): "ten"})
    with caplog.at_level("INFO"):
        usage.aggregate()
    assert f"{YESTERDAY}: mismatch, Redis 1, PostgreSQL 11: 1 no number any more" in caplog.text


def test_a_mismatch_explains_its_totals_too(usage: Usage, caplog: pytest.LogCaptureFixture) -> None:
    usage.write({key("acme"): 10, key("beta"): 10})
    usage.aggregate()
    usage.write({key("acme"): 9, key("beta"): 11})
    with caplog.at_level("INFO"):
        usage.aggregate()
    assert f"{YESTERDAY}: mismatch, Redis 20, PostgreSQL 21: 1 regressed" in caplog.text


def test_what_is_read_and_what_stays_stored_are_both_told(usage: Usage, caplog: pytest.LogCaptureFixture) -> None:
    usage.write({key("acme", metric_type="api_calls"): 21_223, key("acme"): 5})
    usage.aggregate()
    usage.write({key("acme", metric_type="api_calls"): 20_223, key("acme"): 6})
    with caplog.at_level("INFO"):
        usage.aggregate()
    assert f"Aggregated acme: api_calls = 20,223 read, 21,223 stored, queries = 6 ({YESTERDAY})" in caplog.text


def test_rows_that_someone_else_lowered_are_told_once_with_numbers(
    usage: Usage, caplog: pytest.LogCaptureFixture
) -> None:
    usage.write({key("acme"): 21_223, key("beta"): 7, key("acme", BEFORE): 5})
    usage.aggregate(BEFORE, YESTERDAY)
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 20223 WHERE metric_value = 21223")
    told = (
        f"{YESTERDAY}: verified, Redis 21,230, PostgreSQL 21,230; someone else lowered its rows: they held 21,230 when "
        "it was last verified, and 20,230 when this run began"
    )
    with caplog.at_level("INFO"):
        proof = usage.aggregate(BEFORE, YESTERDAY)
    assert caplog.text.count("someone else lowered") == 1
    assert told in caplog.text
    assert [report.lowered for report in proof.reports] == [None, (21_230, 20_230)]
    caplog.clear()
    with caplog.at_level("INFO"):
        usage.aggregate(BEFORE, YESTERDAY)
    assert "someone else" not in caplog.text


def test_what_a_person_decided_or_a_run_raised_is_nobody_elses_change(
    usage: Usage, caplog: pytest.LogCaptureFixture
) -> None:
    usage.write({key("acme"): 100, key("beta"): 7})
    usage.aggregate()
    usage.write({key("acme"): 60, key("late"): 1})
    usage.aggregate(merchants=("late",))
    usage.aggregate()
    decided(usage, Decision.ACCEPT, "acme")
    usage.aggregate()
    usage.aggregate()
    assert "someone else" not in caplog.text
