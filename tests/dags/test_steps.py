"""What lies between the tasks: whose result is whose."""

from __future__ import annotations

from typing import Any

from include.orchestration.steps import BATCH_ID, results_of
from include.usage.store import BatchResult


def batch(batch_id: str) -> dict[str, Any]:
    return {BATCH_ID: batch_id}


def result(batch_id: str, readings: int) -> dict[str, Any]:
    return {**BatchResult(live_readings=readings).to_xcom(), BATCH_ID: batch_id}


def readings(batches: list[dict[str, Any]], results: list[dict[str, Any]]) -> list[int]:
    return [result.live_readings for result in results_of(batches, results)]


def test_each_batch_has_its_result() -> None:
    assert readings([batch("now 0"), batch("now 1")], [result("now 0", 5), result("now 1", 6)]) == [5, 6]


def test_what_is_left_of_the_time_before_does_not_stand_in_for_a_batch_that_was_not_stored() -> None:
    left = [result("before 0", 7), result("before 1", 8)]
    assert readings([batch("now 0"), batch("now 1")], [result("now 0", 5), *left]) == [5]
    assert readings([batch("now 0")], left) == []
