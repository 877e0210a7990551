"""
### Usage counters: Redis to PostgreSQL, every hour, proven

The API counts usage in Redis (`usage:{merchant_id}:{date}:{metric_type}`). This DAG moves the counters to the
table `merchant_usage`, which merchants are billed from, and proves the move before a run turns green.

| task | what it does |
|---|---|
| `scan_usage` | one SCAN; deals the merchants found into batches |
| `upsert_merchant_usage` | a task a batch: reads the counters and raises the rows to them, never lowers one |
| `verify_usage` | reads Redis again and compares key by key; emits `merchant_usage` and `merchant_usage_day` |
| `delete_stale_keys` | off by default: deletes keys past the retention whose date is verified |

**Dates.** A run handles the date of its data interval; in the first hours of a day also the day before; the first
run of a day every date within the retention. A scheduled run whose dates are all proven does no work and says so.
By hand: `airflow dags trigger usage_aggregation` takes yesterday, `from_date` and `to_date` any days.

**Connections.** `usage_redis`, `usage_postgres`; `usage_slack` and `usage_pagerduty` if bad news
shall be told there.

**When it is red.** Open the red task: its last line says what was wrong and what to do. Every task may be cleared
and run again at any time, because all writes are absolute and monotone. `verify_usage` red with a list of counters:
clear `upsert_merchant_usage` with its downstream tasks. Bad keys are in `usage_dead_letter`, all runs in `usage_run`.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from merchant_usage.orchestration.compat import HAS_PARTITIONS, RETRY_BACKOFF, dag_lateness, task_lateness
from merchant_usage.orchestration.schedule import timetable
from merchant_usage.orchestration.sdk import Asset, Param, TriggerRule, chain, dag, get_current_context, task
from merchant_usage.settings import DAG_ID, load_settings

# The tasks import their work when they run: the scheduler parses this file over and over.

SETTINGS = load_settings()
# What billing waits for: the first has an event for each run that verified a date; the second, where Airflow has
# partitions, one for each date that is sealed.
ASSETS = [Asset("merchant_usage"), *([Asset("merchant_usage_day")] if HAS_PARTITIONS else [])]
DEFAULT_ARGS = {
    "owner": "usage",
    # 30 s, 1 min, 2 min: outlasts a failover of Redis or PostgreSQL, and is over long before the next run.
    "retries": 3,
    "retry_delay": dt.timedelta(seconds=30),
    "retry_exponential_backoff": RETRY_BACKOFF,
    "max_retry_delay": dt.timedelta(minutes=5),
    # A server that is silent, and whose machine is not, is waited for without end otherwise.
    "execution_timeout": SETTINGS.task_timeout,
}
PARAMS = {
    "from_date": Param(
        None,
        type=["null", "string"],
        format="date",
        title="From date",
        description="First usage date. Empty: as the last. Both empty: yesterday; in a backfill each run's own. "
        "Leave the logical date as it is: it chooses nothing here.",
        examples=["2026-11-01"],
    ),
    "to_date": Param(
        None,
        type=["null", "string"],
        format="date",
        title="To date",
        description="Last usage date, included, not after today. Empty: the same as the first.",
        examples=["2026-11-01"],
    ),
    "merchant_ids": Param(
        [],
        type=["array", "null"],
        items={"type": "string"},
        title="Merchants",
        description="One merchant id a line, taken literally (* is no wildcard). Empty: all merchants.",
    ),
    "dry_run": Param(
        False,
        type="boolean",
        title="Dry run",
        description="Compare and tell what would change; write nothing.",
    ),
}


@task(**task_lateness(SETTINGS))
def scan_usage() -> list[dict[str, Any]]:
    """Find this run's keys with one SCAN and deal their merchants into batches."""
    from merchant_usage.orchestration import tasks

    return tasks.scan_usage(get_current_context(), SETTINGS)


# One value: of a dictionary Airflow would push each entry once more, by a request of its own.
@task(map_index_template="{{ task.op_kwargs['batch']['name'] }}", multiple_outputs=False)
def upsert_merchant_usage(batch: dict[str, Any]) -> dict[str, Any]:
    """Read a batch's counters and raise `merchant_usage` to them."""
    from merchant_usage.orchestration import tasks

    return tasks.upsert_merchant_usage(batch, get_current_context(), SETTINGS)


# All done, not all success: a failed merchant must not keep the others from being proven. It fails by itself then.
@task(trigger_rule=TriggerRule.ALL_DONE, outlets=ASSETS, **task_lateness(SETTINGS))
def verify_usage(batches: Any, results: Any) -> list[dict[str, Any]]:
    """Read Redis again, compare it with PostgreSQL key by key, and fail on any doubt."""
    from merchant_usage.orchestration import tasks

    return tasks.verify_usage(batches, results, get_current_context(), SETTINGS, ASSETS)


@task(multiple_outputs=False, **task_lateness(SETTINGS))
def delete_stale_keys(batches: Any, reports: Any) -> dict[str, int]:
    """Delete keys past the retention whose date is verified, if that is switched on."""
    from merchant_usage.orchestration import tasks

    return tasks.delete_stale_keys(batches, reports, get_current_context(), SETTINGS)


def notify_failure(context: Any) -> None:
    """Send one message a failed run."""
    from merchant_usage.orchestration.callbacks import notify_failure as notify

    notify(context)


def notify_success(context: Any) -> None:
    """Send one message when runs are verified again."""
    from merchant_usage.orchestration.callbacks import notify_success as notify

    notify(context)


def notify_sla_miss(*missed: Any) -> None:
    """Tell that runs are late (Airflow 2.11)."""
    from merchant_usage.orchestration.callbacks import notify_sla_miss as notify

    notify(*missed)


@dag(
    dag_id=DAG_ID,
    description="Moves usage counters from Redis to PostgreSQL, and proves it.",
    doc_md=__doc__,
    schedule=timetable(SETTINGS),
    start_date=SETTINGS.start_date,
    # Said aloud, because Airflow 3 does not catch up by default. Proven dates cost a catch-up run nothing.
    catchup=True,
    max_active_runs=4,
    default_args=DEFAULT_ARGS,
    params=PARAMS,
    on_failure_callback=notify_failure,
    on_success_callback=notify_success,
    tags=["billing", "usage"],
    **dag_lateness(SETTINGS, notify_sla_miss),
)
def usage_aggregation() -> None:
    """Wire the tasks."""
    batches = scan_usage()
    results = upsert_merchant_usage.expand(batch=batches)
    reports = verify_usage(batches, results)
    chain(batches, results, reports, delete_stale_keys(batches, reports))


usage_aggregation()
