"""Who asks for what, and what a scan decided."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from merchant_usage.model.dates import Scope, is_settled
from merchant_usage.settings import Settings


@dataclass(frozen=True, slots=True)
class Run:
    """Who asks for what. `run_type` is Airflow's (scheduled, manual, backfill) or `cli`."""

    run_id: str
    run_type: str
    dates: tuple[dt.date, ...]
    now: dt.datetime
    merchant_ids: tuple[str, ...] | None = None

    def scopes(self, settings: Settings) -> dict[dt.date, Scope]:
        """Its dates, each with whether it is settled by now."""
        return {date: Scope(date, is_settled(date, self.now, settings), self.merchant_ids) for date in self.dates}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a scan decided: the dates of the run, and how many bad keys each of them has by name alone."""

    run_id: str
    scopes: tuple[Scope, ...]
    dead_letters: dict[dt.date, int] = field(default_factory=dict)

    def to_xcom(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "run_id": self.run_id,
            "scopes": [scope.to_xcom() for scope in self.scopes],
            "dead_letters": {date.isoformat(): count for date, count in self.dead_letters.items()},
        }

    @classmethod
    def from_xcom(cls, data: dict[str, Any]) -> Plan:
        """The plan that `to_xcom` wrote down."""
        return cls(
            data["run_id"],
            tuple(map(Scope.from_xcom, data["scopes"])),
            {dt.date.fromisoformat(date): count for date, count in data["dead_letters"].items()},
        )
