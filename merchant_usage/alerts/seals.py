"""What there is to tell of sealed dates: usage that came after they were sealed, and what is not what was sealed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Final, NamedTuple

from psycopg import Connection

from merchant_usage.alerts import store
from merchant_usage.alerts.alert import Alert, AlertKind
from merchant_usage.alerts.register import Notification
from merchant_usage.errors import PROGRAM
from merchant_usage.model.audit import Audit, DateAudit, MerchantChange, SealState, format_change, format_changes
from merchant_usage.sink import seals
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import transaction
from merchant_usage.steps.seal import LATE, changed_merchants
from merchant_usage.text import capitalized

#: For so long a version is news: what Slack did not take in the meantime, somebody has seen elsewhere.
NEWS_FOR: Final = dt.timedelta(days=7)
MAX_MERCHANTS_LISTED: Final = 10
MAX_PROBLEMS_LISTED: Final = 10


class _Resealed(NamedTuple):
    """A version that nobody's decision accounts for, and what the one before it held."""

    date: dt.date
    version: int
    reason: str
    run_id: str
    before: int
    after: int

    @property
    def key(self) -> str:
        return f"late_usage {self.date} {self.version}"


def gather_seals(conn: Connection, found: Audit | None, run_id: str, now: dt.datetime) -> list[Notification]:
    """Find what is new of sealed dates, and enter it as told.

    Args:
        found: by the audit of this run, if it made one.

    Raises:
        psycopg.Error: PostgreSQL does not answer.
    """
    resealed = [_Resealed(*row) for row in conn.execute(query("select_resealed"), {"since": now - NEWS_FOR})]
    with store.register(conn, [each.key for each in resealed], now) as register:
        fresh = [each for each in resealed if not register.is_told(each.key)]
    # Which merchants it was is found out where nobody waits for it.
    alerts = [_late(conn, each) for each in fresh]
    broken = [*_broken(found, run_id)] if found is not None else []
    keys = [alert.key for alert in (*alerts, *broken)]
    with store.register(conn, keys, now) as register:
        if found is not None:
            register.end_others(AlertKind.SEAL_BROKEN, keys, now)
        return [one for alert in (*alerts, *broken) if (one := register.raise_alert(alert, now))]


def _late(conn: Connection, sealed: _Resealed) -> Alert:
    changes, more = _changes(conn, sealed)
    lines = "".join(f"\n{format_change(change)}" for change in changes)
    rest = f"\nand {more:,} more" if more else ""
    date = sealed.date
    is_late = sealed.reason == LATE
    why = "Usage was counted" if is_late else "Counters changed, and nobody decided it,"
    return Alert(
        AlertKind.LATE_USAGE,
        sealed.key,
        f"Usage of {date} came late" if is_late else f"{date} was sealed anew",
        f"{why} after {date} was sealed with {int(sealed.before):,}. It is verified with {int(sealed.after):,} now, "
        f"and sealed as version {sealed.version}.{lines}{rest}",
        (date,),
        advice="What was invoiced is corrected by a line of its own. Find out why the application counted so late.",
        command=f"{PROGRAM} audit --from {date} --to {date}",
        run_id=sealed.run_id,
    )


def _changes(conn: Connection, sealed: _Resealed) -> tuple[list[MerchantChange], int]:
    """The first merchants whose leaves differ between a version and the one before it, and how many more there are."""
    listed: list[MerchantChange] = []
    more = 0
    with transaction(conn):
        before, after = (
            seals.kept_leaves(conn, sealed.date, version) for version in (sealed.version - 1, sealed.version)
        )
        for change in changed_merchants(before, after):
            if len(listed) < MAX_MERCHANTS_LISTED:
                listed.append(change)
            else:
                more += 1
    return listed, more


def _broken(found: Audit, run_id: str) -> Iterator[Alert]:
    for each in found.dates:
        if each.state is SealState.CHANGED:
            yield _changed(each, run_id)
    if found.chain:
        told = found.chain[:MAX_PROBLEMS_LISTED]
        yield Alert(
            AlertKind.SEAL_BROKEN,
            f"seal_broken chain {told[0]}",
            "The chain of seals is broken",
            "\n".join(f"{capitalized(problem)}." for problem in told),
            advice="Somebody has changed usage_seal. Look for it beside a checkpoint: audit --against FILE.",
            command=f"{PROGRAM} audit",
            run_id=run_id,
        )


def _changed(found: DateAudit, run_id: str) -> Alert:
    date = found.date
    assert found.seal is not None  # what has no seal has not changed
    return Alert(
        AlertKind.SEAL_BROKEN,
        f"seal_broken {date} {found.seal.number} {found.root.hex()}",
        f"{date} is not what was sealed",
        f"It was sealed with {found.seal.total:,}, and PostgreSQL holds {found.total:,}. {format_changes(found)}",
        (date,),
        advice="No verified run and no decision accounts for it. Find out who changed these rows.",
        command=f"{PROGRAM} audit --from {date} --to {date}",
        run_id=run_id,
    )
