"""The scheduled run for an interval, as Airflow's tasks do it, in one process."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import replace

from psycopg import Connection

from merchant_usage import clock, pipeline
from merchant_usage.model.dates import dates_of_interval
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.report import DateReport, DateVerdict
from merchant_usage.model.run import SCHEDULED, Run
from merchant_usage.settings import Settings
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.cleanup import OldDates, clean_up
from merchant_usage.steps.due import due_dates
from merchant_usage.steps.scan import scan


def run_scheduled(
    client: RedisClient, conn: Connection, start: dt.datetime, settings: Settings
) -> list[DateReport] | None:
    """Run for the interval that begins at `start`, at the time that the clock says.

    Returns the report of each date; None if there was nothing to do.
    """
    now, end = clock.now(), start + settings.interval
    asked = tuple(dates_of_interval(start, now, settings))
    run = Run(f"scheduled__{end.isoformat()}", SCHEDULED, asked, now, interval=(start, end))
    dates = due_dates(conn, run, settings)
    if not dates:
        return None
    plan, batches = scan(client, conn, replace(run, dates=dates), settings, in_process=True)
    results, _ = pipeline.store_all(client, conn, plan, batches, settings)
    proof = pipeline.prove(client, conn, plan, batches, results, settings)

    def keys() -> Iterable[CounterKey]:
        return (key for batch in batches for key in batch.counter_keys())

    verified = [report.date for report in proof.reports if report.verdict is DateVerdict.VERIFIED]
    clean_up(client, conn, keys, OldDates.of(verified, clock.now(), settings), settings)
    return proof.reports
