"""How old the newest verified usage is: what `status --max-lag` is about."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from merchant_usage.cli.durations import format_moment
from merchant_usage.clock import format_duration
from merchant_usage.settings import Settings
from merchant_usage.sink.ledger import Verified


@dataclass(frozen=True, slots=True)
class Freshness:
    """The last run that verified the newest date, and up to when usage is verified thereby. None: no run ever did.

    `owed_since`: since when the oldest day is settled that no run has proven since; None if nothing is owed.
    """

    run: Verified | None
    until: dt.datetime
    owed_since: dt.datetime | None
    now: dt.datetime

    @classmethod
    def of(
        cls, run: Verified | None, owed_since: dt.datetime | None, now: dt.datetime, settings: Settings
    ) -> Freshness:
        """Of what the ledger says."""
        return cls(run, now if run is None else run.verified_until(settings), owed_since, now)

    def __str__(self) -> str:
        """For people."""
        if self.run is None:
            return "never"
        age = format_duration(self.now - self.until)
        return f"up to {format_moment(self.until)}, {age} ago, by the run {self.run.run_id}"

    def to_json(self) -> dict[str, Any] | None:
        """For programs."""
        if self.run is None:
            return None
        return {
            "run_id": self.run.run_id,
            "finished_at": self.run.finished_at,
            "verified_until": self.until,
            "age_seconds": max(0, int((self.now - self.until).total_seconds())),
            "owed_since": self.owed_since,
        }

    def problem(self, max_lag: dt.timedelta) -> str | None:
        """Why this is not fresh enough, if it is not."""
        if self.run is None:
            return f"No run was ever verified; --max-lag allows {format_duration(max_lag)}."
        if self.until - self.now > max_lag:
            # It would look fresh until the clocks agree, whatever stops meanwhile.
            return (
                f"Run {self.run.run_id} began at {format_moment(self.until)}, which is still to come: a clock is wrong."
            )
        if self.now - self.until > max_lag:
            return f"The newest verified usage is older than {format_duration(max_lag)}: {self}."
        if self.owed_since is not None and self.now - self.owed_since > max_lag:
            age = format_duration(self.now - self.owed_since)
            return (
                f"A day that was settled at {format_moment(self.owed_since)}, {age} ago, is owed: no run has verified "
                f"its end, or it waits for a decision; --max-lag allows {format_duration(max_lag)}."
            )
        return None
