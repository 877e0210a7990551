"""
### Invoice lines of a month, once its last day is sealed

An example to copy into your DAGs folder, beside `usage_aggregation`, and to change: what it logs, you send.

Where Airflow rolls partitions up (3.3 and later) a run starts by itself when the last day of a month is sealed,
whenever that is. Before, a run starts on the first of the month after, and waits until all days are.

**By hand**, for a month of which some days cannot be sealed (before you went live, or without any usage): trigger it
with `month`, and those days as `unsealed_days`.

**When it is red.** Its error names the days. `merchant-usage status DAY` says what is wrong with one; once it is
verified, clear the task. No line is written before all days are in order.
"""

from __future__ import annotations

import datetime as dt
import logging
from calendar import monthrange
from typing import Any

from airflow.providers.common.compat.sdk import BaseSensorOperator
from airflow.timetables.interval import CronDataIntervalTimetable

from merchant_usage.orchestration.compat import HAS_ROLL_UP, once_a_month
from merchant_usage.orchestration.sdk import Asset, Param, dag, get_current_context, task
from merchant_usage.settings import load_settings

SETTINGS = load_settings()
MERCHANT_USAGE_DAY = Asset("merchant_usage_day")
DAY = 24 * 60 * 60
EVERY_MONTH = CronDataIntervalTimetable("0 0 1 * *", timezone=SETTINGS.timezone.key)

log = logging.getLogger(__name__)

LINES = """
SELECT merchant_id, metric_type, sum(metric_value)
FROM merchant_usage
WHERE date BETWEEN %(first)s AND %(last)s
GROUP BY merchant_id, metric_type
ORDER BY merchant_id, metric_type
"""
PARAMS = {
    "month": Param(
        None,
        type=["null", "string"],
        pattern=r"^\d{4}-(0[1-9]|1[0-2])$",
        title="Month",
        description="Empty: the month whose last day was sealed.",
        examples=["2026-11"],
    ),
    "unsealed_days": Param(
        [],
        type=["array", "null"],
        items={"type": "string", "format": "date"},
        title="Days that need not be sealed",
        description="Days before you went live, or without any usage; billed as they stand.",
    ),
}


def days_of_month(context: Any) -> list[dt.date]:
    """The days of the month that was asked for, or was rolled up, or that the run's interval is."""
    from airflow.providers.common.compat.sdk import AirflowFailException

    run = context["dag_run"]
    month = context["params"]["month"] or getattr(run, "partition_key", None)
    if not month and not HAS_ROLL_UP and run.data_interval_start:
        month = run.data_interval_start.astimezone(SETTINGS.timezone).strftime("%Y-%m")
    if not month:
        raise AirflowFailException('Say which month: {"month": "2026-11"}')
    first = dt.date.fromisoformat(f"{month}-01")
    return [first.replace(day=day) for day in range(1, monthrange(first.year, first.month)[1] + 1)]


def days_in_doubt(conn: Any, context: Any) -> list[str]:
    """The days of the month that are not sealed, or do not hold what they were sealed with; but for those that may."""
    from merchant_usage import clock
    from merchant_usage.steps.sealed import changed_dates, sealed_totals

    days = days_of_month(context)
    sealed = sealed_totals(conn, days, clock.now(), SETTINGS)
    doubtful = {*days} - sealed.keys() | changed_dates(conn, sealed).keys()
    return sorted({str(day) for day in doubtful} - {*(context["params"]["unsealed_days"] or ())})


class MonthIsSealed(BaseSensorOperator):
    """Waits for the month, where Airflow does not."""

    def poke(self, context: Any) -> bool:
        """Ask the ledger."""
        from merchant_usage.orchestration.connections import usage_postgres

        with usage_postgres() as conn:
            waiting = days_in_doubt(conn, context)
        if waiting:
            log.info("Not sealed yet: %s", ", ".join(waiting))
        return not waiting


@task
def write_invoice_lines() -> dict[str, Any]:
    """Read the month as it is at one moment; refuse it if any day of it is in doubt."""
    from airflow.providers.common.compat.sdk import AirflowFailException

    from merchant_usage.orchestration.connections import usage_postgres
    from merchant_usage.sink.queries import query
    from merchant_usage.sink.transactions import set_limits

    context = get_current_context()
    days = days_of_month(context)
    month = f"{days[0]:%Y-%m}"
    lines, units = 0, 0
    with usage_postgres() as conn, conn.transaction():
        conn.execute(query("set_snapshot"))
        set_limits(conn)
        if doubtful := days_in_doubt(conn, context):
            raise AirflowFailException(f"No invoice for {month}, not sealed: {', '.join(doubtful)}")
        with conn.cursor(name="invoice_lines") as cursor:
            for merchant_id, metric_type, quantity in cursor.execute(LINES, {"first": days[0], "last": days[-1]}):
                log.info("Invoice line: %s, %r, %s %s", month, merchant_id, f"{quantity:,}", metric_type)
                lines, units = lines + 1, units + int(quantity)
    return {"month": month, "lines": lines, "units": units}


@dag(
    dag_id="invoice_month",
    description="Writes the invoice lines of a month once all of its days are sealed.",
    doc_md=__doc__,
    schedule=once_a_month(MERCHANT_USAGE_DAY) if HAS_ROLL_UP else EVERY_MONTH,
    start_date=SETTINGS.start_date,
    catchup=False,
    max_active_runs=1,
    default_args={"owner": "billing", "retries": 3, "retry_delay": dt.timedelta(minutes=5)},
    params=PARAMS,
    tags=["billing", "usage"],
)
def invoice_month() -> None:
    """Wire the tasks."""
    lines = write_invoice_lines()
    if not HAS_ROLL_UP:
        MonthIsSealed(task_id="month_is_sealed", mode="reschedule", poke_interval=15 * 60, timeout=14 * DAY) >> lines


invoice_month()
