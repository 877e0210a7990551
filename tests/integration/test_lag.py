"""How old the oldest unproven usage is, by a real ledger."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from merchant_usage.errors import UsageMismatch
from merchant_usage.sink.lag import proven_until
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw, settings

HOUR = dt.timedelta(hours=1)
#: Only yesterday and today count.
LIVE_SINCE_YESTERDAY = {"start": dt.datetime.combine(YESTERDAY, dt.time())}


def midnight(date: dt.date) -> dt.datetime:
    return dt.datetime.combine(date, dt.time(), dt.UTC)


def until(usage: Usage, now: dt.datetime = NOW, **changes: Any) -> dt.datetime:
    return proven_until(usage.conn, now, settings(**{**LIVE_SINCE_YESTERDAY, **changes})).until


def besides_decisions_until(usage: Usage, now: dt.datetime = NOW) -> dt.datetime:
    return proven_until(usage.conn, now, settings(**LIVE_SINCE_YESTERDAY)).or_undecided_until


def test_usage_is_proven_up_to_the_start_of_the_run_that_proved_it(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("acme", TODAY): 6})
    assert until(usage) == midnight(YESTERDAY)
    usage.aggregate(YESTERDAY, now=NOW - 2 * HOUR)
    assert until(usage) == midnight(TODAY)
    usage.aggregate(TODAY, now=NOW - HOUR)
    assert until(usage) == NOW - HOUR
    assert until(usage, now=NOW + HOUR) == NOW - HOUR, "it does not move by itself"


def test_dates_with_nothing_in_them_are_proven_too(usage: Usage) -> None:
    usage.aggregate(YESTERDAY, TODAY)
    assert until(usage) == NOW


def test_old_date_that_is_aggregated_again_makes_nothing_look_fresh(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("acme", TODAY): 6})
    usage.aggregate(YESTERDAY, TODAY, now=NOW - 3 * HOUR)
    usage.aggregate(YESTERDAY)
    assert until(usage) == NOW - 3 * HOUR


def test_dates_beyond_the_retention_and_before_the_go_live_day_do_not_count(usage: Usage) -> None:
    early = {"start": dt.datetime.fromisoformat("2026-01-01")}
    assert until(usage, **early) == midnight(TODAY - dt.timedelta(days=7))
    assert until(usage, retention_days=3, **early) == midnight(TODAY - dt.timedelta(days=3))
    assert until(usage, start=dt.datetime.combine(TODAY, dt.time())) == midnight(TODAY)
    assert until(usage, start=dt.datetime.combine(TODAY + dt.timedelta(days=2), dt.time())) == NOW


def test_run_of_some_merchants_proves_nothing_of_a_date(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("other"): 6})
    usage.aggregate(YESTERDAY, merchants=("acme",))
    assert until(usage) == midnight(YESTERDAY)


def test_run_that_failed_proves_nothing_and_a_repeated_one_does(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate(TODAY)
    stored = usage.store_only(YESTERDAY)
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 4")
    with pytest.raises(UsageMismatch):
        usage.prove(stored)
    assert until(usage) == midnight(YESTERDAY)
    usage.aggregate(YESTERDAY, run_id=stored.plan.run_id)
    assert until(usage) == NOW


def test_counter_that_waits_for_a_decision_keeps_its_date_unproven(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate(TODAY)
    usage.aggregate(YESTERDAY, now=NOW - HOUR)
    usage.client.set(raw(key("acme")), 1)
    usage.aggregate(YESTERDAY)
    assert until(usage) == NOW - HOUR
    assert besides_decisions_until(usage) == NOW, "runs do their work: nothing but a decision is missing"


def test_a_counter_that_waits_for_a_decision_hides_no_outage(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("acme", TODAY): 5})
    usage.aggregate(YESTERDAY, TODAY, now=NOW - 3 * HOUR)
    usage.client.set(raw(key("acme")), 1)
    usage.aggregate(YESTERDAY, TODAY, now=NOW - 2 * HOUR)
    assert besides_decisions_until(usage) == NOW - 2 * HOUR, "nothing came since"

    usage.client.incr(raw(key("acme", TODAY)))
    stored = usage.store_only(YESTERDAY, TODAY, now=NOW - HOUR)
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 4 WHERE date = %s", [TODAY])
    with pytest.raises(UsageMismatch):
        usage.prove(stored)
    assert besides_decisions_until(usage) == NOW - 2 * HOUR, "today is wrong, and no decision mends that"


def test_a_wrong_key_beside_one_that_waits_for_a_decision_counts(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("other"): 5})
    usage.aggregate(TODAY, YESTERDAY, now=NOW - HOUR)
    usage.client.set(raw(key("acme")), 1)
    stored = usage.store_only(TODAY, YESTERDAY)
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 4 WHERE merchant_id = 'other'")
    with pytest.raises(UsageMismatch):
        usage.prove(stored)
    assert besides_decisions_until(usage) == NOW - HOUR


def test_a_date_whose_end_nobody_read_waits_for_a_decision_too(usage: Usage) -> None:
    usage.aggregate(TODAY, YESTERDAY)
    usage.conn.execute(
        "UPDATE usage_run SET verdict = 'incomplete', error = 'nobody' WHERE usage_date = %s", [YESTERDAY]
    )
    assert (until(usage), besides_decisions_until(usage)) == (midnight(YESTERDAY), NOW)
