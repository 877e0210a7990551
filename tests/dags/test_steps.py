"""What lies between the tasks: whose result is whose, and what time may have passed."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from merchant_usage.errors import UsageMismatch
from merchant_usage.orchestration.handover import BATCH_ID, results_of
from merchant_usage.steps.store import BatchResult
from tests.support import NOW, TODAY, Usage, key, raw, settings


def batch(batch_id: str) -> dict[str, Any]:
    return {BATCH_ID: batch_id}


def result(batch_id: str, readings: int) -> dict[str, Any]:
    return {**BatchResult(live_readings=readings).to_json(), BATCH_ID: batch_id}


def readings(batches: list[dict[str, Any]], results: list[dict[str, Any]]) -> list[int]:
    return [result.live_readings for result in results_of(batches, results)]


def test_each_batch_has_its_result() -> None:
    assert readings([batch("now 0"), batch("now 1")], [result("now 0", 5), result("now 1", 6)]) == [5, 6]


def test_what_is_left_of_the_time_before_does_not_stand_in_for_a_batch_that_was_not_stored() -> None:
    left = [result("before 0", 7), result("before 1", 8)]
    assert readings([batch("now 0"), batch("now 1")], [result("now 0", 5), *left]) == [5]
    assert readings([batch("now 0")], left) == []


def test_a_verification_cleared_days_later_finds_what_the_day_got_after_this_run(usage: Usage) -> None:
    usage.write({key("acme", TODAY): 5})
    stored = usage.store_only(TODAY)
    assert usage.verdicts(usage.prove(stored)) == {TODAY: "verified"}
    usage.client.incrby(raw(key("acme", TODAY)), 2)

    def cleared(when: dt.datetime) -> dict[dt.date, str]:
        return usage.verdicts(usage.prove(stored._replace(plan=stored.plan.resettled(when, settings()))))

    # The day has settled at 2 o'clock, but a run that lasts may have begun before.
    assert cleared(NOW + dt.timedelta(days=1)) == {TODAY: "verified"}
    usage.aggregate(TODAY)
    assert cleared(NOW + dt.timedelta(days=2)) == {TODAY: "verified"}
    usage.client.incrby(raw(key("acme", TODAY)), 2)
    with pytest.raises(UsageMismatch, match="Redis has 9, PostgreSQL has 7"):
        cleared(NOW + dt.timedelta(days=2))
