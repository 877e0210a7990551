"""Who asks for what, and what a scan decided."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from merchant_usage.model.dates import KeyRules, Scope, is_settled
from merchant_usage.model.risk import SourceState
from merchant_usage.settings import Settings

#: Kinds of runs, in Airflow's words: those that have a data interval of their own.
SCHEDULED: Final = "scheduled"
BACKFILL: Final = "backfill"
#: A run of the command line.
CLI: Final = "cli"
#: How the ids of such runs begin: Airflow knows none of them.
CLI_IDS: Final = f"{CLI}__"
# A run over the moment at which a date settles could not read all of it: it is held to that so much later.
RESETTLE_DELAY: Final = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Run:
    """Who asks for what. `run_type` is Airflow's (scheduled, manual, backfill) or `cli`."""

    run_id: str
    run_type: str
    dates: tuple[dt.date, ...]
    now: dt.datetime
    merchant_ids: tuple[str, ...] | None = None
    #: The data interval of a scheduled run whose dates nobody named.
    interval: tuple[dt.datetime, dt.datetime] | None = None
    #: Who asked for it, where that is known.
    requested_by: str | None = None

    def scopes(self, settings: Settings, others: Iterable[KeyRules] = ()) -> dict[dt.date, Scope]:
        """Its dates, each with whether it is settled by now, also by other rules that runs went by."""
        rules = tuple(others)
        return {
            date: Scope(date, is_settled(date, self.now, settings, rules), self.merchant_ids) for date in self.dates
        }


class Attempt(NamedTuple):
    """Which time a run does its work: each scan of it is one."""

    run_id: str
    number: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a scan decided: the dates of the run, and how many bad keys each of them has by name alone."""

    run_id: str
    scopes: tuple[Scope, ...]
    #: When the run began; of a verification that is repeated later, when that does.
    now: dt.datetime
    dead_letters: dict[dt.date, int] = field(default_factory=dict)
    attempt_number: int = 1
    #: Dates that held more when they were last verified: the sum then, and the sum when the run began.
    lowered: dict[dt.date, tuple[int, int]] = field(default_factory=dict)
    #: What the scan saw of Redis itself; nothing of a run of some merchants only.
    source: SourceState | None = None
    #: Of the first scheduled run of a day that works.
    is_sweep: bool = False

    @property
    def attempt(self) -> Attempt:
        """The attempt of its run that this is."""
        return Attempt(self.run_id, self.attempt_number)

    def resettled(self, now: dt.datetime, settings: Settings) -> Plan:
        """The plan of a verification that is repeated days later: a date that was live then has long been over.

        A day late: see RESETTLE_DELAY.
        """
        scopes = (
            replace(scope, settled=scope.settled or is_settled(scope.date, now - RESETTLE_DELAY, settings))
            for scope in self.scopes
        )
        return replace(self, scopes=tuple(scopes), now=now)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "run_id": self.run_id,
            "attempt": self.attempt_number,
            "now": self.now.isoformat(),
            "scopes": [scope.to_json() for scope in self.scopes],
            "dead_letters": {date.isoformat(): count for date, count in self.dead_letters.items()},
            "lowered": {date.isoformat(): list(sums) for date, sums in self.lowered.items()},
            "source": self.source and self.source.to_json(),
            "is_sweep": self.is_sweep,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """The plan that `to_json` wrote down."""
        return cls(
            data["run_id"],
            tuple(map(Scope.from_json, data["scopes"])),
            dt.datetime.fromisoformat(data["now"]),
            {dt.date.fromisoformat(date): count for date, count in data["dead_letters"].items()},
            data["attempt"],
            {dt.date.fromisoformat(date): (before, now) for date, (before, now) in data.get("lowered", {}).items()},
            SourceState.from_json(data["source"]) if data.get("source") else None,
            data.get("is_sweep", False),
        )
