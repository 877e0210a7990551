"""Counters that wait for a decision, by what may have made them go backwards: people are asked a question a cause."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from psycopg import Connection

from merchant_usage.sink.queries import query

#: What was found within so long is one cause: a run finds what a restart took within minutes, the next one comes later.
PAUSE: Final = dt.timedelta(minutes=20)
#: Causes of which people are asked at once; the others are asked about next time.
MAX_CAUSES: Final = 32
EXAMPLES: Final = 10


class Proposed(NamedTuple):
    """What somebody would accept of a cause, and waits for a second person."""

    by: str
    counters: int
    before: int
    after: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Cause:
    """Counters that went backwards in one go.

    Attributes:
        letters: the first and the last of their dead letters, by id; what is opened later lies beyond.
        gone: how many of their keys are gone.
        redis, stored: both sums, as they were last seen, and when they fell.
        examples: some of the keys.
    """

    letters: tuple[int, int]
    counters: int
    gone: int
    dates: tuple[dt.date, ...]
    since: dt.datetime
    redis: int
    stored: int
    examples: tuple[bytes, ...]
    proposals: tuple[Proposed, ...]


def find(conn: Connection, within: tuple[int, int] | None = None) -> list[Cause]:
    """All that wait for a decision, oldest first.

    Args:
        within: only these dead letters, from the first to the last.
    """
    first, last = within or (None, None)
    parameters = {"pause": PAUSE, "first": first, "last": last, "limit": MAX_CAUSES, "examples": EXAMPLES}
    return [
        Cause(
            letters=(row[0], row[1]),
            counters=row[2],
            gone=row[3],
            dates=tuple(sorted(date for date in row[4] if date is not None)),
            since=row[5],
            redis=int(row[6]),
            stored=int(row[7] or 0),
            examples=tuple(map(bytes, row[8])),
            proposals=tuple(_proposals(conn, row[0], row[1])),
        )
        for row in conn.execute(query("select_causes"), parameters).fetchall()
    ]


def _proposals(conn: Connection, first: int, last: int) -> Iterator[Proposed]:
    rows = conn.execute(query("summarize_proposals"), {"first": first, "last": last})
    return (Proposed(by, counters, int(before), int(after), reason) for by, counters, before, after, reason in rows)
