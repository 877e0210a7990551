"""A real Airflow 3.3 on 127.0.0.1."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from tests.scheduler.tested import BACKFILL_SECONDS, TestedAirflow


class Airflow3(TestedAirflow):
    """The one that the demo shows."""

    def backfill(
        self, dag_id: str, first: dt.datetime, last: dt.datetime, *, again: bool, conf: Mapping[str, Any]
    ) -> None:
        """Ask the scheduler, which runs one backfill of a DAG at a time."""
        self.wait_until(
            lambda: not self.api.backfill_is_running(dag_id), "the backfill before is completed", BACKFILL_SECONDS
        )
        options = ["--max-active-runs", "3"]
        options += ["--reprocess-behavior", "completed"] if again else []
        options += ["--dag-run-conf", json.dumps(conf)] if conf else []
        dates = ["--from-date", first.isoformat(), "--to-date", last.isoformat()]
        self.cli("backfill", "create", "--dag-id", dag_id, *dates, *options)
