"""The ledger `usage_run`: has this date been aggregated, when, by whom, and does it match?"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import dict_row

from merchant_usage import clock
from merchant_usage.driver_errors import explain
from merchant_usage.model.dates import KeyRules, Scope, end_of
from merchant_usage.model.report import DateReport, DateVerdict
from merchant_usage.model.run import Attempt, Run
from merchant_usage.settings import Settings
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import transaction


class Verified(NamedTuple):
    """A run that verified a date."""

    run_id: str
    date: dt.date
    started_at: dt.datetime
    finished_at: dt.datetime

    def verified_until(self, settings: Settings) -> dt.datetime:
        """The moment up to which usage of the date is verified: the run's start, at most the day's end."""
        return min(self.started_at, end_of(self.date, settings)).astimezone(dt.UTC)


class DateState(NamedTuple):
    """How a date stands after all whole runs so far, as far as they read it once it was over and settled."""

    date: dt.date
    #: The newest verdict that says something of the end of the date.
    verdict: DateVerdict | None = None
    #: When the newest run began that verified the date, live or over.
    proven_at: dt.datetime | None = None
    #: The sum that PostgreSQL held when it was last verified.
    verified_total: int | None = None
    #: A counter of it went backwards and waits for a decision.
    is_undecided: bool = False
    #: A person has decided something of it since its last verdict.
    is_decided_since: bool = False
    #: When the newest run over all merchants began that came to a verdict about its end.
    read_at: dt.datetime | None = None

    @property
    def is_sealed(self) -> bool:
        """Whether it was verified once it was over and settled, and nothing has taken that away since."""
        return self.verdict is DateVerdict.VERIFIED and not self.is_undecided

    @property
    def is_incomplete(self) -> bool:
        """Whether nobody read its end, and nobody has said since that what is stored stands."""
        return self.verdict is DateVerdict.INCOMPLETE and not self.is_decided_since

    @property
    def is_ended(self) -> bool:
        """Whether no run has anything left to do for it, unless somebody asks."""
        over = {DateVerdict.SOURCE_EXPIRED, DateVerdict.EMPTY, DateVerdict.INCOMPLETE}
        return self.is_sealed or (self.verdict in over and not self.is_decided_since)


class DateHistory(NamedTuple):
    """What the attempts before this one know of a date."""

    #: One read the end of the date and stored it, or a person decided that what is stored stands.
    is_complete: bool = False
    last_read_at: dt.datetime | None = None
    last_total: int | None = None
    #: This very run verified it once already.
    is_verified_by_run: bool = False
    #: By which prefixes its keys were read.
    prefixes: tuple[str, ...] = ()


def start(conn: Connection, run: Run, scopes: Iterable[Scope], settings: Settings) -> Attempt:
    """Enter a new attempt of a run, and its dates."""
    with transaction(conn):
        row = conn.execute(query("next_attempt"), {"run_id": run.run_id}).fetchone()
        attempt = Attempt(run.run_id, row[0] if row else 1)
        add_dates(conn, attempt, run, scopes, settings)
    return attempt


def add_dates(conn: Connection, attempt: Attempt, run: Run, scopes: Iterable[Scope], settings: Settings) -> None:
    """Enter dates of an attempt."""
    with transaction(conn):
        for scope in sorted(scopes, key=lambda scope: scope.date):
            conn.execute(
                query("start_run"),
                {
                    **attempt_parameters(attempt),
                    "usage_date": scope.date,
                    "run_type": run.run_type,
                    "merchant_ids": None if scope.merchant_ids is None else list(scope.merchant_ids),
                    "settled": scope.settled,
                    "started_at": run.now,
                    "requested_by": run.requested_by,
                    **KeyRules.of(settings)._asdict(),
                },
            )


def note_scan(
    conn: Connection, attempt: Attempt, date: dt.date, *, keys: int, merchants: int, dead_letters: int
) -> None:
    """Write down what the scan found of a date."""
    counts = {"keys_scanned": keys, "merchants": merchants, "dead_letters": dead_letters}
    conn.execute(query("note_scan"), {**attempt_parameters(attempt), "usage_date": date, **counts})


def finish(conn: Connection, attempt: Attempt, reports: Sequence[DateReport], now: dt.datetime) -> None:
    """Write down how an attempt ended, date by date. If it has a verdict already, as an attempt of its own.

    Durable once it returns, whatever the server's or the role's `synchronous_commit`: what is proven may be deleted
    from Redis. That holds for all that was committed before, too.
    """
    with transaction(conn):
        conn.execute(query("set_durable"))
        ended = conn.execute(query("select_attempt_ended"), attempt_parameters(attempt)).fetchone()
        if ended and ended[0]:
            row = conn.execute(query("next_attempt"), {"run_id": attempt.run_id}).fetchone()
            assert row is not None  # an aggregate always returns a row
            conn.execute(query("repeat_attempt"), {**attempt_parameters(attempt), "next_attempt": row[0]})
            attempt = Attempt(attempt.run_id, row[0])
        for report in sorted(reports, key=lambda report: report.date):
            conn.execute(
                query("finish_run"),
                {
                    **attempt_parameters(attempt),
                    "usage_date": report.date,
                    "finished_at": now,
                    "settled": report.settled,
                    "complete": report.complete,
                    "rows_inserted": report.counts.inserted,
                    "rows_updated": report.counts.updated,
                    "rows_unchanged": report.counts.unchanged,
                    "dead_letters": report.counts.dead_letters,
                    "regressed": report.counts.regressed,
                    "redis_total": report.redis_total,
                    "postgres_total": report.postgres_total,
                    "verdict": str(report.verdict),
                    "error": report.error,
                },
            )


def fail(conn: Connection, attempt: Attempt, error: str, now: dt.datetime) -> None:
    """The attempt came to no verdict: say why on all of its rows that have none."""
    with transaction(conn):
        conn.execute(query("fail_run"), {**attempt_parameters(attempt), "error": error, "finished_at": now})


@contextmanager
def record_failure(conn: Connection, attempt: Attempt) -> Iterator[None]:
    """Write an error into the ledger on its way out."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:
        said = "interrupted" if isinstance(error, KeyboardInterrupt) else explain(error)
        with suppress(psycopg.Error):  # PostgreSQL itself may be what failed; the first error is the one to tell
            fail(conn, attempt, said, clock.now())
        raise


def date_states(conn: Connection, dates: Iterable[dt.date]) -> dict[dt.date, DateState]:
    """How dates stand after all whole runs so far."""
    rows = conn.execute(query("select_date_states"), {"dates": list(dates)})
    return {
        date: DateState(
            date, verdict and DateVerdict(verdict), proven_at, None if total is None else int(total), *others
        )
        for date, verdict, proven_at, total, *others in rows
    }


def sealed_dates(conn: Connection, dates: Iterable[dt.date]) -> set[dt.date]:
    """Those of the dates that were verified once they were over and settled, with nothing to take that away since."""
    return {date for date, state in date_states(conn, dates).items() if state.is_sealed}


def date_histories(conn: Connection, dates: Iterable[dt.date], attempt: Attempt) -> dict[dt.date, DateHistory]:
    """What the attempts before this one know of dates."""
    rows = conn.execute(query("select_date_history"), {"dates": list(dates), **attempt_parameters(attempt)})
    return {
        date: DateHistory(complete, read_at, None if total is None else int(total), verified, tuple(prefixes or ()))
        for date, complete, read_at, total, verified, prefixes in rows
    }


def lowered_totals(conn: Connection, attempt: Attempt, dates: Sequence[dt.date]) -> dict[dt.date, tuple[int, int]]:
    """Dates that were verified and hold less than their last verdict found: what it found, and what they hold.

    Nothing of ours lowers a row, unless a person has decided it.
    """
    verified = [
        state.date
        for state in date_states(conn, dates).values()
        if state.verified_total is not None and not state.is_decided_since
    ]
    if not verified:
        return {}
    last = {date: history.last_total for date, history in date_histories(conn, verified, attempt).items()}
    sums = conn.execute(query("select_day_totals"), {"dates": verified})
    held = {date: int(total) for date, _, total, *_ in sums}
    return {
        date: (before, held.get(date, 0))
        for date, before in last.items()
        if before is not None and held.get(date, 0) < before
    }


def first_run_at(conn: Connection, attempt: Attempt) -> dt.datetime | None:
    """When the first run in the ledger began, apart from this attempt; None if there is no other."""
    row = conn.execute(query("select_first_run"), attempt_parameters(attempt)).fetchone()
    return row[0] if row else None


def unread_dates(conn: Connection, first: dt.date, last: dt.date) -> list[dt.date]:
    """Dates whose end no run has come to a verdict about."""
    return [row[0] for row in conn.execute(query("select_unread_dates"), {"from_date": first, "to_date": last})]


def emptied_dates(conn: Connection, dates: Iterable[dt.date]) -> list[dt.date]:
    """Those of the dates of which Redis had nothing left when a whole run last came to a verdict about their end."""
    return [row[0] for row in conn.execute(query("select_emptied_dates"), {"dates": list(dates)})]


def decided_dates(conn: Connection) -> list[dt.date]:
    """Dates of which a person has decided something since their last verdict."""
    return [row[0] for row in conn.execute(query("select_decided_dates"))]


def key_rules(conn: Connection, since: dt.date) -> list[KeyRules]:
    """The settings by which runs of the days since then read keys, the latest first."""
    return [KeyRules(*row) for row in conn.execute(query("select_key_rules"), {"from_date": since})]


def key_prefixes(conn: Connection) -> set[str]:
    """All prefixes that runs have read keys by."""
    return {row[0] for row in conn.execute(query("select_key_prefixes"))}


def proven_totals(conn: Connection, attempt: Attempt) -> dict[dt.date, int]:
    """What was stored of each date of this attempt when it was proven. Empty unless all have a verdict and no error."""
    rows = conn.execute(query("select_proven_totals"), attempt_parameters(attempt))
    return {date: int(total) for date, total in rows}


def attempt_parameters(attempt: Attempt) -> dict[str, Any]:
    """An attempt as queries take it."""
    return {"run_id": attempt.run_id, "attempt": attempt.number}


def runs(conn: Connection, from_date: dt.date, to_date: dt.date) -> list[dict[str, Any]]:
    """The ledger's rows of some dates, newest first."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("select_runs"), {"from_date": from_date, "to_date": to_date}).fetchall()


def newest_runs(conn: Connection, from_date: dt.date, to_date: dt.date) -> list[dict[str, Any]]:
    """The newest row of each of some dates, newest date first, with when the date was last verified.

    If that is of some merchants only, the newest over all of them follows, if there is one.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("select_newest_runs"), {"from_date": from_date, "to_date": to_date}).fetchall()


def run(conn: Connection, run_id: str) -> list[dict[str, Any]]:
    """The rows of one run, by date."""
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("select_run"), {"run_id": run_id}).fetchall()


def unfinished_runs(conn: Connection, run_type: str, since: dt.datetime) -> list[tuple[str, dt.datetime]]:
    """Runs of a kind that began after a moment and have come to no end: id and begin, the oldest first."""
    rows = conn.execute(query("select_unfinished"), {"run_type": run_type, "since": since})
    return [(run_id, began_at) for run_id, began_at in rows]


def newest_verified(conn: Connection) -> Verified | None:
    """Of the runs over all merchants with nothing but good verdicts, the last one that verified the newest date."""
    row = conn.execute(query("select_newest_verified")).fetchone()
    return Verified(*row) if row else None
