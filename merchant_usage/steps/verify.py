"""Proves a run: reads Redis a second time and compares per key, both ways. Sums alone would let errors cancel."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, NamedTuple

from psycopg import Connection

from merchant_usage.errors import RunIncomplete
from merchant_usage.log import Log
from merchant_usage.model.batches import Batch, Group
from merchant_usage.model.dates import Scope
from merchant_usage.model.dead_letter import DeadLetter
from merchant_usage.model.keys import CounterKey, as_columns, build_key, parse_key
from merchant_usage.model.pages import PAGE, key_pages, pages
from merchant_usage.model.report import Counts, DateReport, DateVerdict
from merchant_usage.model.verdict import Difference, Proof, Verdict, judge
from merchant_usage.sink import dead_letters
from merchant_usage.sink.queries import query
from merchant_usage.source.counters import RedisClient, read_page, readings
from merchant_usage.steps.page_comparison import SideBySide, side_by_side
from merchant_usage.steps.staging import stage_names
from merchant_usage.steps.store import BatchResult

log = Log(__name__)

# Failing keys kept for the message, and regressions opened: the rest is counted.
MAX_DIFFERENCES_KEPT: Final = 1000


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
    parameters = _parameters(scopes)
    # By date, because a page ends with its date.
    groups = sorted((group for batch in batches for group in batch.groups), key=attrgetter("date"))
    tally = _Tally()
    with conn.transaction():
        conn.execute(query("set_snapshot"))
        conn.execute(query("prepare_verification"))
        # The first query takes the snapshot: before Redis is read.
        sums = conn.execute(query("select_totals"), parameters)
        stored = {date: _Totals(*map(int, totals)) for date, *totals in sums}
        look = _Look(client, conn, settled, prefix, {})
        if result.live_readings and not proven_before:
            _require_readings(conn, run_id, result)
            look.unheld.update(_unheld_readings(conn, parameters, run_id, prefix))
        _compare_named(look, groups, tally)
        if look.unheld or any(totals.rows != tally.by_date[date].with_row for date, totals in stored.items()):
            stage_names(conn, groups, prefix)
            _compare_unnamed(look, parameters, tally)
            _judge_unheld(look, tally)
        few = _has_at_most(merchants_shown, groups)
        merchants = _summarize(conn, parameters, tally, merchants_shown * len(scopes)) if few else []
    if flag_regressions:
        _open_regressions(conn, tally.regressed, prefix)
    reports = []
    for scope in scopes:
        totals = stored.get(scope.date, _Totals())
        found = tally.by_date[scope.date]
        even = totals.rows - found.rows
        counted = found.verdicts + Counter({Verdict.MATCH: even})
        reports.append(
            DateReport(
                date=scope.date,
                settled=scope.settled,
                verdict=_date_verdict(counted, even + found.in_redis, totals.rows),
                counts=result.counts.get(scope.date, Counts()),
                keys={str(verdict): number for verdict, number in counted.items()},
                redis_total=totals.counted + found.more_in_redis,
                postgres_total=totals.total,
                bad_values=found.bad_values,
            )
        )
    regressed_count = sum(found.verdicts[Verdict.REGRESSED] for found in tally.by_date.values())
    return Proof(reports, tally.failing, tally.failing_count, regressed_count, merchants, tally.regressed)


def _has_at_most(most: int, groups: Iterable[Group]) -> bool:
    """Whether the groups name so many merchants, or fewer; without counting on."""
    seen: set[str] = set()
    for group in groups:
        seen.update(group.merchant_ids[: most + 1])
        if len(seen) > most:
            return False
    return True


class _Totals(NamedTuple):
    """What is stored of a date: rows, the sum of their values, and that of their counters."""

    rows: int = 0
    total: int = 0
    counted: int = 0


@dataclass(slots=True)
class _Found:
    """What is to be said of a date besides its even rows, those whose counter is what Redis has."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    #: Keys named by the batches that have a row.
    with_row: int = 0
    #: Stored rows that are not even.
    rows: int = 0
    #: Keys that are not even and hold a counter in Redis.
    in_redis: int = 0
    bad_values: int = 0
    #: What Redis has more than the stored counters say.
    more_in_redis: int = 0


@dataclass(slots=True)
class _Tally:
    """What a comparison found, apart from even rows."""

    by_date: dict[dt.date, _Found] = field(default_factory=lambda: defaultdict(_Found))
    failing: list[Difference] = field(default_factory=list)
    failing_count: int = 0
    regressed: list[Difference] = field(default_factory=list)
    #: By date and merchant: keys without a row, and what Redis has more. Kept for the first few.
    by_merchant: dict[tuple[dt.date, str], list[int]] = field(default_factory=dict)

    def note(self, difference: Difference) -> None:
        """Take in the verdict on a key that is not even."""
        found = self.by_date[difference.key.date]
        found.verdicts[difference.verdict] += 1
        counted = 0 if difference.stored is None else difference.stored - difference.carried
        more = (difference.now or 0) - counted
        found.in_redis += difference.now is not None
        found.more_in_redis += more
        self._note_merchant(difference.key, difference.stored is None, more)
        if difference.verdict.fails:
            self.failing_count += 1
            if len(self.failing) < MAX_DIFFERENCES_KEPT:
                self.failing.append(difference)
        elif difference.verdict is Verdict.REGRESSED and len(self.regressed) < MAX_DIFFERENCES_KEPT:
            self.regressed.append(difference)

    def note_bad(self, key: CounterKey, counted: int) -> None:
        """Take in a key that holds no counter any more: there is no number to compare."""
        found = self.by_date[key.date]
        found.bad_values += 1
        found.more_in_redis -= counted
        self._note_merchant(key, False, -counted)

    def _note_merchant(self, key: CounterKey, without_row: bool, more: int) -> None:
        of_merchant = key.date, key.merchant_id
        if of_merchant in self.by_merchant or len(self.by_merchant) < MAX_DIFFERENCES_KEPT:
            sums = self.by_merchant.setdefault(of_merchant, [0, 0])
            sums[0] += without_row
            sums[1] += more


class _Look(NamedTuple):
    """What it takes to judge a key."""

    client: RedisClient
    conn: Connection
    settled: dict[dt.date, bool]
    prefix: str
    #: What this run read, of those keys whose row holds less or is not there. None, unless somebody else lowered rows.
    unheld: dict[bytes, int]


def _compare_named(look: _Look, groups: Iterable[Group], tally: _Tally) -> None:
    """Compare each key that the scan found with its row."""
    with _planned(look.conn, seqscan="off"):
        for both in side_by_side(look.client, look.conn, key_pages(groups, look.prefix)):
            tally.by_date[both.page.date].with_row += len(both.raws)
            if not both.equal or (look.unheld and not look.unheld.keys().isdisjoint(both.page.raw_keys)):
                _judge_unequal(look, both, tally)


def _judge_unequal(look: _Look, both: SideBySide, tally: _Tally) -> None:
    """Judge those keys of a page whose row is missing, is not what Redis has, or less than was read."""
    of_page = both.page.raw_keys
    chosen = both.unequal()
    if look.unheld:
        chosen = sorted({*chosen, *(i for i, raw_key in enumerate(of_page) if raw_key in look.unheld)})
    raw_keys = [of_page[i] for i in chosen]
    values = readings(look.client, raw_keys, [both.raws[i] for i in chosen])
    keys = [key for raw_key in raw_keys if isinstance(key := parse_key(raw_key, look.prefix), CounterKey)]
    rows = _rows(look.conn, keys)
    seen: list[_Seen] = []
    for key, raw_key, now in zip(keys, raw_keys, values, strict=True):
        found = tally.by_date[key.date]
        stored, carried = rows.get(key, (None, 0))
        read = look.unheld.pop(raw_key, None)
        if key in rows:
            found.rows += 1
        else:
            found.with_row -= 1
        seen.append(_Seen(key, raw_key, stored, carried, read, now))
    _judge(look, seen, tally)


def _compare_unnamed(look: _Look, parameters: dict[str, Any], tally: _Tally) -> None:
    """Judge the rows whose keys the scan did not find; its keys are in usage_staged."""
    with _planned_for_days(look.conn, parameters), look.conn.cursor(name="usage_unnamed") as cursor:
        cursor.execute(query("select_unscanned_rows"), parameters)
        while rows := cursor.fetchmany(PAGE):
            keys = [CounterKey(*row[:3]) for row in rows]
            raw_keys = [build_key(look.prefix, key) for key in keys]
            values = read_page(look.client, raw_keys)
            seen: list[_Seen] = []
            for key, raw_key, (*_, stored, carried), now in zip(keys, raw_keys, rows, values, strict=True):
                found = tally.by_date[key.date]
                found.rows += 1
                read = look.unheld.pop(raw_key, None)
                if parse_key(raw_key, look.prefix) != key:
                    # A row under a name that no counter can have: there is none in Redis.
                    found.verdicts[Verdict.EXPIRED] += 1
                    found.more_in_redis -= (stored or 0) - carried
                else:
                    seen.append(_Seen(key, raw_key, stored, carried, read, now))
            _judge(look, seen, tally)


def _judge_unheld(look: _Look, tally: _Tally) -> None:
    """Judge what this run read and neither the scan found nor a row holds."""
    for raw_keys in pages(look.unheld):
        seen: list[_Seen] = []
        for raw_key, now in zip(raw_keys, read_page(look.client, raw_keys), strict=True):
            key = parse_key(raw_key, look.prefix)
            assert isinstance(key, CounterKey)  # it was read
            seen.append(_Seen(key, raw_key, None, 0, look.unheld[raw_key], now))
        _judge(look, seen, tally)


@contextmanager
def _planned(conn: Connection, *, seqscan: str = "on", nestloop: str = "on") -> Iterator[None]:
    """Leave ways to go about a query out of PostgreSQL's choice."""
    conn.execute(query("set_planner"), {"seqscan": seqscan, "nestloop": nestloop})
    yield
    conn.execute(query("set_planner"), {"seqscan": "on", "nestloop": "on"})


def _planned_for_days(conn: Connection, parameters: dict[str, Any]) -> AbstractContextManager[None]:
    """Plan a query over whole days without nested loops.

    Of a day that is newer than its statistics PostgreSQL expects one row, and would compare all with all. A few
    merchants are found by their index, for which it takes such loops.
    """
    return _planned(conn, nestloop="on" if parameters["merchant_dates"] else "off")


def _unheld_readings(conn: Connection, parameters: dict[str, Any], run_id: str, prefix: str) -> dict[bytes, int]:
    """What this run read of keys whose row holds less, or is not there."""
    with _planned_for_days(conn, parameters):
        rows = conn.execute(query("select_unsaved_readings"), {**parameters, "run_id": run_id}).fetchall()
    return {build_key(prefix, CounterKey(*key)): value for *key, value in rows}


class _Seen(NamedTuple):
    """All that is known of a key."""

    key: CounterKey
    raw_key: bytes
    stored: int | None
    carried: int
    read: int | None
    now: int | DeadLetter | None


def _judge(look: _Look, seen: Sequence[_Seen], tally: _Tally) -> None:
    lower = {
        raw_key: stored
        for _, raw_key, stored, carried, _, now in seen
        if stored is not None and isinstance(now, int) and stored - carried > now
    }
    kept = dead_letters.kept(look.conn, lower)
    for key, raw_key, stored, carried, read, now in seen:
        if isinstance(now, DeadLetter):
            tally.note_bad(key, (stored or 0) - carried)
            continue
        verdict = judge(
            stored=stored, carried=carried, read=read, now=now, settled=look.settled[key.date], kept=kept.get(raw_key)
        )
        tally.note(Difference(key, verdict, stored, carried, read, now))


def _rows(conn: Connection, keys: Sequence[CounterKey]) -> dict[CounterKey, tuple[int | None, int]]:
    """What is stored for these keys: metric_value and carried."""
    rows = conn.execute(query("select_rows"), as_columns(keys))
    return {CounterKey(*row[:3]): (row[3], row[4]) for row in rows}


def _summarize(conn: Connection, parameters: dict[str, Any], tally: _Tally, most: int) -> list[tuple[Any, ...]]:
    """Redis beside PostgreSQL, a line a date and merchant, for people; nothing if that is more than `most` lines."""
    rows = conn.execute(query("summarize_merchants"), {**parameters, "most": most + 1}).fetchall()
    if len(rows) > most:
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


def _require_readings(conn: Connection, run_id: str, result: BatchResult) -> None:
    row = conn.execute(query("count_readings"), {"run_id": run_id}).fetchone()
    kept = row[0] if row else 0
    if kept < result.live_readings:
        raise RunIncomplete(
            f"This run read {result.live_readings} counters of live dates, but only {kept} of these readings are left: "
            "PostgreSQL crashed since, or the run was verified once. Clear upsert_merchant_usage with its downstream "
            "tasks."
        )


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
