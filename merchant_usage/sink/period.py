"""All that is known of a period, for some merchants or for all: read row by row, as it is at one moment."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from psycopg import Connection

from merchant_usage.model.keys import CounterKey, parse_key
from merchant_usage.sink import ledger
from merchant_usage.sink.queries import query, stream
from merchant_usage.sink.transactions import set_limits

#: Rows that are asked for at a time.
ROWS: Final = 2000
#: The queries that answer for a period: those of this module, and those that say how its dates stand.
QUERIES: Final = (
    "select_date_states",
    "select_leaves",
    "select_newest_seals",
    "select_period_days",
    "select_period_decisions",
    "select_period_events",
    "select_period_letters",
    "select_period_runs",
    "select_period_seals",
    "select_period_usage",
)


class Period(NamedTuple):
    """Which dates, and whose usage; `merchant_ids` None for all merchants."""

    from_date: dt.date
    to_date: dt.date
    merchant_ids: tuple[str, ...] | None = None

    @property
    def dates(self) -> list[dt.date]:
        """Each of its dates, in their order."""
        days = (self.to_date - self.from_date).days + 1
        return [self.from_date + dt.timedelta(days=day) for day in range(days)]

    @property
    def parameters(self) -> dict[str, Any]:
        """The period as queries take it."""
        merchants = None if self.merchant_ids is None else list(self.merchant_ids)
        return {"from_date": self.from_date, "to_date": self.to_date, "merchant_ids": merchants}


class Sums(NamedTuple):
    """What a date has in all."""

    merchants: int = 0
    counters: int = 0
    total: int = 0


class Used(NamedTuple):
    """A row of `merchant_usage`."""

    merchant_id: str
    date: dt.date
    metric_type: str
    metric_value: int
    carried: int
    created_at: dt.datetime
    updated_at: dt.datetime


class Event(NamedTuple):
    """Something that happened to a counter, or (`metric_type` None) to a merchant, as `usage_explained` tells it."""

    merchant_id: str
    date: dt.date
    happened_at: dt.datetime
    kind: str
    metric_type: str | None
    by_whom: str | None
    value_before: int | None
    value_after: int | None
    told: str


class RunRow(NamedTuple):
    """A row of the ledger; `for_merchants` is how many it was for, None for all."""

    usage_date: dt.date
    run_id: str
    attempt: int
    run_type: str
    requested_by: str | None
    for_merchants: int | None
    settled: bool
    complete: bool
    started_at: dt.datetime
    finished_at: dt.datetime | None
    keys_scanned: int
    merchants: int
    rows_inserted: int
    rows_updated: int
    rows_unchanged: int
    dead_letters: int
    regressed: int
    redis_total: int | None
    postgres_total: int | None
    verdict: str | None
    error: str | None
    key_prefix: str | None
    timezone: str | None


class DecisionRow(NamedTuple):
    """What somebody decided; `redis_key` None where it was a whole date."""

    redis_key: bytes | None
    usage_date: dt.date
    decision: str
    decided_by: str
    decided_at: dt.datetime
    reason: str | None
    approved_by: str | None
    approved_at: dt.datetime | None
    approval_reason: str | None
    value_before: int | None
    value_after: int | None


class LetterRow(NamedTuple):
    """A key that could not be counted."""

    redis_key: bytes
    reason: str
    detail: str
    usage_date: dt.date | None
    first_seen_at: dt.datetime
    last_seen_at: dt.datetime
    attempts: int
    resolved_at: dt.datetime | None
    decision: str | None
    redis_value: int | None
    postgres_value: int | None
    redis_key_sha256: bytes | None


@contextmanager
def snapshot(conn: Connection) -> Iterator[None]:
    """A transaction in which all is read as it was at one moment, and nothing can be written."""
    with conn.transaction():
        conn.execute(query("set_snapshot"))
        conn.execute(query("set_read_only"))
        set_limits(conn)
        conn.execute(query("prepare_verification"))
        yield


def sums(conn: Connection, period: Period) -> dict[dt.date, Sums]:
    """What each date that has rows has in all."""
    rows = conn.execute(query("select_period_days"), period.parameters)
    return {date: Sums(merchants, counters, int(total)) for date, merchants, counters, total in rows}


def usage(conn: Connection, period: Period) -> Iterator[Used]:
    """What is stored, by merchant, date and metric in the order of bytes."""
    for row in stream(conn, "select_period_usage", period.parameters, ROWS):
        yield Used(*row)


def events(conn: Connection, period: Period) -> Iterator[Event]:
    """What happened to counters, by merchant, date and time."""
    for row in stream(conn, "select_period_events", period.parameters, ROWS):
        found = Event(*row)
        yield found._replace(value_before=_whole(found.value_before), value_after=_whole(found.value_after))


def runs(conn: Connection, period: Period) -> Iterator[RunRow]:
    """The ledger, in the order in which it happened."""
    for row in stream(conn, "select_period_runs", period.parameters, ROWS):
        found = RunRow(*row)
        yield found._replace(redis_total=_whole(found.redis_total), postgres_total=_whole(found.postgres_total))


def decisions(conn: Connection, period: Period) -> Iterator[DecisionRow]:
    """What was decided of whole dates, and of the merchants' counters."""
    is_asked = _Asked(conn, period)
    for row in stream(conn, "select_period_decisions", period.parameters, ROWS):
        found = DecisionRow(*row)
        if found.redis_key is None or is_asked(found.redis_key):
            yield found


def letters(conn: Connection, period: Period) -> Iterator[LetterRow]:
    """The merchants' keys that could not be counted; of all merchants, also keys that name none."""
    is_asked = _Asked(conn, period)
    for row in stream(conn, "select_period_letters", period.parameters, ROWS):
        found = LetterRow(*row)
        if is_asked(found.redis_key):
            yield found


class _Asked:
    """Whether a key is one of the merchants of a period, by any prefix that runs have read keys by."""

    def __init__(self, conn: Connection, period: Period) -> None:
        self._merchants = None if period.merchant_ids is None else frozenset(period.merchant_ids)
        self._prefixes = [] if self._merchants is None else sorted(ledger.key_prefixes(conn))

    def __call__(self, raw_key: bytes) -> bool:
        if self._merchants is None:
            return True
        parsed = (parse_key(raw_key, prefix) for prefix in self._prefixes)
        return any(isinstance(key, CounterKey) and key.merchant_id in self._merchants for key in parsed)


def _whole(number: Any) -> int | None:
    return None if number is None else int(number)
