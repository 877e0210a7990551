"""What a merchant used: hour by hour, and by days, weeks and months."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from psycopg import Connection

from merchant_usage.model.curve import Step
from merchant_usage.model.keys import CounterKey
from merchant_usage.sink.queries import query


class Window(StrEnum):
    """Windows that are summed up; each has its query, select_NAMEs."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Used(NamedTuple):
    """What a merchant used of a metric in a window, named by its first day; and how much of it is sealed."""

    start: dt.date
    metric_type: str
    value: int
    days: int
    days_sealed: int
    closed: bool


class Wanted(NamedTuple):
    """Whose usage, of which dates."""

    merchant_id: str
    from_date: dt.date
    to_date: dt.date


def steps(conn: Connection, wanted: Wanted) -> list[Step]:
    """How its counters grew, by readings, in the order of date, metric and time."""
    return [Step(*row) for row in conn.execute(query("select_hours"), wanted._asdict())]


def used(conn: Connection, wanted: Wanted, window: Window) -> list[Used]:
    """What it used in each of the windows that the dates lie in."""
    rows = conn.execute(query(f"select_{window}s"), wanted._asdict())
    return [Used(start, metric, int(value), *others) for start, metric, value, *others in rows]


@dataclass(slots=True)
class Broken:
    """Counters of a date whose history does not lead to what is stored: how many, and the first of them."""

    number: int = 0
    first: list[CounterKey] = field(default_factory=list)


def broken(conn: Connection, dates: Iterable[dt.date], limit: int) -> dict[dt.date, Broken]:
    """Where somebody else has changed the history of dates, or their rows. Of each date so many are named."""
    found: dict[dt.date, Broken] = defaultdict(Broken)
    rows = conn.execute(query("select_broken_curves"), {"dates": list(dates), "limit": limit})
    for date, number, merchant, metric in rows:
        found[date].number = number
        found[date].first.append(CounterKey(merchant, date, metric))
    return found
