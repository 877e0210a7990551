"""Finds the keys of a run with one SCAN, and deals their merchants into batches."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from typing import Final, Protocol

from psycopg import Connection

from merchant_usage.errors import RequestRefused
from merchant_usage.log import Log
from merchant_usage.model.batches import Batch, Census
from merchant_usage.model.dates import KeyRules, Scope, format_dates, is_settled, local_date, oldest_kept
from merchant_usage.model.dead_letter import DeadLetter, Reason
from merchant_usage.model.keys import CounterKey, KeyColumns, parse_key, parse_page
from merchant_usage.model.run import Plan, Run
from merchant_usage.settings import Settings
from merchant_usage.sink import absences, dead_letters, grants, ledger, schema
from merchant_usage.sink.ledger import attempt_parameters, record_failure
from merchant_usage.sink.queries import query
from merchant_usage.sink.server import require_primary
from merchant_usage.sink.transactions import again_on_conflict, transaction
from merchant_usage.source.counters import read_page, scan_pages, with_date
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.cleanup import deletion_dates, recover_deletions
from merchant_usage.steps.due import is_sweep
from merchant_usage.steps.old_keys import OldKeys
from merchant_usage.steps.preflight import require_usage
from merchant_usage.steps.prune import prune_daily
from merchant_usage.steps.returned import flag_returned
from merchant_usage.steps.seal import sealed_anew
from merchant_usage.steps.signature import signer
from merchant_usage.steps.source_risks import inspect_source
from merchant_usage.text import shown

log = Log(__name__)

# Dead letters written by one scan at limit; a flood beyond that is counted in the log, not stored.
MAX_DEAD_LETTERS_A_SCAN: Final = 10_000
# A batch costs a dozen statements, whatever its size: next to so many keys they do not count.
KEYS_WORTH_A_BATCH: Final = 10_000
# Dates past the retention that one run takes along: each is a row of the ledger, and the next run takes more.
MAX_OLD_DATES: Final = 100
# Merchants that one line of the log names at limit.
MAX_MERCHANTS_NAMED: Final = 10


@dataclass(slots=True)
class ScanResult:
    """What one SCAN found."""

    scopes: dict[dt.date, Scope]
    census: Census = field(default_factory=Census)
    #: By the SHA-256 of their names.
    bad: dict[bytes, DeadLetter] = field(default_factory=dict)
    bad_left_out: int = 0
    #: Names with an open dead letter that the scan has not come across: at its end their keys are gone, or good.
    gone: set[bytes] = field(default_factory=set)
    scanned: int = 0

    def add_bad(self, letter: DeadLetter) -> None:
        """Note a key that is no usage key. Of a flood the first are kept, the others counted."""
        identity = letter.identity
        self.gone.discard(identity)
        if len(self.bad) < MAX_DEAD_LETTERS_A_SCAN:
            self.bad[identity] = letter
        else:
            self.bad_left_out += identity not in self.bad


def scan(
    client: RedisClient, conn: Connection, run: Run, settings: Settings, *, in_process: bool = False
) -> tuple[Plan, list[Batch]]:
    """Find all keys of a run's dates with one SCAN, and deal them into batches.

    Bad keys become dead letters. Open dead letters are tried again: a key that became good is aggregated by
    this run, whatever its date; one that is gone is resolved.

    Args:
        in_process: the batches are stored one after the other in this process, so that a few large ones cost the least.

    Raises:
        SchemaError: the tables are missing or not ours.
        PostgresRefused: a right is missing.
        PostgresUnavailable: the server is a standby.
        SettingsError: no usage was ever found, and none is now, though Redis holds other keys.
        redis.exceptions.RedisError: Redis cannot be read; the ledger says so.
    """
    require_primary(conn)
    schema.check(conn, grants.RUN | grants.CLEAN_UP if settings.delete_stale_keys else grants.RUN)
    rules = _other_rules(conn, run, settings)
    scopes = run.scopes(settings, rules)
    log.info(f"Starting aggregation for date {format_dates(run.dates)}", run_id=run.run_id, run_type=run.run_type)
    attempt = ledger.start(conn, run, scopes.values(), settings)
    with transaction(conn):
        conn.execute(query("prune_readings"), {**attempt_parameters(attempt), "now": run.now})
    with record_failure(conn, attempt):
        left = deletion_dates(conn)
        with sealed_anew(conn, left, run.run_id, signer(settings.seal_key_file) if left else None):
            recover_deletions(client, conn, settings)
        open_names = dead_letters.open_names(conn)
        if run.merchant_ids is None:
            scopes.update(_retry_dead_letters(client, conn, run, settings))
        old = OldKeys(client, conn, run, settings) if run.merchant_ids is None else None
        found = scan_keys(client, scopes, run, settings, old, open_names)
        require_usage(client, conn, settings.key_prefix, found.scanned)
        if old is not None:
            for date in old.keep_closed(found.census, [s for s in scopes.values() if s.date not in run.dates]):
                del scopes[date]
                found.census.drop(date)
            old.finish()
        require_known_merchants(conn, found, run)
        absences.prune(conn, oldest_kept(local_date(run.now, settings), settings))
        flag_returned(client, conn, found.census, scopes, settings.key_prefix)
        joined = (scope for scope in scopes.values() if scope.date not in run.dates)
        ledger.add_dates(conn, attempt, run, joined, settings)
        bad_by_date = again_on_conflict(partial(_write_dead_letters, conn, found))
        sweeps = is_sweep(conn, run, settings)
        if sweeps:
            prune_daily(conn, run.now, settings)
        with transaction(conn):
            for date in sorted(scopes):
                keys, merchants = found.census.key_count(date), found.census.merchant_count(date)
                ledger.note_scan(conn, attempt, date, keys=keys, merchants=merchants, dead_letters=bad_by_date[date])
                log.info(
                    f"Found {keys:,} usage keys of {merchants:,} merchants for {date}",
                    keys=keys,
                    merchants=merchants,
                    date=str(date),
                )
        lowered = ledger.lowered_totals(conn, attempt, [scope.date for scope in scopes.values() if scope.settled])
    live = {scope.date for scope in scopes.values() if not scope.settled}
    limit, keys_each = settings.max_mapped_tasks, settings.batch_counters
    if in_process:
        limit = min(limit, sum(map(found.census.key_count, scopes)) // KEYS_WORTH_A_BATCH + 1)
        keys_each = 1
    batches = [
        replace(batch, number=number, attempt=attempt.number)
        for number, batch in enumerate(found.census.batches(live, limit, keys_each))
    ]
    log.info(
        f"Scanned {found.scanned:,} keys in Redis, dealt into {len(batches)} batches",
        scanned=found.scanned,
        batches=len(batches),
    )
    with record_failure(conn, attempt):
        source = inspect_source(client, conn, batches, settings) if run.merchant_ids is None else None
    ordered = tuple(scopes[date] for date in sorted(scopes))
    plan = Plan(run.run_id, ordered, run.now, dict(bad_by_date), attempt.number, lowered, source, sweeps)
    return plan, batches


def _other_rules(conn: Connection, run: Run, settings: Settings) -> list[KeyRules]:
    """The rules of runs before, where they are others than today's. A change is told, and dates are judged by both."""
    own = KeyRules.of(settings)
    since = oldest_kept(local_date(run.now, settings), settings) - dt.timedelta(days=1)
    found = ledger.key_rules(conn, since)
    if found and (changes := found[0].changes(own)):
        log.warning(
            f"Settings that decide what keys mean were changed since the last run: {'; '.join(changes)}. The dates in "
            "between are judged by both.",
            changes=len(changes),
        )
    return [rules for rules in found if rules != own]


class KeysLeft(Protocol):
    """Takes the keys of dates that a scan was not asked for."""

    def joins(self, date: dt.date) -> bool:
        """Whether a date joins those that were asked for."""

    def add(self, date: dt.date, columns: KeyColumns, day: str) -> None:
        """Take those keys of a page that are of a date that does not; `day` is how they write it."""


class _ScopeFilter:
    """Which keys a scan takes in. Dates past the retention may join: with clean-up on, or if they are not closed."""

    def __init__(self, scopes: dict[dt.date, Scope], oldest: dt.date, old: KeysLeft | None) -> None:
        self._scopes = scopes
        self._old = old
        self._oldest = oldest
        self._merchants = {date: s.merchant_ids and frozenset(s.merchant_ids) for date, s in scopes.items()}
        self._taken_along = 0
        self._left_dates = False

    def admit(self, date: dt.date) -> bool:
        """Whether any keys of a date are wanted. A date past the retention may join the scopes."""
        if date not in self._scopes and (date < self._oldest or (self._old is not None and self._old.joins(date))):
            # Clean-up deletes nothing unproven: what it may delete is aggregated and verified first.
            if self._taken_along == MAX_OLD_DATES:
                self._left_dates = True
                return False
            self._taken_along += 1
            self._scopes[date], self._merchants[date] = Scope(date, settled=True), None
        return date in self._merchants

    def log_dates_left(self) -> None:
        """Say so if there are more dates past the retention than a run takes along."""
        if self._left_dates:
            log.warning(
                f"Redis has keys of more than {MAX_OLD_DATES} dates that are past the retention. This run takes so "
                "many along, the next ones take the others.",
                dates=MAX_OLD_DATES,
            )

    def among(self, date: dt.date, merchant_ids: list[str], metric_types: list[str]) -> tuple[list[str], list[str]]:
        """Those keys, given in columns, that are wanted of a date of which any are."""
        asked = self._merchants[date]
        if asked is None:
            return merchant_ids, metric_types
        chosen = [merchant in asked for merchant in merchant_ids]
        return list(compress(merchant_ids, chosen)), list(compress(metric_types, chosen))


def scan_keys(
    client: RedisClient,
    scopes: dict[dt.date, Scope],
    run: Run,
    settings: Settings,
    old: KeysLeft | None = None,
    open_names: Iterable[bytes] = (),
) -> ScanResult:
    """Scan Redis once and sort its keys. With clean-up on, dates past the retention join the scopes.

    Args:
        old: takes the keys of dates that are not wanted.
        open_names: the identities of keys with an open dead letter.
    """
    found = ScanResult(scopes, gone=set(open_names))
    today = local_date(run.now, settings)
    cleaning = settings.delete_stale_keys and run.merchant_ids is None
    wanted = _ScopeFilter(scopes, oldest_kept(today, settings) if cleaning else dt.date.min, old)
    for page in scan_pages(client, settings.key_prefix, settings.scan_count):
        found.scanned += len(page)
        for columns in _good_keys(page, found, settings.key_prefix, today):
            for day, date in columns.dates.items():
                if wanted.admit(date):
                    found.census.add_all(date, *wanted.among(date, *columns.of(day)))
                elif old is not None:
                    old.add(date, columns, day)
    wanted.log_dates_left()
    return found


def _good_keys(page: Sequence[bytes], found: ScanResult, prefix: str, today: dt.date) -> Iterator[KeyColumns]:
    """The usage keys of a page: all at once, or one by one if any of them is bad, which is noted."""
    columns = parse_page(page, prefix)
    if columns is not None and max(columns.dates.values(), default=today) <= today:
        yield columns
        return
    for raw in page:
        parsed = _parse(raw, prefix, today)
        if isinstance(parsed, CounterKey):
            yield KeyColumns.of_one(parsed)
        else:
            found.add_bad(parsed)


def require_known_merchants(conn: Connection, found: ScanResult, run: Run) -> None:
    """Say of which merchants that were asked for Redis has nothing.

    Raises:
        RequestRefused: neither has PostgreSQL of any of them, so that there is nothing to do: their ids are misspelt.
    """
    absent = found.census.absent(run.merchant_ids or ())
    if not absent:
        return
    known = {row[0] for row in conn.execute(query("select_known_merchants"), {"merchant_ids": absent})}
    dates = format_dates(run.dates)
    unknown = [merchant for merchant in absent if merchant not in known]
    # One of several may be misspelt: that is told, and the others get what was asked for.
    if len(unknown) == len(run.merchant_ids or ()):
        raise RequestRefused(
            f"No merchant is known as {_named(unknown)}: Redis has no usage of that name for {dates}, PostgreSQL none "
            "of any day. Ask again with the ids as they are in the keys."
        )
    log_absent_merchants(found, run)


def log_absent_merchants(found: ScanResult, run: Run) -> None:
    """Say of which merchants that were asked for Redis has nothing."""
    if absent := found.census.absent(run.merchant_ids or ()):
        dates = format_dates(run.dates)
        log.warning(f"Redis has nothing of {_named(absent)} for date {dates}", merchants_absent=len(absent))


def _named(merchants: Sequence[str]) -> str:
    more = f" and {len(merchants) - MAX_MERCHANTS_NAMED} more" if len(merchants) > MAX_MERCHANTS_NAMED else ""
    return ", ".join(map(shown, merchants[:MAX_MERCHANTS_NAMED])) + more


def _write_dead_letters(conn: Connection, found: ScanResult) -> Counter[dt.date]:
    """Open the bad keys of a scan, resolve those that are gone. Returns the number of bad keys by date."""
    with transaction(conn):
        opened = dead_letters.open_letters(conn, found.bad.values())
        dead_letters.resolve_names(conn, found.gone)
    if found.bad:
        left_out = f"; {found.bad_left_out} were counted, not stored" if found.bad_left_out else ""
        log.warning(
            f"{len(found.bad) + found.bad_left_out} keys cannot be usage keys ({opened} of them new), "
            f"see usage_dead_letter{left_out}",
            dead_letters=len(found.bad),
            new=opened,
            left_out=found.bad_left_out,
        )
    return Counter(letter.usage_date for letter in found.bad.values() if letter.usage_date is not None)


def _open_and_resolve(conn: Connection, bad: list[DeadLetter], gone: list[bytes]) -> None:
    with transaction(conn):
        dead_letters.open_letters(conn, bad)
        dead_letters.resolve(conn, gone)


def _parse(raw: bytes, prefix: str, today: dt.date) -> CounterKey | DeadLetter:
    parsed = parse_key(raw, prefix)
    if isinstance(parsed, CounterKey) and parsed.date > today:
        return DeadLetter.of_name(raw, Reason.FUTURE_DATE, f"{parsed.date} is after today, {today}", parsed.date)
    return parsed


def _retry_dead_letters(client: RedisClient, conn: Connection, run: Run, settings: Settings) -> dict[dt.date, Scope]:
    """Look again at dead letters: close those whose keys are gone. Returns scopes of what became good on other dates.

    (What is there on the run's own dates is met again when its batches are stored.)
    """
    good: dict[dt.date, set[str]] = {}
    for page in dead_letters.open_values(conn):
        gone: list[bytes] = []
        bad: list[DeadLetter] = []
        keys = [raw_key for raw_key, _ in page]
        for (raw_key, date), value in zip(page, read_page(client, keys, careful=True), strict=True):
            if value is None:
                gone.append(raw_key)
            elif date in run.dates:
                continue
            elif isinstance(value, DeadLetter):
                bad.append(with_date(value, date))
            elif isinstance(key := parse_key(raw_key, settings.key_prefix), CounterKey):
                good.setdefault(key.date, set()).add(key.merchant_id)
        again_on_conflict(partial(_open_and_resolve, conn, bad, gone))
    return {
        date: Scope(date, is_settled(date, run.now, settings), tuple(sorted(merchants)))
        for date, merchants in good.items()
    }
