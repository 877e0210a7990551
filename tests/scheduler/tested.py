"""What the tests ask of a real Airflow, whatever its version, besides what the demo asks."""

from __future__ import annotations

import datetime as dt
from abc import abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from local.airflow import LocalAirflow


class Again(StrEnum):
    """Which intervals that have a run already a backfill runs again, by the names of 3.3."""

    NONE = "none"
    FAILED = "failed"
    COMPLETED = "completed"


# A backfill on 2.11 ends with its command.
BACKFILL_SECONDS = 180


class TestedAirflow(LocalAirflow):
    """An Airflow that can also be asked for a backfill."""

    __test__ = False

    @abstractmethod
    def backfill(
        self, dag_id: str, first: dt.datetime, last: dt.datetime, *, again: Again, conf: Mapping[str, Any]
    ) -> None:
        """Start a backfill of the intervals that begin between two moments, by the command of the docs."""

    def wait_for_backfills(self, dag_id: str) -> None:
        """Let the backfills before this moment end: Airflow runs one of a DAG at a time."""
        self.wait_until(
            lambda: self.api.complete_backfills(dag_id), "the backfills before have ended", BACKFILL_SECONDS
        )
