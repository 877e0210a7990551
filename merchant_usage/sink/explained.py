"""Why a number is what it is: what happened to a merchant's counters of a day, by the view `usage_explained`."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

from psycopg import Connection

from merchant_usage.sink.queries import query


class Stored(NamedTuple):
    """What is stored of a counter now."""

    metric_type: str
    metric_value: int
    carried: int
    created_at: dt.datetime
    updated_at: dt.datetime


class Event(NamedTuple):
    """Something that happened: to a counter, or (`metric_type` None) to the whole day."""

    happened_at: dt.datetime
    kind: str
    metric_type: str | None
    #: A person, where it was one and is known.
    by_whom: str | None
    value_before: int | None
    value_after: int | None
    told: str


class Story(NamedTuple):
    """What is stored, and how it came to that, in the order in which it happened."""

    stored: list[Stored]
    events: list[Event]


def explain(
    conn: Connection, merchant_id: str, date: dt.date, metric_type: str | None, part: tuple[int, int | None] = (0, None)
) -> Story:
    """All of a merchant's day as it is at one moment, or of one metric of it.

    Args:
        part: how many events to pass over, and how many to tell at most; None: all.
    """
    parameters = {"merchant_id": merchant_id, "date": date, "metric_type": metric_type}
    first, limit = part
    with conn.transaction():
        conn.execute(query("set_snapshot"))
        stored = [Stored(*row) for row in conn.execute(query("select_stored"), parameters)]
        rows = conn.execute(query("select_explained"), {**parameters, "first": first, "limit": limit})
        return Story(stored, [_event(*row) for row in rows])


def _event(happened_at: dt.datetime, kind: str, metric_type: str | None, by_whom: str | None, *rest: object) -> Event:
    before, after, told = rest
    return Event(happened_at, kind, metric_type, by_whom, _whole(before), _whole(after), str(told))


def _whole(number: object) -> int | None:
    return None if number is None else int(str(number))
