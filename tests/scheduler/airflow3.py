"""A real Airflow 3.3 on 127.0.0.1."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from tests.scheduler.tested import Again, TestedAirflow


class Airflow3(TestedAirflow):
    """The one that the demo shows."""

    def backfill(
        self, dag_id: str, first: dt.datetime, last: dt.datetime, *, again: Again, conf: Mapping[str, Any]
    ) -> None:
        """Ask the scheduler."""
        self.wait_for_backfills(dag_id)
        options = ["--max-active-runs", "3"]
        options += [] if again is Again.NONE else ["--reprocess-behavior", str(again)]
        options += ["--dag-run-conf", json.dumps(conf)] if conf else []
        dates = ["--from-date", first.isoformat(), "--to-date", last.isoformat()]
        self.cli("backfill", "create", "--dag-id", dag_id, *dates, *options)
