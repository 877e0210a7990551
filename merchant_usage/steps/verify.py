"""Proves a run: reads Redis a second time and compares per key, both ways. Sums alone would let errors cancel."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import tee
from operator import attrgetter
from typing import Any, NamedTuple

from psycopg import Connection

from merchant_usage.errors import ReadingsGone, RowsGone
from merchant_usage.log import Log
from merchant_usage.model.batches import Batch, Group
from merchant_usage.model.dates import Scope
from merchant_usage.model.dead_letter import DeadLetter
from merchant_usage.model.keys import CounterKey, as_columns, build_key, parse_key
from merchant_usage.model.pages import PAGE, Page, key_pages, pages
from merchant_usage.model.readings import WHOLE, digest
from merchant_usage.model.report import Counts, DateReport
from merchant_usage.model.run import Attempt
from merchant_usage.model.verdict import DateFindings, Difference, Proof, Verdict, judge, judge_date
from merchant_usage.settings import Settings
from merchant_usage.sink import absences, dead_letters, ledger, readings
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import again_on_conflict, set_limits
from merchant_usage.source.counters import MAX_VALUE, interpret_values, read_page, with_date
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.curves import broken_curves
from merchant_usage.steps.page_comparison import PageComparison, compare_pages
from merchant_usage.steps.past import Past
from merchant_usage.steps.regressions import settle
from merchant_usage.steps.staging import stage_names
from merchant_usage.steps.store import BatchResult, parts
from merchant_usage.steps.tally import MAX_ABSENCES_KEPT, MAX_DIFFERENCES_KEPT, Tally

log = Log(__name__)


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
    groups = _by_date(group for batch in claim.batches for group in batch.groups)
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
        context = _Context(
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
        scanned: Iterable[_Scanned] = ((page, ()) for page in key_pages(groups, settings.key_prefix))
        if claim.attempt is not None and claim.result.live_readings:
            proven = _require_readings(conn, claim.attempt, claim.result)
            scanned = _pages_with_readings(context, claim.attempt, claim.batches)
        undecided = Counter(context.undecided.values())
        _check_scanned_keys(context, scanned, tally)
        _require_rows(context, proven, stored, tally, claim.result)
        if context.unsaved or any(totals.rows != tally.by_date[date].with_row for date, totals in stored.items()):
            stage_names(conn, groups, settings.key_prefix)
            _check_unscanned_rows(context, parameters, tally)
            _judge_unsaved(context, tally)
        few = _has_at_most(claim.merchants_shown, groups)
        limit = claim.merchants_shown * len(claim.scopes)
        merchants = _summarize(conn, parameters, tally, limit) if few else []
        broken = broken_curves(conn, claim.scopes) if claim.attempt is not None else {}
    if claim.attempt is not None:
        _state_regressions(context, tally, settings)
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


@dataclass(frozen=True, slots=True)
class _Context:
    """What it takes to judge a key."""

    client: RedisClient
    conn: Connection
    settled: dict[dt.date, bool]
    prefix: str
    past: Past
    #: Keys with an open dead letter: their values may be large.
    suspects: frozenset[bytes]
    #: Dates on which keys went between the scan and storing: nobody has read these to their end.
    unread: frozenset[dt.date]
    #: Whether what is found is written down.
    writes: bool
    #: What this run read, of those keys whose row may hold less or is not there. None, unless rows were lowered.
    unsaved: dict[bytes, int] = field(default_factory=dict)
    #: Keys that went backwards and wait for a decision, and their dates.
    undecided: dict[bytes, dt.date] = field(default_factory=dict)

    def was_read_to_its_end(self, date: dt.date) -> bool:
        """Whether what the scan found of a date was read, and is all there is to come: that of a live one may grow."""
        return self.settled[date] and date not in self.unread

    def is_lost(self, seen: _Observation, *, was_scanned: bool) -> bool:
        """Whether a counter that was stored is gone before its time, so that it may begin anew and be counted short.

        A row that neither this run nor one before it has read may never have been a counter.
        """
        date = seen.key.date
        if was_scanned and self.was_read_to_its_end(date):
            return False
        return (
            seen.now is None
            and seen.counted > 0
            and (seen.read is not None or was_scanned or self.past.was_read(date))
            and self.past.is_kept_still(date)
        )

    def note_unsaved(self, raw_key: bytes, least: int) -> None:
        """Take note of what was read of a key whose row may hold less."""
        self.unsaved[raw_key] = max(least, self.unsaved.get(raw_key, 0))

    def names_any(self, raw_keys: Iterable[bytes]) -> bool:
        """Whether a page has keys that are judged even if their rows hold what Redis has."""
        return bool(self.unsaved or self.undecided) and not (
            self.unsaved.keys().isdisjoint(raw_keys) and self.undecided.keys().isdisjoint(raw_keys)
        )


#: A page of keys that the scan found, and what was read of it.
_Scanned = tuple[Page, Sequence[str]]


def _by_date(groups: Iterable[Group]) -> list[Group]:
    """Groups by date, because a page ends with its date."""
    return sorted(groups, key=attrgetter("date"))


def _pages_with_readings(context: _Context, attempt: Attempt, batches: Sequence[Batch]) -> Iterator[_Scanned]:
    """The pages of live dates as they were stored, each with what was read of it; then those of the other dates.

    PostgreSQL may have refused a part as a whole: what was stored in other pages than these is looked up.
    """
    for batch in batches:
        if not batch.live_dates:
            continue
        kept = readings.of_batch(context.conn, attempt, batch.number)
        for part in parts(batch):
            for page in key_pages(part.groups, context.prefix):
                if page.date in batch.live_dates:
                    yield page, kept.pop(digest(page), ())
        if kept:
            _look_up_unsaved(context, readings.of_pages(context.conn, attempt, batch.number, kept))
    over = _by_date(group for batch in batches for group in batch.groups if group.date not in batch.live_dates)
    yield from ((page, ()) for page in key_pages(over, context.prefix))


def _check_scanned_keys(context: _Context, scanned: Iterable[_Scanned], tally: Tally) -> None:
    """Compare each key that the scan found with its row."""
    to_compare, beside = tee(scanned)
    compared = compare_pages(context.client, context.conn, (page for page, _ in to_compare), context.suspects)
    for both, (_, of_page) in zip(compared, beside, strict=True):
        tally.by_date[both.page.date].with_row += len(both.raw_values)
        for reading in of_page:
            _note_unsaved(context, both, reading)
        if not both.equal or context.names_any(both.page.raw_keys):
            _judge_unequal(context, both, tally)


def _note_unsaved(context: _Context, both: PageComparison, reading: str) -> None:
    """Note those keys of a page whose row may be less than what this run read: they are looked at one by one."""
    counters = reading.encode().split(b",")
    for i in both.below(counters):
        context.note_unsaved(both.page.raw_keys[i], int(counters[i].removeprefix(WHOLE)))


def _look_up_unsaved(context: _Context, pages_read: Iterable[dict[CounterKey, int]]) -> None:
    """The same for pages that are not those of the batches."""
    for read in pages_read:
        rows = _rows(context.conn, list(read))
        for key, least in read.items():
            stored, _ = rows.get(key, (None, 0))
            if stored is None or stored < least:
                context.note_unsaved(build_key(context.prefix, key), least)


def _judge_unequal(context: _Context, both: PageComparison, tally: Tally) -> None:
    """Judge those keys of a page whose row is missing, is not what Redis has, or less than was read."""
    of_page = both.page.raw_keys
    named = (i for i, raw_key in enumerate(of_page) if raw_key in context.unsaved or raw_key in context.undecided)
    chosen = sorted({*both.unequal(), *named})
    raw_keys = [of_page[i] for i in chosen]
    values = interpret_values(context.client, raw_keys, [both.raw_values[i] for i in chosen])
    keys = [key for raw_key in raw_keys if isinstance(key := parse_key(raw_key, context.prefix), CounterKey)]
    rows = _rows(context.conn, keys)
    seen: list[_Observation] = []
    for key, raw_key, now in zip(keys, raw_keys, values, strict=True):
        found = tally.by_date[key.date]
        stored, carried = rows.get(key, (None, 0))
        read = context.unsaved.pop(raw_key, None)
        if key in rows:
            found.rows += 1
        else:
            found.with_row -= 1
        seen.append(_Observation(key, raw_key, stored, carried, read, now))
    _judge(context, seen, tally, was_scanned=True)


def _check_unscanned_rows(context: _Context, parameters: dict[str, Any], tally: Tally) -> None:
    """Judge the rows whose keys the scan did not find; its keys are in usage_staged."""
    with context.conn.cursor(name="usage_unscanned") as cursor:
        cursor.execute(query("select_unscanned_rows"), parameters)
        while rows := cursor.fetchmany(PAGE):
            keys = [CounterKey(*row[:3]) for row in rows]
            raw_keys = [build_key(context.prefix, key) for key in keys]
            values = read_page(context.client, raw_keys)
            seen: list[_Observation] = []
            for key, raw_key, (*_, stored, carried), now in zip(keys, raw_keys, rows, values, strict=True):
                found = tally.by_date[key.date]
                found.rows += 1
                read = context.unsaved.pop(raw_key, None)
                if parse_key(raw_key, context.prefix) != key:
                    # A row under a name that no counter can have: there is none in Redis.
                    found.verdicts[Verdict.EXPIRED] += 1
                    found.more_in_redis -= (stored or 0) - carried
                else:
                    seen.append(_Observation(key, raw_key, stored, carried, read, now))
            _judge(context, seen, tally)


def _judge_unsaved(context: _Context, tally: Tally) -> None:
    """Judge what this run read, and what neither the scan nor a row without a key has brought up."""
    for raw_keys in pages(context.unsaved):
        keys = [key for raw_key in raw_keys if isinstance(key := parse_key(raw_key, context.prefix), CounterKey)]
        rows = _rows(context.conn, keys)
        seen = [
            _Observation(key, raw_key, *rows.get(key, (None, 0)), context.unsaved[raw_key], now)
            for key, raw_key, now in zip(keys, raw_keys, read_page(context.client, raw_keys), strict=True)
        ]
        _judge(context, seen, tally)


def _undecided(conn: Connection, scopes: Sequence[Scope], prefix: str) -> dict[bytes, dt.date]:
    """Keys of these scopes that went backwards and wait for a decision, and their dates."""
    merchants = {scope.date: scope.merchant_ids for scope in scopes}
    found = {}
    for raw_key, date in dead_letters.regressed_keys(conn, merchants).items():
        key, of_some = parse_key(raw_key, prefix), merchants[date]
        if of_some is None or (isinstance(key, CounterKey) and key.merchant_id in of_some):
            found[raw_key] = date
    return found


class _Observation(NamedTuple):
    """All that is known of a key."""

    key: CounterKey
    raw_key: bytes
    stored: int | None
    carried: int
    read: int | None
    now: int | DeadLetter | None

    @property
    def counted(self) -> int:
        """What the row says of the counter."""
        return (self.stored or 0) - self.carried


def _judge(context: _Context, seen: Sequence[_Observation], tally: Tally, *, was_scanned: bool = False) -> None:
    seen = [each._replace(now=_fitting(each)) for each in seen]
    lower = {
        each.raw_key: each.stored
        for each in seen
        if each.stored is not None and (each.now is None or (isinstance(each.now, int) and each.counted > each.now))
    }
    kept = dead_letters.kept(context.conn, lower)
    absent: list[CounterKey] = []
    for each in seen:
        if isinstance(each.now, DeadLetter):
            was_good = each.stored is not None or each.read is not None
            tally.add_bad(each.key, each.counted, with_date(each.now, each.key.date), was_good=was_good)
            continue
        is_known = each.raw_key in context.undecided
        verdict = judge(
            stored=each.stored,
            carried=each.carried,
            read=each.read,
            now=each.now,
            settled=context.settled[each.key.date],
            accepted_from=kept.get(each.raw_key),
        )
        is_excused = kept.get(each.raw_key, 0) is None  # gone, and a person said that what is stored is right
        is_lost = verdict is Verdict.EXPIRED and not is_excused and context.is_lost(each, was_scanned=was_scanned)
        if not verdict.fails and (is_known or is_lost):
            verdict = Verdict.REGRESSED
        if verdict is Verdict.EXPIRED and each.counted > 0 and context.past.is_within_retention(each.key.date):
            absent.append(each.key)
        tally.by_date[each.key.date].kept += verdict is Verdict.MATCH and each.counted > (each.now or 0)
        tally.add(
            Difference(each.key, verdict, each.stored, each.carried, each.read, each.now),
            is_known=is_known,
            was_read=was_scanned and context.was_read_to_its_end(each.key.date),
        )
    if context.writes and absent and len(tally.absent) < MAX_ABSENCES_KEPT:
        tally.absent += absences.unnoted(context.conn, absent)


def _fitting(seen: _Observation) -> int | DeadLetter | None:
    """The counter, if it can be stored on top of what is carried."""
    if isinstance(seen.now, int) and seen.now > MAX_VALUE - seen.carried:
        return DeadLetter.overflow(seen.raw_key, seen.key.date, counter=seen.now, carried=seen.carried)
    return seen.now


def _state_regressions(context: _Context, tally: Tally, settings: Settings) -> None:
    """Look once more, with rows locked, at what verification was the first to see. What is still so gets a letter."""
    keys = [found.key for found in tally.regressed] + tally.vanished
    vanishing = {date for date in context.settled if context.past.is_kept_still(date)} if keys else set()
    settled = again_on_conflict(partial(settle, context.client, context.conn, keys, settings, vanishing))
    for found in tally.regressed:
        if found.key not in settled.regressed:
            tally.withdraw(found)
    tally.regressed = [found for found in tally.regressed if found.key in settled.regressed]
    if tally.letters:
        # What storing has told already is no second attempt.
        known = dead_letters.open_keys(context.conn, context.settled)
        dead_letters.open_letters(context.conn, (each for each in tally.letters if each.redis_key not in known))


def _rows(conn: Connection, keys: Sequence[CounterKey]) -> dict[CounterKey, tuple[int | None, int]]:
    """What is stored for these keys: metric_value and carried."""
    rows = conn.execute(query("select_rows"), as_columns(keys))
    return {CounterKey(*row[:3]): (row[3], row[4]) for row in rows}


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
    context: _Context,
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
