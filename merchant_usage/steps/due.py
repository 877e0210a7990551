"""What a run has left to do. The one place where a scheduled run decides its dates."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Final

from psycopg import Connection

from merchant_usage.log import Log
from merchant_usage.model.dates import (
    MAX_DATES,
    KeyRules,
    format_dates,
    is_settled,
    local_date,
    oldest_kept,
)
from merchant_usage.model.run import Attempt, Run
from merchant_usage.settings import Settings
from merchant_usage.sink import ledger
from merchant_usage.sink.ledger import DateState
from merchant_usage.sink.queries import query

log = Log(__name__)

ONE_DAY: Final = dt.timedelta(days=1)


def due_dates(conn: Connection, run: Run, settings: Settings) -> tuple[dt.date, ...]:
    """The dates that a run has to handle; none if there is nothing left to do.

    A run that somebody asked for always does its work, on the dates that were asked for. A scheduled one takes, besides
    those of its interval: dates within the retention that are over, settled and not sealed, or that no run has looked
    at since the first of the day should have; older dates whose end no run has come to a verdict about; and dates of
    which a person has decided something since.
    Left out: dates that are sealed, by the clock and the rules of today too, and a date that a run which began after
    this interval has verified already. A run that has to take any date takes all of its interval: they share its scan.
    So does a run that is repeated: somebody wants it to.
    """
    if run.interval is None:
        return run.dates
    asked, now, (start, end) = run.dates, run.now, run.interval
    today = local_date(now, settings)
    oldest = oldest_kept(today, settings)
    rules = ledger.key_rules(conn, oldest - ONE_DAY)
    go_live = local_date(settings.start_date, settings)
    recent = [oldest + days * ONE_DAY for days in range((today - oldest).days)]
    states = ledger.date_states(conn, {*asked, *recent})

    def is_over(date: dt.date) -> bool:
        return is_settled(date, now, settings, rules)

    swept_at = _swept_at(start, settings)

    def is_owed(date: dt.date) -> bool:
        read_at = states[date].read_at
        return not states[date].is_ended or read_at is None or read_at < swept_at

    owed = {date for date in recent if date >= go_live and is_over(date) and is_owed(date)}
    owed.update(_unread(conn, go_live, oldest - ONE_DAY, settings), ledger.decided_dates(conn))

    def is_done(date: dt.date) -> bool:
        state = states[date]
        if is_over(date):
            return state.is_ended and not _was_changed(conn, state)
        # A run from the future is one whose clock was wrong.
        return state.proven_at is not None and end <= state.proven_at <= now

    is_repeated = bool(ledger.run(conn, run.run_id))
    needed = owed | {date for date in asked if is_repeated or not is_done(date)}
    if owed - set(asked):
        log.info(f"Owed, and taken by this run: {format_dates(owed)}", dates=len(owed))
    dates = tuple(sorted({*asked, *needed})) if needed else ()
    return dates[-MAX_DATES:]


def is_sweep(conn: Connection, run: Run, settings: Settings) -> bool:
    """Whether a run is the first scheduled one of a day that works: it does what is done once a day.

    That is whichever comes first once the first interval of the day is over. The run of that interval may have nothing
    left to do, or come to no end, and those that catch up come all at once. One that is repeated is asked anew.
    """
    if run.interval is None:
        return False
    parameters = {"run_id": run.run_id, "since": _swept_at(run.now - settings.interval, settings)}
    row = conn.execute(query("select_has_worked"), parameters).fetchone()
    return row == (False,)


def _swept_at(start: dt.datetime, settings: Settings) -> dt.datetime:
    """When the first run is due of the day in which an interval starts: once the day's first interval is over."""
    return KeyRules.of(settings).midnight(local_date(start, settings)) + settings.interval


def _unread(conn: Connection, go_live: dt.date, last: dt.date, settings: Settings) -> Collection[dt.date]:
    """Older dates whose end nobody read, from the day on on which the first run was."""
    first_run_at = ledger.first_run_at(conn, Attempt("", 0))
    if first_run_at is None:
        return ()
    first = max(go_live, local_date(first_run_at, settings), last - (MAX_DATES - 1) * ONE_DAY)
    return ledger.unread_dates(conn, first, last) if first <= last else ()


def _was_changed(conn: Connection, state: DateState) -> bool:
    """Whether the rows of a date that is sealed are not those any more that were verified; said in the log."""
    if not state.is_sealed or state.verified_total is None:
        return False
    row = conn.execute(query("select_day_totals"), {"dates": [state.date]}).fetchone()
    total = int(row[2]) if row else 0
    if total == state.verified_total:
        return False
    log.warning(
        f"{state.date} was verified with {state.verified_total:,}, and PostgreSQL holds {total:,} now: somebody else "
        "has changed its rows. It is not sealed any more, and is verified anew.",
        date=str(state.date),
        verified=state.verified_total,
        postgres=total,
    )
    return True
