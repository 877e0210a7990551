"""Proves a run: reads Redis a second time and compares per key, both ways. Sums alone would let errors cancel."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from psycopg import Connection

from merchant_usage.errors import ReadingsGone, RowsGone
from merchant_usage.model.batches import Batch, Group
from merchant_usage.model.dates import Scope
from merchant_usage.model.keys import CounterKey, parse_key
from merchant_usage.model.pages import key_pages
from merchant_usage.model.report import Counts, DateReport
from merchant_usage.model.run import Attempt
from merchant_usage.model.verdict import DateFindings, Proof, Verdict, judge_date
from merchant_usage.settings import Settings
from merchant_usage.sink import absences, dead_letters, ledger
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import set_limits
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.curves import broken_curves
from merchant_usage.steps.judgement import Context, state_regressions
from merchant_usage.steps.key_checks import (
    ScannedPage,
    by_date,
    check_scanned_keys,
    check_unsaved,
    check_unscanned_rows,
    pages_with_readings,
)
from merchant_usage.steps.past import Past
from merchant_usage.steps.staging import stage_names
from merchant_usage.steps.store import BatchResult
from merchant_usage.steps.tally import MAX_DIFFERENCES_KEPT, Tally


@dataclass(frozen=True, slots=True)
class Claim:
    """What is to be verified.

    Attributes:
        scopes: the dates of the run, each with whether it was settled when the run began.
        batches: what the scan found.
        result: what storing the batches did.
        attempt: the attempt of the run; None for a comparison that writes nothing, dead letters neither.
        merchants_shown: up to this many merchants, their totals are summed up for people.
    """

    scopes: Sequence[Scope]
    batches: Sequence[Batch]
    result: BatchResult = field(default_factory=BatchResult)
    attempt: Attempt | None = None
    merchants_shown: int = 50


def verify(client: RedisClient, conn: Connection, claim: Claim, settings: Settings, now: dt.datetime) -> Proof:
    """Compare Redis, read anew, with PostgreSQL for all dates of a run.

    PostgreSQL is seen as it was when the comparison began (one snapshot), Redis is read after that: a counter
    that grows, or a parallel run, can then never look like a fault. Counters found below their stored value, or gone
    before their time, are looked at once more with their rows locked, and get a `counter_regressed` dead letter.

    Raises:
        ReadingsGone: the readings of this attempt are gone (PostgreSQL crashed in between).
        RowsGone: so are some rows of an attempt that was verified before.
    """
    parameters = _parameters(claim.scopes)
    groups = by_date(group for batch in claim.batches for group in batch.groups)
    past = Past.of(client, conn, claim.scopes, groups, claim.attempt, settings, now)
    tally = Tally()
    suspects = frozenset(dead_letters.open_keys(conn, [scope.date for scope in claim.scopes]))
    with conn.transaction():
        conn.execute(query("set_snapshot"))
        set_limits(conn)
        conn.execute(query("prepare_verification"))
        # The first query takes the snapshot: before Redis is read.
        sums = conn.execute(query("select_totals" if parameters["merchant_dates"] else "select_day_totals"), parameters)
        stored = {date: _Totals(*map(int, totals)) for date, *totals in sums}
        context = Context(
            client,
            conn,
            {scope.date: scope.settled for scope in claim.scopes},
            settings.key_prefix,
            past,
            suspects,
            frozenset(date for date, counts in claim.result.counts.items() if counts.expired),
            writes=claim.attempt is not None,
        )
        context.undecided.update(_undecided(conn, claim.scopes, settings.key_prefix))
        proven: dict[dt.date, int] = {}
        scanned: Iterable[ScannedPage] = ((page, ()) for page in key_pages(groups, settings.key_prefix))
        if claim.attempt is not None and claim.result.live_readings:
            proven = _require_readings(conn, claim.attempt, claim.result)
            scanned = pages_with_readings(context, claim.attempt, claim.batches)
        undecided = Counter(context.undecided.values())
        check_scanned_keys(context, scanned, tally)
        _require_rows(context, proven, stored, tally, claim.result)
        if context.unsaved or any(totals.rows != tally.by_date[date].with_row for date, totals in stored.items()):
            stage_names(conn, groups, settings.key_prefix)
            check_unscanned_rows(context, parameters, tally)
            check_unsaved(context, tally)
        few = _has_at_most(claim.merchants_shown, groups)
        limit = claim.merchants_shown * len(claim.scopes)
        merchants = _summarize(conn, parameters, tally, limit) if few else []
        broken = broken_curves(conn, claim.scopes) if claim.attempt is not None else {}
    if claim.attempt is not None:
        state_regressions(context, tally, settings)
        absences.note(conn, tally.absent, now)
    reports = [
        _report(scope, stored.get(scope.date, _Totals()), tally, past, claim.result, undecided[scope.date])
        for scope in claim.scopes
    ]
    for report in reports:
        report.broken_curves = broken.get(report.date, 0)
    regressed_count = sum(found.verdicts[Verdict.REGRESSED] for found in tally.by_date.values())
    regressed = [*tally.regressed, *tally.known][:MAX_DIFFERENCES_KEPT]
    return Proof(reports, tally.failing, tally.failing_count, regressed_count, merchants, regressed)


def _report(scope: Scope, totals: _Totals, tally: Tally, past: Past, result: BatchResult, undecided: int) -> DateReport:
    found = tally.by_date[scope.date]
    matching = totals.rows - found.rows
    counted = found.verdicts + Counter({Verdict.MATCH: matching})
    findings = DateFindings(
        settled=scope.settled,
        verdicts=counted,
        in_redis=matching + found.in_redis,
        in_postgres=totals.rows,
        is_undecided=undecided > 0 or found.turned_bad > 0,
        **past.findings(scope, gone=found.gone_before),
    )
    verdict = judge_date(findings)
    return DateReport(
        date=scope.date,
        settled=scope.settled,
        verdict=verdict,
        counts=result.counts.get(scope.date, Counts()),
        keys={str(each): number for each, number in counted.items()},
        redis_total=totals.counted + found.more_in_redis,
        postgres_total=totals.total,
        bad_values=found.bad_values,
        turned_bad=found.turned_bad,
        undecided=undecided,
        kept=found.kept,
        carried=totals.carrying,
        complete=scope.merchant_ids is None and findings.is_complete(verdict),
        merchants=None if scope.merchant_ids is None else len(scope.merchant_ids),
        remark=past.remark(scope.date, verdict),
    )


def _has_at_most(limit: int, groups: Iterable[Group]) -> bool:
    """Whether the groups name so many merchants, or fewer; without counting on."""
    seen: set[str] = set()
    for group in groups:
        seen.update(group.merchant_ids[: limit + 1])
        if len(seen) > limit:
            return False
    return True


class _Totals(NamedTuple):
    """What is stored of a date: rows, the sum of their values and of their counters, and rows that carry something."""

    rows: int = 0
    total: int = 0
    counted: int = 0
    carrying: int = 0


def _undecided(conn: Connection, scopes: Sequence[Scope], prefix: str) -> dict[bytes, dt.date]:
    """Keys of these scopes that went backwards and wait for a decision, and their dates."""
    merchants = {scope.date: scope.merchant_ids for scope in scopes}
    found = {}
    for raw_key, date in dead_letters.regressed_keys(conn, merchants).items():
        key, of_some = parse_key(raw_key, prefix), merchants[date]
        if of_some is None or (isinstance(key, CounterKey) and key.merchant_id in of_some):
            found[raw_key] = date
    return found


def _summarize(conn: Connection, parameters: dict[str, Any], tally: Tally, limit: int) -> list[tuple[Any, ...]]:
    """Redis beside PostgreSQL, a line a date and merchant, for people; nothing if that is more than `limit` lines."""
    name = "summarize_merchants" if parameters["merchant_dates"] else "summarize_days"
    rows = conn.execute(query(name), {**parameters, "limit": limit + 1}).fetchall()
    if len(rows) > limit:
        return []
    lines = {(date, merchant): [number, int(counted), int(total)] for date, merchant, number, counted, total in rows}
    for of_merchant, (without_row, more) in tally.by_merchant.items():
        line = lines.setdefault(of_merchant, [0, 0, 0])
        line[0] += without_row
        line[1] += more
    return [(*of_merchant, *line) for of_merchant, line in sorted(lines.items())]


def _parameters(scopes: Sequence[Scope]) -> dict[str, Any]:
    partial = [(s.date, merchant) for s in scopes if s.merchant_ids is not None for merchant in s.merchant_ids]
    return {
        "dates": [scope.date for scope in scopes if scope.merchant_ids is None],
        "merchant_dates": [date for date, _ in partial],
        "merchant_ids": [merchant for _, merchant in partial],
        "all_dates": [scope.date for scope in scopes],
    }


def _require_readings(conn: Connection, attempt: Attempt, result: BatchResult) -> dict[dt.date, int]:
    """Make sure that the readings are there. If they were cleared away with a proof, returns what was stored then."""
    row = conn.execute(query("count_readings"), {"run_id": attempt.run_id, "attempt": attempt.number}).fetchone()
    kept = row[0] if row else 0
    if kept >= result.live_readings:
        return {}
    if proven := ledger.proven_totals(conn, attempt):
        return proven
    raise ReadingsGone(result.live_readings, kept)


def _require_rows(
    context: Context,
    proven: dict[dt.date, int],
    stored: dict[dt.date, _Totals],
    tally: Tally,
    result: BatchResult,
) -> None:
    """Make sure that an earlier proof of live dates still holds: rows only come, and only rise."""
    for date, total in proven.items():
        is_less = stored.get(date, _Totals()).total < total or tally.by_date[date].with_row < result.counts[date].read
        if is_less and not context.settled.get(date, True):
            raise RowsGone(date)
