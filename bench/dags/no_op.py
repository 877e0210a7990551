"""The shape of `usage_aggregation` without its work: what Airflow itself takes for a run."""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow.providers.common.compat.sdk import Param, TriggerRule, chain, dag, get_current_context, task


@task
def scan() -> list[dict[str, Any]]:
    """As many batches as the run is asked for."""
    return [{"number": number} for number in range(get_current_context()["params"]["batches"])]


@task
def upsert(batch: dict[str, Any]) -> dict[str, Any]:
    """One mapped task."""
    return batch


@task(trigger_rule=TriggerRule.ALL_DONE)
def verify(batches: Any, results: Any) -> list[dict[str, Any]]:
    """Takes what both before it returned, as ours does."""
    return [{"batches": len(list(batches)), "results": len(list(results))}]


@task
def delete(batches: Any, reports: Any) -> dict[str, int]:
    """The last one."""
    return {"batches": len(list(batches)), "reports": len(list(reports))}


@dag(
    schedule=None,
    start_date=dt.datetime(2026, 11, 1, tzinfo=dt.UTC),
    params={"batches": Param(1, type="integer", minimum=1)},
    tags=["benchmark"],
)
def no_op() -> None:
    """Wire them as `usage_aggregation` does."""
    batches = scan()
    results = upsert.expand(batch=batches)
    reports = verify(batches, results)
    chain(batches, results, reports, delete(batches, reports))


no_op()
