"""What the end of a verification has to tell, besides that the run failed."""

from __future__ import annotations

import datetime as dt
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from psycopg import Connection

from merchant_usage.alerts import store
from merchant_usage.alerts.alert import Alert, AlertKind, Discrepancy
from merchant_usage.alerts.register import FailedDelivery, Notification, Register
from merchant_usage.errors import PROGRAM
from merchant_usage.model.dates import Scope, format_dates, local_date, oldest_kept
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.keys import CounterKey, parse_key
from merchant_usage.model.report import DateReport, DateVerdict
from merchant_usage.model.risk import Risk, RiskKind, SourceState
from merchant_usage.model.verdict import Difference, Proof, Verdict
from merchant_usage.settings import Settings
from merchant_usage.sink.queries import query
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.cleanup import expiring
from merchant_usage.text import capitalized, shown

DEAD_LETTERS_COMMAND: Final = f"{PROGRAM} dead-letters"
#: How a message about each danger for usage in Redis begins, and what to do.
RISKS: Final = {
    RiskKind.EVICTED: (
        "Redis has evicted keys",
        "Give Redis more memory, or the counters a server of their own with maxmemory-policy noeviction. Find out from "
        "elsewhere what was counted since the run before.",
    ),
    RiskKind.MAY_EVICT: (
        "Redis may evict usage keys",
        "Set maxmemory-policy to noeviction on the server of the counters, and watch its memory.",
    ),
    RiskKind.WITHOUT_TTL: (
        "Usage keys have no TTL",
        "Let the API set a TTL when it counts, of more days than USAGE_RETENTION_DAYS.",
    ),
    RiskKind.SHORT_TTL: (
        "Usage keys expire too soon",
        "Let the API set a longer TTL (USAGE_RETENTION_DAYS is what is expected), or run more often.",
    ),
}
#: Counters that a message names, and characters of a key.
MAX_COUNTERS_LISTED: Final = 10
LONGEST_KEY: Final = 200
#: Dates that a message lists with a line each; its title names all of them.
MAX_DATES_LISTED: Final = 20


@dataclass(slots=True)
class PendingAlerts:
    """What there is to send, and when the dead letters among it were taken."""

    notifications: list[Notification]
    taken_at: dt.datetime
    #: Of the kinds that take dead letters: whether these are counters that went backwards.
    takes: dict[str, bool] = field(default_factory=dict)


def discrepancy_of(differences: Iterable[Difference]) -> Discrepancy:
    """What Redis has and PostgreSQL has not, by merchant."""
    sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    counters = 0
    for found in differences:
        redis, postgres = sums[found.key.merchant_id]
        expected = max((found.now or 0) + found.carried, found.read or 0)
        sums[found.key.merchant_id] = redis + expected, postgres + (found.stored or 0)
        counters += 1
    return Discrepancy.of(sums, counters)


def discrepancy_of_proof(proof: Proof) -> Discrepancy:
    """The same of a whole verification."""
    at_least = proof.failing_count > len(proof.failing)
    return replace(discrepancy_of(proof.failing), counters=proof.failing_count, at_least=at_least)


def failing_dates(proof: Proof) -> list[dt.date]:
    """The dates that make a run fail."""
    failing = [verdict for verdict in Verdict if verdict.fails]
    return [report.date for report in proof.reports if report.error or any(report.keys.get(v) for v in failing)]


def gather(
    client: RedisClient,
    conn: Connection,
    proof: Proof,
    scopes: Iterable[Scope],
    run_id: str,
    settings: Settings,
    now: dt.datetime,
) -> PendingAlerts:
    """Find what is new, and enter it as told.

    Raises:
        psycopg.Error, redis.exceptions.RedisError: one of the two does not answer.
    """
    alerts = [
        *_without_data(conn, proof, scopes, settings, now),
        *_incomplete(proof),
        *_about_to_expire(client, proof, settings),
    ]
    pending = PendingAlerts([], now)
    with store.register(conn, [alert.key for alert in alerts], now) as register:
        for kind, take in (
            (AlertKind.COUNTER_REGRESSED, lambda: _regressed(conn, run_id, settings, now)),
            (AlertKind.DEAD_LETTERS, lambda: _dead_letters(conn, run_id, now)),
        ):
            _take(pending, register, kind, take)
        pending.notifications += [one for alert in alerts if (one := register.raise_alert(alert, now))]
    return pending


def gather_risks(conn: Connection, source: SourceState | None, run_id: str, now: dt.datetime) -> list[Notification]:
    """Find which dangers for usage in Redis are new, and enter them as told.

    Raises:
        psycopg.Error: PostgreSQL does not answer.
    """
    if source is None:
        return []
    alerts = [_at_risk(risk, run_id) for risk in source.risks]
    keys = [alert.key for alert in alerts]
    with store.register(conn, keys, now) as register:
        register.end_others(AlertKind.SOURCE_AT_RISK, keys, now)
        return [one for alert in alerts if (one := register.raise_alert(alert, now))]


def _at_risk(risk: Risk, run_id: str) -> Alert:
    title, advice = RISKS[risk.kind]
    seen = capitalized(risk.seen)
    return Alert(AlertKind.SOURCE_AT_RISK, f"source_at_risk {risk.kind}", title, seen, advice=advice, run_id=run_id)


def mark_unsent(conn: Connection, pending: PendingAlerts, unsent: Sequence[FailedDelivery]) -> None:
    """These could not be sent: the next run finds them new."""
    with store.register(conn, [message.key for message in unsent], pending.taken_at) as register:
        for key in register.unsent(unsent, pending.taken_at):
            if key in pending.takes:
                parameters = {"told_at": pending.taken_at, "regressed": pending.takes[key]}
                conn.execute(query("release_dead_letters"), parameters)


def _take(pending: PendingAlerts, register: Register, kind: AlertKind, take: Callable[[], Alert | None]) -> None:
    """Dead letters stay new while there is no room for a message about them."""
    if not register.has_room(kind, pending.taken_at) or (alert := take()) is None:
        return
    if notification := register.raise_alert(alert, pending.taken_at):
        pending.notifications.append(notification)
        pending.takes[alert.key] = kind is AlertKind.COUNTER_REGRESSED


def _regressed(conn: Connection, run_id: str, settings: Settings, now: dt.datetime) -> Alert | None:
    rows = conn.execute(query("claim_regressions"), {"told_at": now}).fetchall()
    rows.sort(key=lambda row: ((row[2] or 0) - (row[3] or 0), bytes(row[0])))
    if not rows:
        return None
    sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for raw, _, redis, postgres in rows:
        key = parse_key(bytes(raw), settings.key_prefix)
        merchant = key.merchant_id if isinstance(key, CounterKey) else _text(raw)
        sums[merchant] = sums[merchant][0] + (redis or 0), sums[merchant][1] + (postgres or 0)
    dates = tuple(sorted({date for _, date, _, _ in rows if date is not None}))
    return Alert(
        AlertKind.COUNTER_REGRESSED,
        f"counter_regressed {run_id} {now.isoformat()}",
        f"Usage counters went backwards: {format_dates(dates)}",
        f"{len(rows):,} counter(s) in Redis are lower than what is stored. The stored values stay, and these dates are "
        "a mismatch until somebody decides." + _list_regressed(rows, settings),
        dates,
        Discrepancy.of(sums, len(rows)),
        advice="Find out what happened to Redis (a restart, a failover?). First look at the counters:",
        command=f"{DEAD_LETTERS_COMMAND} --reason {Reason.COUNTER_REGRESSED}",
        decisions=_decisions(rows[0][0])
        + ("\nThe same for each counter, or with --date for all of a date." if len(rows) > 1 else ""),
        run_id=run_id,
    )


def _list_regressed(rows: Sequence[tuple[Any, ...]], settings: Settings) -> str:
    """A line a counter, those that fell most; of many the first."""
    lines = []
    for raw, _, redis, postgres in rows[:MAX_COUNTERS_LISTED]:
        text = shown(_text(raw), LONGEST_KEY)
        key = parse_key(bytes(raw), settings.key_prefix)
        has = "nothing" if redis is None else f"{redis:,}"
        lines.append(
            f"{key if isinstance(key, CounterKey) else text}: Redis {has}, PostgreSQL {postgres or 0:,} ({text})"
        )
    more = f"\nand {len(rows) - len(lines):,} more" if len(rows) > len(lines) else ""
    return "".join(f"\n{line}" for line in lines) + more


def _decisions(raw: Any) -> str:
    """The three things that may be decided of a counter, to be pasted; not of one that would not be the same then."""
    text = _text(raw)
    key = shlex.quote(text) if text.isprintable() and len(text) <= LONGEST_KEY else "KEY"
    return "\n".join(
        f"{PROGRAM} resolve {key} --{decision:<7} # {meaning}"
        for decision, meaning in (
            ("keep", "the stored value is right"),
            ("accept", "the lower one is"),
            ("carry", "Redis began again from zero"),
        )
    )


def _dead_letters(conn: Connection, run_id: str, now: dt.datetime) -> Alert | None:
    rows = conn.execute(query("claim_dead_letters"), {"told_at": now}).fetchall()
    if not rows:
        return None
    total = sum(count for _, count, _ in rows)
    by_reason = "\n".join(
        f"{count:,} {reason}, such as {', '.join(shown(_text(key)) for key in keys)}" for reason, count, keys in rows
    )
    return Alert(
        AlertKind.DEAD_LETTERS,
        f"dead_letters {run_id} {now.isoformat()}",
        f"{total:,} new usage key(s) cannot be counted",
        f"They are dead letters; each run tries them again by itself, and all other keys are counted.\n{by_reason}",
        advice="Mend what writes these keys. Until then their usage is not billed.",
        command=DEAD_LETTERS_COMMAND,
        run_id=run_id,
    )


def _without_data(
    conn: Connection, proof: Proof, scopes: Iterable[Scope], settings: Settings, now: dt.datetime
) -> list[Alert]:
    whole = {scope.date for scope in scopes if scope.merchant_ids is None}
    reports = [report for report in proof.reports if report.date in whole]
    empty = [report for report in reports if report.verdict is DateVerdict.EMPTY]
    parameters = {"dates": [report.date for report in empty], "over": [report.settled for report in empty], "now": now}
    rows = conn.execute(query("select_dates_without_data"), parameters).fetchall() if empty else []
    alerts = [_no_data(date, "Nothing was counted, and on the day before there was usage.") for (date,) in rows]
    oldest = oldest_kept(local_date(now, settings), settings)
    alerts += [_no_data(report.date, _vanished(report)) for report in reports if _has_vanished(report, oldest)]
    return alerts


def _has_vanished(report: DateReport, oldest: dt.date) -> bool:
    return report.verdict is DateVerdict.SOURCE_EXPIRED and report.date > oldest


def _vanished(report: DateReport) -> str:
    return (
        f"Redis has nothing of it any more, though its keys should live for days yet; PostgreSQL keeps the "
        f"{report.postgres_total:,} that was stored."
    )


def _no_data(date: dt.date, what: str) -> Alert:
    return Alert(
        AlertKind.NO_DATA,
        f"no_data {date}",
        f"No usage for {date}",
        what,
        (date,),
        advice="See whether the API still counts, into this Redis and under this key prefix, and whether Redis was "
        "emptied.",
        command=f"{PROGRAM} status {date} --live",
    )


def _incomplete(proof: Proof) -> list[Alert]:
    """One message for all dates of a run whose end nobody read: each of them is named."""
    found = [
        report for report in proof.reports if report.verdict is DateVerdict.INCOMPLETE and report.merchants is None
    ]
    if not found:
        return []
    dates = tuple(report.date for report in found)
    return [
        Alert(
            AlertKind.INCOMPLETE,
            f"incomplete {' '.join(map(str, dates))}",
            f"The end of {format_dates(dates)} was never read",
            "\n".join(f"{report.date}: {report.remark}." for report in found[:MAX_DATES_LISTED]),
            dates,
            advice="Find out from elsewhere what was counted (the API's own logs). These dates are not sealed until "
            "somebody decides that what is stored stands. First look at what was stored:",
            command=f"{PROGRAM} status {dates[0]}",
            decisions=f"{PROGRAM} resolve --date {dates[0]} --keep",
        )
    ]


def _about_to_expire(client: RedisClient, proof: Proof, settings: Settings) -> list[Alert]:
    soon = expiring(client, [found.key for found in proof.failing], settings.key_prefix)
    least = "At least " if proof.failing_count > len(proof.failing) else ""
    by_date: Mapping[dt.date, list[Difference]] = defaultdict(list)
    for found in proof.failing:
        if found.key in soon:
            by_date[found.key.date].append(found)
    return [
        Alert(
            AlertKind.ABOUT_TO_EXPIRE,
            f"about_to_expire {date}",
            f"Usage of {date} is about to be lost",
            f"{least}{len(found):,} counter(s) of {date} are not stored as they are in Redis, "
            "and expire there within a day.",
            (date,),
            discrepancy_of(found),
            advice="Mend what keeps them from being stored today, and aggregate the date again.",
        )
        for date, found in sorted(by_date.items())
    ]


def _text(raw: Any) -> str:
    return bytes(raw).decode(errors="backslashreplace")
