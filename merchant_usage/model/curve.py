"""How a counter grew, by hours as people's clocks show them. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import NamedTuple
from zoneinfo import ZoneInfo


class Step(NamedTuple):
    """What was counted of a counter between two readings, or corrected."""

    date: dt.date
    metric_type: str
    from_at: dt.datetime
    to_at: dt.datetime
    value: int
    correction: bool

    @property
    def middle(self) -> dt.datetime:
        """The moment that says to which hour it belongs: a run reads an hour a little after its end."""
        return self.from_at + (self.to_at - self.from_at) / 2


def by_hours(steps: Iterable[Step], zone: ZoneInfo) -> list[Step]:
    """Steps that lie in one hour put together, in their order.

    An hour in which nothing was read stays in a longer step. Hours are those of the place, each for itself where clocks
    are put back. Corrections stay by themselves.
    """
    hours: list[Step] = []
    for step in steps:
        if hours and _belong_together(hours[-1], step, zone):
            hours[-1] = hours[-1]._replace(to_at=step.to_at, value=hours[-1].value + step.value)
        else:
            hours.append(step)
    return hours


def _belong_together(one: Step, next_: Step, zone: ZoneInfo) -> bool:
    return (
        (one.date, one.metric_type) == (next_.date, next_.metric_type)
        and not (one.correction or next_.correction)
        and _hour(one.middle, zone) == _hour(next_.middle, zone)
    )


def _hour(moment: dt.datetime, zone: ZoneInfo) -> dt.datetime:
    """When the hour began that a clock of the place shows then, in UTC."""
    local = moment.astimezone(zone)
    return local.replace(minute=0, second=0, microsecond=0).astimezone(dt.UTC)
