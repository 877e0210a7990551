"""The three steps of a run, the same for Airflow's tasks and for the command line: scan, store, verify."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any, Final

import psycopg
from psycopg import Connection

from merchant_usage import clock
from merchant_usage.driver_errors import explain
from merchant_usage.errors import RunIncomplete, UpsertFailed, UsageMismatch
from merchant_usage.log import Log
from merchant_usage.model.batches import Batch, Census
from merchant_usage.model.dates import Scope, is_settled, local_date, oldest_kept
from merchant_usage.model.keys import CounterKey, parse_key, parse_page, shown
from merchant_usage.settings import OnRegression, Settings
from merchant_usage.sink import dead_letters, ledger, schema
from merchant_usage.sink.dead_letters import DeadLetter, Reason
from merchant_usage.sink.ledger import DateVerdict
from merchant_usage.sink.queries import query
from merchant_usage.source.counters import RedisClient, pages, read_page, scan_pages, with_date
from merchant_usage.steps.reader import Reader, ReaderAhead
from merchant_usage.steps.store import BatchResult, store_batch, totals_by_date
from merchant_usage.steps.verify import Proof, verify, would_do

log = Log(__name__)

# Dead letters written by one scan at most; a flood beyond that is counted in the log, not stored.
MAX_DEAD_LETTERS_A_SCAN: Final = 10_000
# A batch costs a dozen statements, whatever its size: next to so many keys they do not count.
KEYS_WORTH_A_BATCH: Final = 10_000
# Merchants that one line of the log names at most.
MAX_MERCHANTS_NAMED: Final = 10


@dataclass(frozen=True, slots=True)
class Run:
    """Who asks for what. `run_type` is Airflow's (scheduled, manual, backfill) or `cli`."""

    run_id: str
    run_type: str
    dates: tuple[dt.date, ...]
    now: dt.datetime
    merchant_ids: tuple[str, ...] | None = None

    def scopes(self, settings: Settings) -> dict[dt.date, Scope]:
        """Its dates, each with whether it is settled by now."""
        return {date: Scope(date, is_settled(date, self.now, settings), self.merchant_ids) for date in self.dates}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a scan decided: the dates of the run, and how many bad keys each of them has by name alone."""

    run_id: str
    scopes: tuple[Scope, ...]
    dead_letters: dict[dt.date, int] = field(default_factory=dict)

    def to_xcom(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "run_id": self.run_id,
            "scopes": [scope.to_xcom() for scope in self.scopes],
            "dead_letters": {date.isoformat(): count for date, count in self.dead_letters.items()},
        }

    @classmethod
    def from_xcom(cls, data: dict[str, Any]) -> Plan:
        """The plan that `to_xcom` wrote down."""
        return cls(
            data["run_id"],
            tuple(map(Scope.from_xcom, data["scopes"])),
            {dt.date.fromisoformat(date): count for date, count in data["dead_letters"].items()},
        )


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


@contextmanager
def _failure_noted(conn: Connection, run_id: str) -> Iterator[None]:
    """Write an error into the ledger on its way out."""
    try:
        yield
    except Exception as error:
        with suppress(psycopg.Error):  # PostgreSQL itself may be what failed; the first error is the one to tell
            ledger.fail(conn, run_id, explain(error), clock.now())
        raise


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


def store(
    client: RedisClient,
    conn: Connection,
    batch: Batch,
    run_id: str,
    settings: Settings,
    reader: Reader | None = None,
) -> BatchResult:
    """Store one batch.

    Raises:
        UpsertFailed: some merchants could not be stored; all others were.
    """
    result = store_batch(client, conn, batch, run_id, settings, reader)
    if result.failures:
        raise UpsertFailed(result.failures)
    return result


def prove(
    client: RedisClient,
    conn: Connection,
    plan: Plan,
    batches: Sequence[Batch],
    results: Sequence[BatchResult],
    settings: Settings,
    on_proof: Callable[[Proof], None] | None = None,
) -> Proof:
    """Verify a run and write its end into the ledger, whatever it is.

    Args:
        on_proof: told what was found, good or bad, once it is in the ledger.

    Raises:
        RunIncomplete: a batch has no result, so the run cannot be proven.
        UsageMismatch: Redis and PostgreSQL do not agree; the ledger says so.
    """
    result = totals_by_date(results)
    for date, count in plan.dead_letters.items():
        result.counts[date].dead_letters += count
    missing = len(batches) - len(results)
    unstored = f"{missing} of {len(batches)} batches were not stored" if missing else None
    with _failure_noted(conn, plan.run_id):
        proof = verify(
            client,
            conn,
            plan.scopes,
            batches,
            result,
            plan.run_id,
            settings.key_prefix,
            proven_before=ledger.is_proven(conn, plan.run_id),
        )
        for report in proof.reports:
            lines = [str(difference) for difference in proof.failing if difference.key.date == report.date]
            report.error = "\n".join(lines[: UsageMismatch.SHOWN]) or unstored
            if missing:
                report.verdict = DateVerdict.MISMATCH
        ledger.finish(conn, plan.run_id, proof.reports, clock.now())
    if on_proof is not None:
        on_proof(proof)
    _tell(proof)
    if proof.regressed_count:
        log.warning(
            f"{proof.regressed_count} counters are lower in Redis than in PostgreSQL. The stored values stay; each "
            "is an open counter_regressed in usage_dead_letter and waits for a decision.",
            regressed=proof.regressed_count,
        )
    _tell_end(proof, missing)
    if proof.failing_count:
        raise UsageMismatch([str(difference) for difference in proof.failing], proof.failing_count)
    if missing:
        raise RunIncomplete(
            f"{unstored}, so this run is not proven. See the red upsert_merchant_usage tasks; once their cause is "
            "mended, clear them with their downstream tasks."
        )
    conn.execute(query("delete_readings"), {"run_id": plan.run_id})
    return proof


def _tell(proof: Proof) -> None:
    for report in proof.reports:
        log.info(
            f"{report.date} is {report.verdict}: Redis {report.redis_total:,}, PostgreSQL {report.postgres_total:,}",
            # Airflow's log view shows nothing in place of True and False.
            **report.as_metadata() | {"settled": "yes" if report.settled else "no"},
        )


def _tell_end(proof: Proof, missing: int) -> None:
    """The last line of a run. An error is a counter, or a bad key, that was not brought over as it should be."""
    records = sum(report.counts.read for report in proof.reports)
    dead = sum(report.counts.dead_letters for report in proof.reports)
    # A batch that was not stored holds one counter at least, though on a live date none of them need be failing.
    failing = max(proof.failing_count, missing)
    errors = failing + proof.regressed_count + dead
    log.info(
        f"Completed. Records aggregated: {records:,}, errors: {errors:,}",
        records=records,
        errors=errors,
        failing=failing,
        regressed=proof.regressed_count,
        dead_letters=dead,
    )


def preview(client: RedisClient, conn: Connection, run: Run, settings: Settings) -> Proof:
    """A dry run: read and compare, log what would change, write nothing."""
    schema.check(conn)
    log.info(f"Dry run for date {_told(run.dates)}: nothing is written", run_id=run.run_id)
    survey = take_survey(client, run.scopes(settings), run, settings)
    _tell_absent(survey, run)
    # Judged as if settled: whatever is not stored yet is what a run would store.
    scopes = [replace(survey.scopes[date], settled=True) for date in sorted(survey.scopes)]
    batches = survey.census.batches((), settings.max_mapped_tasks)
    proof = verify(
        client, conn, scopes, batches, BatchResult(), run.run_id, settings.key_prefix, flag_regressions=False
    )
    _tell_preview(proof, survey, carry=settings.on_regression is OnRegression.CARRY)
    return proof


def _tell_preview(proof: Proof, survey: Survey, *, carry: bool) -> None:
    """What a run would do. It passes no verdict: what is not stored yet is no mismatch."""
    for report in proof.reports:
        numbers = would_do(report)
        log.info(
            f"{report.date}: {numbers['would_store']:,} counter(s) would be stored, "
            f"{numbers['unchanged']:,} unchanged, {numbers['regressed']:,} went backwards, "
            f"{numbers['expired']:,} expired: Redis {report.redis_total:,}, PostgreSQL {report.postgres_total:,}",
            date=str(report.date),
            **numbers,
            redis_total=report.redis_total,
            postgres_total=report.postgres_total,
        )
    stay = " (would be carried on from what is stored)" if carry else " (would stay as stored)"
    letters = [f"{letter.redis_key!r} ({letter.reason}: {letter.detail})" for letter in survey.bad.values()]
    _tell_each("Would store", proof.failing, proof.failing_count)
    _tell_each("Went backwards", proof.regressed, proof.regressed_count)
    _tell_each("Would be a dead letter", letters, len(letters) + survey.bad_left_out)
    bad = len(letters) + survey.bad_left_out + sum(report.bad_values for report in proof.reports)
    log.info(
        f"Dry run, nothing was written: {proof.failing_count:,} counter(s) would be stored, {proof.regressed_count:,} "
        f"went backwards{stay if proof.regressed_count else ''}, {bad:,} key(s) cannot be counted",
        would_store=proof.failing_count,
        regressed=proof.regressed_count,
        dead_letters=bad,
    )


def _tell_each(what: str, found: Sequence[object], count: int) -> None:
    """A line each, and how many more there are."""
    for each in found:
        log.info(f"{what}: {each}")
    if count > len(found):
        log.info(f"{what}: and {count - len(found):,} more")


def compare(client: RedisClient, conn: Connection, run: Run, settings: Settings) -> Proof:
    """Compare Redis with PostgreSQL as they are now, each date judged by whether it is settled, and write nothing."""
    schema.check(conn)
    # With clean-up on a survey would take in dates past the retention, which nobody asked for here.
    asked = replace(settings, delete_stale_keys=False)
    survey = take_survey(client, run.scopes(settings), run, asked)
    _tell_absent(survey, run)
    scopes = [survey.scopes[date] for date in sorted(survey.scopes)]
    batches = survey.census.batches((), settings.max_mapped_tasks)
    return verify(client, conn, scopes, batches, BatchResult(), run.run_id, settings.key_prefix, flag_regressions=False)


def store_all(
    client: RedisClient,
    conn: Connection,
    plan: Plan,
    batches: Sequence[Batch],
    settings: Settings,
    on_batch: Callable[[int, int], None] | None = None,
) -> tuple[list[BatchResult], dict[str, str]]:
    """Store batches one after the other, each read from Redis while the one before it is being stored.

    Returns the results of those that were stored whole, and why which merchants of the others could not be stored.
    """
    results: list[BatchResult] = []
    failures: dict[str, str] = {}
    open_keys = dead_letters.open_keys(conn, [scope.date for scope in plan.scopes])
    with ReaderAhead(client, settings.key_prefix, batches, open_keys) as reader:
        for done, batch in enumerate(batches, start=1):
            try:
                results.append(store(client, conn, batch, plan.run_id, settings, reader))
            except UpsertFailed as error:
                failures.update(error.failures)
            if on_batch is not None:
                on_batch(done, len(batches))
    return results, failures


def aggregate(
    client: RedisClient,
    conn: Connection,
    run: Run,
    settings: Settings,
    on_batch: Callable[[int, int], None] | None = None,
) -> Proof:
    """A whole run in this process: scan, store every batch, verify.

    Args:
        on_batch: told (batches done, batches in all) after each batch.

    Raises:
        UpsertFailed: some merchants could not be stored; all others were, and the ledger says so.
        UsageMismatch: Redis and PostgreSQL do not agree.
    """
    plan, batches = scan(client, conn, run, settings, here=True)
    with _failure_noted(conn, run.run_id):
        results, failures = store_all(client, conn, plan, batches, settings, on_batch)
    try:
        return prove(client, conn, plan, batches, results, settings)
    except (RunIncomplete, UsageMismatch):
        if failures:
            raise UpsertFailed(failures) from None
        raise
