"""Proves a run: reads Redis a second time and compares per key, both ways. Sums alone would let errors cancel."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import structlog
from psycopg import Connection

from include.usage import dead_letters
from include.usage.batches import Batch
from include.usage.counters import RedisClient, pages, read_page
from include.usage.dates import Scope
from include.usage.dead_letters import DeadLetter
from include.usage.errors import RunIncomplete
from include.usage.keys import CounterKey, build_key
from include.usage.ledger import Counts, DateReport, DateVerdict
from include.usage.queries import query
from include.usage.staging import Staged, stage
from include.usage.store import BatchResult

log = structlog.get_logger(__name__)

# Failing keys kept for the message, and regressions opened: the rest is counted.
MAX_DIFFERENCES_KEPT: Final = 1000


class Verdict(StrEnum):
    """What verification says of one key."""

    MATCH = "match"
    GROWING = "growing"
    MISSING = "missing"
    BEHIND = "behind"
    REGRESSED = "regressed"
    EXPIRED = "expired"

    @property
    def fails(self) -> bool:
        """Whether one such key makes its date a mismatch."""
        return self in {Verdict.MISSING, Verdict.BEHIND}


def judge(
    *, stored: int | None, carried: int, read: int | None, now: int | None, settled: bool, kept: int | None = None
) -> Verdict:
    """The verdict on one key. Pure, so that it can be tested to death.

    Args:
        stored: `metric_value` in PostgreSQL, looked up before `now` was read; None without a row.
        carried: what `metric_value` holds beyond the counter (after a restart from zero).
        read: what PostgreSQL must hold at least, because this run read so much (and carried so much); None if the
            run did not read the key, or does not know.
        now: the counter in Redis, read last; None if the key is gone. Gone and never stored is `missing` too:
            that usage is lost.
        settled: the date is over and settled: equality, not just the right order, is required.
        kept: where the counter stood when a person decided that the stored value is right, though it is higher.
    """
    if stored is None:
        return Verdict.MISSING if settled or now is None or read is not None else Verdict.GROWING
    if read is not None and stored < read:
        return Verdict.BEHIND
    if now is None:
        return Verdict.EXPIRED
    counted = stored - carried
    if counted > now:
        return Verdict.MATCH if kept is not None and now >= kept else Verdict.REGRESSED
    if counted == now:
        return Verdict.MATCH
    return Verdict.BEHIND if settled else Verdict.GROWING


@dataclass(frozen=True, slots=True)
class Difference:
    """One key on which Redis and PostgreSQL do not agree."""

    key: CounterKey
    verdict: Verdict
    stored: int | None
    carried: int
    read: int | None
    now: int | None

    @property
    def is_unequal(self) -> bool:
        """Whether there is a counter in Redis and PostgreSQL does not hold it."""
        return self.now is not None and self.verdict is not Verdict.MATCH

    def __str__(self) -> str:
        """A line with merchant, metric, date and both numbers."""
        redis = "nothing" if self.now is None else self.now
        postgres = "no row" if self.stored is None else self.stored
        read = "" if self.read is None else f", this run read {self.read}"
        return f"{self.key}: Redis has {redis}, PostgreSQL has {postgres}{read} ({self.verdict})"


@dataclass(slots=True)
class Proof:
    """What verification found: a report for each date, and the keys that fail it (of many, the first)."""

    reports: list[DateReport]
    failing: list[Difference] = field(default_factory=list)
    failing_count: int = 0
    regressed_count: int = 0
    merchants: list[tuple[Any, ...]] = field(default_factory=list)
    regressed: list[Difference] = field(default_factory=list)


def verify(
    client: RedisClient,
    conn: Connection,
    scopes: Sequence[Scope],
    batches: Sequence[Batch],
    result: BatchResult,
    run_id: str,
    prefix: str,
    *,
    merchants_shown: int = 50,
    proven_before: bool = False,
    flag_regressions: bool = True,
) -> Proof:
    """Compare Redis, read anew, with PostgreSQL for all dates of a run.

    PostgreSQL is seen as it was when the comparison began (one snapshot), Redis is read after that: a counter
    that grows, or a parallel run, can then never look like a fault. Counters found below their stored value
    get a `counter_regressed` dead letter.

    Args:
        scopes: the dates of the run, each with whether it was settled when the run began.
        batches: what the scan found.
        result: what storing the batches did.
        merchants_shown: up to this many merchants, their totals are summed up for people.
        proven_before: the run was verified once already, and its readings have been cleared away.
        flag_regressions: open dead letters for counters found below their stored value.

    Raises:
        RunIncomplete: the readings of this run are gone (PostgreSQL crashed in between).
    """
    settled = {scope.date: scope.settled for scope in scopes}
    parameters = _parameters(scopes, run_id)
    differences: dict[dt.date, Counter[Verdict]] = defaultdict(Counter)
    unequal: Counter[dt.date] = Counter()
    failing: list[Difference] = []
    regressed: list[Difference] = []
    failing_count = 0
    with conn.transaction():
        conn.execute(query("set_snapshot"))
        # The first query takes the snapshot: before Redis is read.
        stored = {date: (rows, int(total)) for date, rows, total in conn.execute(query("select_totals"), parameters)}
        if not proven_before:
            _require_readings(conn, run_id, result)
        staged = stage(client, conn, (key for batch in batches for key in batch.counter_keys()), prefix, keep_gone=True)
        with conn.cursor(name="usage_differences") as cursor:
            cursor.itersize = 1000
            for page in pages(cursor.execute(query("select_differences"), parameters)):
                for difference in _judge_page(client, conn, page, settled, prefix, staged):
                    counted = differences[difference.key.date]
                    counted[difference.verdict] += difference.verdict is not Verdict.MATCH
                    unequal[difference.key.date] += difference.is_unequal
                    if difference.verdict.fails:
                        failing_count += 1
                        if len(failing) < MAX_DIFFERENCES_KEPT:
                            failing.append(difference)
                    elif difference.verdict is Verdict.REGRESSED and len(regressed) < MAX_DIFFERENCES_KEPT:
                        regressed.append(difference)
        many = len({merchant for batch in batches for merchant in batch.merchant_ids}) > merchants_shown
        merchants = [] if many else conn.execute(query("summarize_merchants"), parameters).fetchall()
    if flag_regressions:
        _open_regressions(conn, regressed, prefix)
    reports = []
    for scope in scopes:
        reading = staged.by_date[scope.date]
        counted = differences[scope.date] + Counter({Verdict.MATCH: reading.read - unequal[scope.date]})
        rows, postgres_total = stored.get(scope.date, (0, 0))
        reports.append(
            DateReport(
                date=scope.date,
                settled=scope.settled,
                verdict=_date_verdict(counted, reading.read, rows),
                counts=result.counts.get(scope.date, Counts()),
                keys={str(verdict): number for verdict, number in counted.items()},
                redis_total=reading.total,
                postgres_total=postgres_total,
                bad_values=reading.dead_letters,
            )
        )
    regressed_count = sum(counted[Verdict.REGRESSED] for counted in differences.values())
    return Proof(reports, failing, failing_count, regressed_count, merchants, regressed)


def _parameters(scopes: Sequence[Scope], run_id: str) -> dict[str, Any]:
    partial = [(s.date, merchant) for s in scopes if s.merchant_ids is not None for merchant in s.merchant_ids]
    return {
        "run_id": run_id,
        "dates": [scope.date for scope in scopes if scope.merchant_ids is None],
        "merchant_dates": [date for date, _ in partial],
        "merchant_ids": [merchant for _, merchant in partial],
    }


def _require_readings(conn: Connection, run_id: str, result: BatchResult) -> None:
    if not result.live_readings:
        return
    row = conn.execute(query("count_readings"), {"run_id": run_id}).fetchone()
    kept = row[0] if row else 0
    if kept < result.live_readings:
        raise RunIncomplete(
            f"This run read {result.live_readings} counters of live dates, but only {kept} of these readings are "
            "left (PostgreSQL crashed since?). Clear upsert_merchant_usage with its downstream tasks."
        )


def _judge_page(
    client: RedisClient,
    conn: Connection,
    rows: Sequence[tuple[Any, ...]],
    settled: dict[dt.date, bool],
    prefix: str,
    staged: Staged,
) -> list[Difference]:
    """Judge rows of select_differences. Keys without a second reading yet are read here."""
    keys = [CounterKey(*row[:3]) for row in rows]
    raw_keys = [build_key(prefix, key) for key in keys]
    unread = [raw_key for raw_key, row in zip(raw_keys, rows, strict=True) if row[6] is None]
    found = dict(zip(unread, read_page(client, unread) if unread else [], strict=True))
    lower = {
        raw_key: stored
        for raw_key, (*_, stored, carried, _, now) in zip(raw_keys, rows, strict=True)
        if stored is not None and now is not None and stored - carried > now
    }
    kept = dead_letters.kept(conn, lower)
    judged = []
    for key, raw_key, (*_, stored, carried, read, staged_now) in zip(keys, raw_keys, rows, strict=True):
        now = found[raw_key] if staged_now is None else staged_now
        if isinstance(now, DeadLetter):
            continue  # told as a dead letter; there is no number to compare
        if staged_now is None and now is not None:
            staged.by_date[key.date].read += 1
            staged.by_date[key.date].total += now
        verdict = judge(
            stored=stored,
            carried=carried or 0,
            read=read,
            now=now,
            settled=settled[key.date],
            kept=kept.get(raw_key),
        )
        judged.append(Difference(key, verdict, stored, carried or 0, read, now))
    return judged


def _open_regressions(conn: Connection, regressed: Sequence[Difference], prefix: str) -> None:
    """Flag counters that verification was the first to see below their stored value."""
    flagged = dead_letters.regressed_keys(conn, {difference.key.date for difference in regressed})
    letters = [
        DeadLetter.regression(raw_key, found.key.date, redis=found.now, postgres=found.stored, carried=found.carried)
        for found in regressed
        if (raw_key := build_key(prefix, found.key)) not in flagged
        and found.now is not None
        and found.stored is not None
    ]
    dead_letters.open_letters(conn, letters)


def _date_verdict(counted: Counter[Verdict], in_redis: int, in_postgres: int) -> DateVerdict:
    # A regression is a mismatch too, so its date is neither sealed nor cleaned up; it does not fail the run,
    # because its dead letter already asks a person to decide and the other merchants should not wait for that.
    if any(verdict.fails or verdict is Verdict.REGRESSED for verdict in counted):
        return DateVerdict.MISMATCH
    if in_redis:
        return DateVerdict.VERIFIED
    return DateVerdict.SOURCE_EXPIRED if in_postgres else DateVerdict.EMPTY
