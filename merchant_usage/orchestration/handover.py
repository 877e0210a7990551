"""What the tasks of a run leave for each other in XCom: the plan, the batches, and what storing each of them did."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from airflow.providers.common.compat.sdk import Context

from merchant_usage.errors import RunIncomplete
from merchant_usage.model.batches import Batch, current_results
from merchant_usage.model.run import Plan
from merchant_usage.orchestration.names import SCAN_TASK_ID, UPSERT_TASK_ID
from merchant_usage.steps.store import BatchResult

PLAN_KEY: Final = "plan"
#: In the place of a plan: why there is none.
NOTHING_TO_DO: Final = "nothing_to_do"
#: What a task that could not store all of its batch has done.
PARTIAL_KEY: Final = "partial"
#: Names a batch, and the scan that dealt it, to the result of storing it.
BATCH_ID: Final = "id"
#: Where in XCom scan_usage leaves what a batch names. Airflow hands each mapped task the whole list that it is mapped
#: over, so the list has only what tells the batches apart.
BATCH_KEY: Final = "key"


@dataclass(frozen=True, slots=True)
class NothingToDo:
    """Why a run has nothing to store and nothing to prove."""

    why: str


def push_plan(context: Context, plan: Plan | NothingToDo) -> None:
    """Leave the plan for the tasks after the scan."""
    value = {NOTHING_TO_DO: plan.why} if isinstance(plan, NothingToDo) else plan.to_json()
    context["ti"].xcom_push(key=PLAN_KEY, value=value)


def pull_plan(context: Context) -> Plan | NothingToDo:
    """The plan that scan_usage left.

    Pulled by the task itself: as its argument a missing plan would be an error of Airflow's, retried for minutes.

    Raises:
        RunIncomplete: it left none.
    """
    plan: dict[str, Any] | None = context["ti"].xcom_pull(task_ids=SCAN_TASK_ID, key=PLAN_KEY)
    if plan is None:
        raise RunIncomplete(f"{SCAN_TASK_ID} did not finish, so there is nothing to verify: see its log.")
    return NothingToDo(plan[NOTHING_TO_DO]) if NOTHING_TO_DO in plan else Plan.from_json(plan)


def push_batches(context: Context, batches: Iterable[Batch], now: dt.datetime) -> list[dict[str, Any]]:
    """Leave each batch for the task that stores it; returns what the others need to know of it, a line a batch.

    Args:
        now: when the run began, which tells this scan from an earlier one of the same run.
    """
    lines = []
    for number, batch in enumerate(batches):
        key = f"batch_{number}"
        context["ti"].xcom_push(key=key, value=batch.to_json())
        lines.append(
            {
                "name": batch.name,
                "dates": [date.isoformat() for date in batch.dates],
                "counters": batch.key_count,
                BATCH_ID: f"{now.isoformat()} {number}",
                BATCH_KEY: key,
            }
        )
    return lines


def pull_batch(context: Context, line: dict[str, Any]) -> Batch:
    """The batch that scan_usage left.

    Raises:
        RunIncomplete: it is not there any more.
    """
    left = context["ti"].xcom_pull(task_ids=SCAN_TASK_ID, key=line[BATCH_KEY])
    if left is None:
        raise RunIncomplete(
            f"What {SCAN_TASK_ID} found is no longer in XCom: clear {SCAN_TASK_ID} with its downstream tasks."
        )
    return Batch.from_json(left)


def dates_of(line: dict[str, Any]) -> list[dt.date]:
    """The usage dates of a batch."""
    return list(map(dt.date.fromisoformat, line["dates"]))


def result_to_json(line: dict[str, Any], result: BatchResult) -> dict[str, Any]:
    """What storing a batch did, for the task that verifies."""
    return {**result.to_json(), BATCH_ID: line[BATCH_ID]}


def push_partial_result(context: Context, line: dict[str, Any], result: BatchResult) -> None:
    """Leave what a task that is about to fail did: verification then knows which dates are concerned."""
    context["ti"].xcom_push(key=PARTIAL_KEY, value=result_to_json(line, result))


def pull_partial_results(context: Context) -> list[dict[str, Any]]:
    """What tasks that failed have left. They come before whole results, which count if there are both."""
    # A list of task ids asks for all mapped instances, on both versions.
    left = context["ti"].xcom_pull(task_ids=[UPSERT_TASK_ID], key=PARTIAL_KEY) or ()
    return [result for result in left if result is not None]


def results_of(lines: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]]) -> list[BatchResult]:
    """The results of these batches, one each at most."""
    named = ((result[BATCH_ID], BatchResult.from_json(result)) for result in results)
    return current_results((line[BATCH_ID] for line in lines), named)
