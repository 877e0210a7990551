"""What the end of a verification has to tell, besides that the run failed."""

from __future__ import annotations

import datetime as dt
import json
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from psycopg import Connection

from merchant_usage.alerts import store
from merchant_usage.alerts.alert import Alert, Damage, Kind, told_dates
from merchant_usage.alerts.register import Register, Told, Unsent
from merchant_usage.model.dates import Scope, local_date, oldest_kept
from merchant_usage.model.keys import CounterKey, parse_key, shown
from merchant_usage.model.report import DateReport, DateVerdict
from merchant_usage.model.verdict import Difference, Proof, Verdict
from merchant_usage.settings import DAG_ID, Settings
from merchant_usage.sink.queries import query
from merchant_usage.source.counters import RedisClient
from merchant_usage.steps.cleanup import expiring

DEAD_LETTERS_COMMAND: Final = "python -m merchant_usage dead-letters"
#: A longer command would not fit into a message in one piece. Without merchants it is for all: more, and no harm.
MAX_COMMAND: Final = 500


@dataclass(slots=True)
class News:
    """What there is to send, and when the dead letters among it were taken."""

    told: list[Told]
    taken_at: dt.datetime
    #: Of the kinds that take dead letters: whether these are counters that went backwards.
    takes: dict[str, bool] = field(default_factory=dict)


def damage_of(differences: Iterable[Difference]) -> Damage:
    """What Redis has and PostgreSQL has not, by merchant."""
    sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    counters = 0
    for found in differences:
        redis, postgres = sums[found.key.merchant_id]
        expected = max((found.now or 0) + found.carried, found.read or 0)
        sums[found.key.merchant_id] = redis + expected, postgres + (found.stored or 0)
        counters += 1
    return Damage.of(sums, counters)


def damage_of_proof(proof: Proof) -> Damage:
    """The same of a whole verification."""
    at_least = proof.failing_count > len(proof.failing)
    return replace(damage_of(proof.failing), counters=proof.failing_count, at_least=at_least)


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
) -> News:
    """Find what is new, and enter it as told.

    Raises:
        psycopg.Error, redis.exceptions.RedisError: one of the two does not answer.
    """
    alerts = [*_without_data(conn, proof, scopes, settings, now), *_about_to_expire(client, proof, settings)]
    news = News([], now)
    with store.register(conn, [alert.key for alert in alerts], now) as register:
        for kind, take in (
            (Kind.COUNTER_REGRESSED, lambda: _regressed(conn, run_id, settings, now)),
            (Kind.DEAD_LETTERS, lambda: _dead_letters(conn, run_id, now)),
        ):
            _take(news, register, kind, take)
        news.told += [told for alert in alerts if (told := register.raise_alert(alert, now))]
    return news


def take_back(conn: Connection, news: News, unsent: Sequence[Unsent]) -> None:
    """These could not be sent: the next run finds them new."""
    with store.register(conn, [message.key for message in unsent], news.taken_at) as register:
        for key in register.unsent(unsent, news.taken_at):
            if key in news.takes:
                parameters = {"told_at": news.taken_at, "regressed": news.takes[key]}
                conn.execute(query("release_dead_letters"), parameters)


def _take(news: News, register: Register, kind: Kind, take: Callable[[], Alert | None]) -> None:
    """Dead letters stay new while there is no room for a message about them."""
    if not register.has_room(kind, news.taken_at) or (alert := take()) is None:
        return
    if told := register.raise_alert(alert, news.taken_at):
        news.told.append(told)
        news.takes[alert.key] = kind is Kind.COUNTER_REGRESSED


def _regressed(conn: Connection, run_id: str, settings: Settings, now: dt.datetime) -> Alert | None:
    rows = conn.execute(query("claim_regressions"), {"told_at": now}).fetchall()
    if not rows:
        return None
    sums: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for raw, _, redis, postgres in rows:
        key = parse_key(bytes(raw), settings.key_prefix)
        merchant = key.merchant_id if isinstance(key, CounterKey) else _text(raw)
        sums[merchant] = sums[merchant][0] + (redis or 0), sums[merchant][1] + (postgres or 0)
    dates = tuple(sorted({date for _, date, _, _ in rows if date is not None}))
    return Alert(
        Kind.COUNTER_REGRESSED,
        f"counter_regressed {run_id} {now.isoformat()}",
        f"Usage counters went backwards: {told_dates(dates)}",
        f"{len(rows):,} counter(s) in Redis are lower than what is stored. The stored values stay, and these dates are "
        "a mismatch until somebody decides.",
        dates,
        Damage.of(sums, len(rows)),
        advice="Find out what happened to Redis (a restart, a failover?), then decide each counter, or all of a date: "
        "--keep (the stored value is right), --accept (the lower one is), --carry (Redis began again from zero).",
        command=f"python -m merchant_usage resolve --keep --date {dates[0]}" if dates else None,
        run_id=run_id,
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
        Kind.DEAD_LETTERS,
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
        Kind.NO_DATA,
        f"no_data {date}",
        f"No usage for {date}",
        what,
        (date,),
        advice="See whether the API still counts, into this Redis and under this key prefix, and whether Redis was "
        "emptied.",
        command=f"python -m merchant_usage status {date} --live",
    )


def _about_to_expire(client: RedisClient, proof: Proof, settings: Settings) -> list[Alert]:
    soon = expiring(client, [found.key for found in proof.failing], settings.key_prefix)
    least = "At least " if proof.failing_count > len(proof.failing) else ""
    by_date: Mapping[dt.date, list[Difference]] = defaultdict(list)
    for found in proof.failing:
        if found.key in soon:
            by_date[found.key.date].append(found)
    return [
        Alert(
            Kind.ABOUT_TO_EXPIRE,
            f"about_to_expire {date}",
            f"Usage of {date} is about to be lost",
            f"{least}{len(found):,} counter(s) of {date} are not stored as they are in Redis, "
            "and expire there within a day.",
            (date,),
            damage_of(found),
            advice="Mend what keeps them from being stored today, and aggregate the date again.",
            command=rerun_command((date,)),
        )
        for date, found in sorted(by_date.items())
    ]


def rerun_command(dates: Iterable[dt.date], **params: Any) -> str | None:
    """What to type into a shell to aggregate dates again, with these Params besides."""
    days = sorted(dates)
    if not days:
        return None
    conf = {"from_date": str(days[0]), "to_date": str(days[-1])}
    command = _trigger(conf | params)
    return command if len(command) <= MAX_COMMAND else _trigger(conf)


def _trigger(conf: Mapping[str, Any]) -> str:
    # In ASCII nothing has to be spelt out for a reader, but for one character, and what is pasted is what was meant.
    written = json.dumps(conf).replace("\x7f", "\\u007f")
    return f"airflow dags trigger {DAG_ID} -c {shlex.quote(written)}"


def _text(raw: Any) -> str:
    return bytes(raw).decode(errors="backslashreplace")
