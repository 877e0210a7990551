"""A month of usage in which something has happened: what the page has to show."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final

from merchant_usage.model.keys import CounterKey
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.hostile import HOSTILE
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw

DAYS: Final = [TODAY - dt.timedelta(days=days) for days in range(31, 0, -1)]
STEADY: Final = ("acme", "beta", "gamma")
#: One merchant has ten times its usual usage on one day.
SPIKE: Final = CounterKey("acme", TODAY - dt.timedelta(days=4), "queries")
SPIKED: Final = 10_000
#: One counter went backwards, and waits for a person.
REGRESSION: Final = CounterKey("beta", YESTERDAY, "queries")
#: Another did, and a person has decided.
DECISION: Final = CounterKey("gamma", TODAY - dt.timedelta(days=3), "queries")
DECIDED_BY: Final = "alice"
REASON: Final = "Redis was restarted <b>at noon</b>"
#: One day was never aggregated.
MISSED: Final = TODAY - dt.timedelta(days=9)


@dataclass
class Planted:
    """Where it was planted."""

    usage: Usage

    def plant(self) -> None:
        """Aggregate day by day, as it would have been."""
        for day in DAYS:
            noon = dt.datetime.combine(day + dt.timedelta(days=1), NOW.timetz())
            for merchant in STEADY:
                self.usage.write({CounterKey(merchant, day, metric): 1000 + day.day for metric in ("queries", "api")})
            if day == SPIKE.date:
                self.usage.write({SPIKE: SPIKED})
            if day == YESTERDAY:
                self._plant_hostile()
            if day != MISSED:
                self.usage.aggregate(day, now=noon)
            if day == DECISION.date:
                self._lose(DECISION, noon)
                ruling = Ruling(Decision.CARRY, DECIDED_BY, REASON)
                decide(self.usage.client, self.usage.conn, ruling, "usage", key=raw(DECISION))
                self.usage.aggregate(day, now=noon + dt.timedelta(minutes=2))
        self._lose(REGRESSION, NOW)
        # A live day, read twice.
        for count in (300, 500):
            self.usage.write(dict.fromkeys((CounterKey(merchant, TODAY, "queries") for merchant in STEADY), count))
            self.usage.aggregate(TODAY, now=NOW - dt.timedelta(minutes=600 - count))

    def _lose(self, counter: CounterKey, now: dt.datetime) -> None:
        self.usage.write({counter: 5})
        self.usage.aggregate(counter.date, now=now + dt.timedelta(minutes=1))

    def _plant_hostile(self) -> None:
        for number, merchant in enumerate(HOSTILE, start=1):
            self.usage.write({key(merchant): number, key("acme", metric_type=f"m{number}"): number})
        self.usage.client.set(raw(key("<b>bad</b>")), "<script>alert(1)</script>")
        self.usage.client.set("usage:<img src=x onerror=alert(1)>", "1")
