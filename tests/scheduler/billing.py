"""A DAG of somebody else's: it starts when usage is verified. Copied into the DAGs folder of these tests."""

from __future__ import annotations

import datetime as dt

from airflow.providers.common.compat.sdk import Asset, dag, task


@task
def bill() -> None:
    """Write invoices."""


@dag(
    dag_id="billing",
    schedule=[Asset("merchant_usage")],
    start_date=dt.datetime(2026, 11, 1, tzinfo=dt.UTC),
    catchup=False,
)
def billing() -> None:
    """One task."""
    bill()


billing()
