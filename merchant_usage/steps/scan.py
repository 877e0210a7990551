"""Finds the keys of a run with one SCAN, and deals their merchants into batches."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final

from psycopg import Connection

from merchant_usage.log import Log
from merchant_usage.model.batches import Batch, Census
from merchant_usage.model.dates import Scope, is_settled, local_date, oldest_kept
from merchant_usage.model.dead_letter import DeadLetter, Reason
from merchant_usage.model.keys import CounterKey, parse_key, parse_page, shown
from merchant_usage.model.pages import pages
from merchant_usage.model.run import Plan, Run
from merchant_usage.settings import Settings
from merchant_usage.sink import dead_letters, ledger, schema
from merchant_usage.sink.ledger import _failure_noted
from merchant_usage.source.counters import RedisClient, read_page, scan_pages, with_date

log = Log(__name__)

# Dead letters written by one scan at most; a flood beyond that is counted in the log, not stored.
MAX_DEAD_LETTERS_A_SCAN: Final = 10_000
# A batch costs a dozen statements, whatever its size: next to so many keys they do not count.
KEYS_WORTH_A_BATCH: Final = 10_000
# Merchants that one line of the log names at most.
MAX_MERCHANTS_NAMED: Final = 10


@dataclass(slots=True)
class Survey:
    """What one SCAN found."""

    scopes: dict[dt.date, Scope]
    census: Census = field(default_factory=Census)
    bad: dict[bytes, DeadLetter] = field(default_factory=dict)
    bad_left_out: int = 0
    scanned: int = 0

    def add_bad(self, letter: DeadLetter) -> None:
        """Note a key that is no usage key. Of a flood the first are kept, the others counted."""
        if len(self.bad) < MAX_DEAD_LETTERS_A_SCAN:
            self.bad[letter.redis_key] = letter
        else:
            self.bad_left_out += letter.redis_key not in self.bad


def scan(
    client: RedisClient, conn: Connection, run: Run, settings: Settings, *, here: bool = False
) -> tuple[Plan, list[Batch]]:
    """Find all keys of a run's dates with one SCAN, and deal them into batches.

    Bad keys become dead letters. Open dead letters are tried again: a key that became good is aggregated by
    this run, whatever its date; one that is gone is resolved.

    Args:
        here: the batches are stored one after the other in this process, so that a few large ones cost the least.

    Raises:
        SchemaError: the tables are missing or not ours.
        redis.exceptions.RedisError: Redis cannot be read; the ledger says so.
    """
    schema.check(conn)
    scopes = run.scopes(settings)
    log.info(f"Starting aggregation for date {_told(run.dates)}", run_id=run.run_id, run_type=run.run_type)
    ledger.start(conn, run.run_id, run.run_type, scopes.values(), run.now)
    with _failure_noted(conn, run.run_id):
        open_letters = dead_letters.all_open(conn)
        if run.merchant_ids is None:
            scopes.update(_retry_dead_letters(client, conn, open_letters, run, settings))
        survey = take_survey(client, scopes, run, settings)
        _tell_absent(survey, run)
        ledger.start(conn, run.run_id, run.run_type, (s for s in scopes.values() if s.date not in run.dates), run.now)
        bad_by_date = _write_dead_letters(conn, survey, open_letters)
        for date in sorted(scopes):
            keys, who = survey.census.key_count(date), survey.census.merchant_count(date)
            ledger.note_scan(conn, run.run_id, date, keys=keys, merchants=who, dead_letters=bad_by_date[date])
            log.info(
                f"Found {keys:,} usage keys of {who:,} merchants for {date}",
                keys=keys,
                merchants=who,
                date=str(date),
            )
    live = {scope.date for scope in scopes.values() if not scope.settled}
    most = settings.max_mapped_tasks
    if here:
        most = min(most, sum(map(survey.census.key_count, scopes)) // KEYS_WORTH_A_BATCH + 1)
    batches = survey.census.batches(live, most)
    log.info(
        f"Scanned {survey.scanned:,} keys in Redis, dealt into {len(batches)} batches",
        scanned=survey.scanned,
        batches=len(batches),
    )
    return Plan(run.run_id, tuple(scopes[date] for date in sorted(scopes)), dict(bad_by_date)), batches


class _Wanted:
    """Which keys a survey takes in. With clean-up on, dates past the retention join the scopes."""

    def __init__(self, scopes: dict[dt.date, Scope], oldest: dt.date) -> None:
        self._scopes = scopes
        self._oldest = oldest
        self._merchants = {date: s.merchant_ids and frozenset(s.merchant_ids) for date, s in scopes.items()}

    def __contains__(self, date: dt.date) -> bool:
        """Whether any keys of a date are wanted."""
        if date < self._oldest and date not in self._scopes:
            # Clean-up deletes nothing unproven: what it may delete is aggregated and verified first.
            self._scopes[date], self._merchants[date] = Scope(date, settled=True), None
        return date in self._merchants

    def among(self, date: dt.date, merchant_ids: list[str], metric_types: list[str]) -> tuple[list[str], list[str]]:
        """Those keys, given in columns, that are wanted of a date of which any are."""
        asked = self._merchants[date]
        if asked is None:
            return merchant_ids, metric_types
        chosen = [merchant in asked for merchant in merchant_ids]
        return list(compress(merchant_ids, chosen)), list(compress(metric_types, chosen))


def take_survey(client: RedisClient, scopes: dict[dt.date, Scope], run: Run, settings: Settings) -> Survey:
    """Scan Redis once and sort its keys. With clean-up on, dates past the retention join the scopes."""
    survey = Survey(scopes)
    today = local_date(run.now, settings)
    cleaning = settings.delete_stale_keys and run.merchant_ids is None
    wanted = _Wanted(scopes, oldest_kept(today, settings) if cleaning else dt.date.min)
    for page in scan_pages(client, settings.key_prefix, settings.scan_count):
        survey.scanned += len(page)
        columns = parse_page(page, settings.key_prefix)
        if columns is not None and max(columns.dates.values(), default=today) <= today:
            for day, date in columns.dates.items():
                if date in wanted:
                    survey.census.add_all(date, *wanted.among(date, *columns.of(day)))
            continue
        for raw in page:
            parsed = _parse(raw, settings.key_prefix, today)
            if not isinstance(parsed, CounterKey):
                survey.add_bad(parsed)
            elif parsed.date in wanted:
                merchants, metrics = [parsed.merchant_id], [parsed.metric_type]
                survey.census.add_all(parsed.date, *wanted.among(parsed.date, merchants, metrics))
    return survey


def _tell_absent(survey: Survey, run: Run) -> None:
    """Say of which merchants that were asked for there is nothing: their ids may be misspelt."""
    absent = survey.census.absent(run.merchant_ids or ())
    if not absent:
        return
    named = ", ".join(map(shown, absent[:MAX_MERCHANTS_NAMED]))
    more = f" and {len(absent) - MAX_MERCHANTS_NAMED} more" if len(absent) > MAX_MERCHANTS_NAMED else ""
    log.warning(f"Redis has nothing of {named}{more} for date {_told(run.dates)}", merchants_absent=len(absent))


def _write_dead_letters(conn: Connection, survey: Survey, open_letters: Iterable[DeadLetter]) -> Counter[dt.date]:
    """Open the bad keys of a survey, resolve those that are gone. Returns the number of bad keys by date."""
    gone = [
        letter.redis_key
        for letter in open_letters
        if letter.reason in Reason.of_names() and letter.redis_key not in survey.bad
    ]
    with conn.transaction():
        opened = dead_letters.open_letters(conn, survey.bad.values())
        if not survey.bad_left_out:  # else a key may be bad still, though it is not among those kept
            dead_letters.resolve(conn, gone, Reason.of_names())
    if survey.bad:
        left_out = f"; {survey.bad_left_out} were counted, not stored" if survey.bad_left_out else ""
        log.warning(
            f"{len(survey.bad) + survey.bad_left_out} keys cannot be usage keys ({opened} of them new), "
            f"see usage_dead_letter{left_out}",
            dead_letters=len(survey.bad),
            new=opened,
            left_out=survey.bad_left_out,
        )
    return Counter(letter.usage_date for letter in survey.bad.values() if letter.usage_date is not None)


def _told(dates: Sequence[dt.date]) -> str:
    return ", ".join(map(str, dates)) if len(dates) <= 10 else f"{dates[0]} to {dates[-1]}"


def _parse(raw: bytes, prefix: str, today: dt.date) -> CounterKey | DeadLetter:
    parsed = parse_key(raw, prefix)
    if isinstance(parsed, CounterKey) and parsed.date > today:
        return DeadLetter(raw, Reason.FUTURE_DATE, f"{parsed.date} is after today, {today}", parsed.date)
    return parsed


def _retry_dead_letters(
    client: RedisClient, conn: Connection, letters: Iterable[DeadLetter], run: Run, settings: Settings
) -> dict[dt.date, Scope]:
    """Look again at dead letters: close those whose keys are gone. Returns scopes of what became good on other dates.

    (What is there on the run's own dates is met again when its batches are stored.)
    """
    of_values = [letter for letter in letters if letter.reason not in Reason.of_names() and letter.usage_date]
    good: dict[dt.date, set[str]] = {}
    gone: list[bytes] = []
    bad: list[DeadLetter] = []
    for page in pages(of_values):
        for letter, value in zip(page, read_page(client, [letter.redis_key for letter in page]), strict=True):
            assert letter.usage_date is not None  # chosen above
            key = parse_key(letter.redis_key, settings.key_prefix)
            if value is None:
                gone.append(letter.redis_key)
            elif letter.usage_date in run.dates:
                continue
            elif isinstance(value, DeadLetter):
                bad.append(with_date(value, letter.usage_date))
            elif isinstance(key, CounterKey):
                good.setdefault(key.date, set()).add(key.merchant_id)
    with conn.transaction():
        dead_letters.open_letters(conn, bad)
        dead_letters.resolve(conn, gone)
    return {
        date: Scope(date, is_settled(date, run.now, settings), tuple(sorted(merchants)))
        for date, merchants in good.items()
    }
