"""Stores batches: monotone, differences only, one bounded transaction at a time."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Any, Final

import psycopg
from psycopg import Connection

from merchant_usage.driver_errors import explain_postgres, lacks_partition
from merchant_usage.errors import UsageError
from merchant_usage.log import Log
from merchant_usage.model.batches import Batch
from merchant_usage.model.keys import CounterKey, as_columns, parse_key
from merchant_usage.model.report import Counts
from merchant_usage.settings import Settings
from merchant_usage.sink import dead_letters, readings
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import again_on_conflict, transaction
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.reader import Reader
from merchant_usage.steps.regressions import LIMITS, settle
from merchant_usage.steps.staging import Staged, stage
from merchant_usage.text import shown

log = Log(__name__)

# Rows locked by one transaction at most: about half a second of work, so nobody waits long for us.
MAX_KEYS_PER_TRANSACTION: Final = 50_000
# SQLSTATE classes of what no row is the cause of: syntax, names, types and permissions, and schemas that are not there.
NO_DATA: Final = ("42", "3F")
# Lines a person would read; above that the batch is told in one line.
MAX_MERCHANTS_LOGGED: Final = 50
MAX_METRICS_LOGGED: Final = 10


@dataclass(slots=True)
class BatchResult:
    """What storing a batch did, date by date, and which merchants could not be stored."""

    counts: dict[dt.date, Counts] = field(default_factory=lambda: defaultdict(Counts))
    failures: dict[str, str] = field(default_factory=dict)
    #: Which batch it is.
    number: int = 0
    #: Dates that are not stored whole, because of these failures.
    failed_dates: set[dt.date] = field(default_factory=set)
    #: Why which dates could not be stored: nothing that concerns one merchant alone.
    date_failures: dict[dt.date, str] = field(default_factory=dict)
    #: Good values read of dates that may still grow: verification finds each of them in usage_reading.
    live_readings: int = 0

    def add(self, other: BatchResult) -> None:
        """Add another's counts and failures to these."""
        for date, counts in other.counts.items():
            self.counts[date].add(counts)
        self.failures.update(other.failures)
        self.date_failures.update(other.date_failures)
        self.failed_dates |= other.failed_dates
        self.live_readings += other.live_readings

    @property
    def is_whole(self) -> bool:
        """Whether all of the batch is stored."""
        return not self.failed_dates

    @property
    def total(self) -> Counts:
        """All dates together."""
        total = Counts()
        for counts in self.counts.values():
            total.add(counts)
        return total

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "counts": {date.isoformat(): asdict(counts) for date, counts in self.counts.items()},
            "number": self.number,
            "failures": self.failures,
            "failed_dates": sorted(date.isoformat() for date in self.failed_dates),
            "date_failures": {date.isoformat(): error for date, error in self.date_failures.items()},
            "live_readings": self.live_readings,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> BatchResult:
        """The result that `to_json` wrote down."""
        result = cls(failures=dict(data["failures"]), number=data["number"], live_readings=data["live_readings"])
        result.failed_dates = set(map(dt.date.fromisoformat, data["failed_dates"]))
        result.date_failures = {dt.date.fromisoformat(date): error for date, error in data["date_failures"].items()}
        for date, counts in data["counts"].items():
            result.counts[dt.date.fromisoformat(date)] = Counts(**counts)
        return result


def store_batch(
    client: RedisClient,
    conn: Connection,
    batch: Batch,
    run_id: str,
    settings: Settings,
    reader: Reader | None = None,
) -> BatchResult:
    """Read a batch's counters and raise `merchant_usage` to them.

    Deadlocks and serialization failures are tried again at once. What PostgreSQL refuses otherwise is narrowed
    down by halving the batch, so that every merchant but the refused ones is stored; those are in `failures`. A date
    that has no partition is left out as a whole, and is in `date_failures`.

    Args:
        conn: in autocommit mode; transactions are opened here.
        reader: reads the counters; None for one that reads when asked.

    Raises:
        redis.exceptions.RedisError: Redis cannot be read; what was committed before stays, and is right.
        psycopg.OperationalError: PostgreSQL went away, or a lock was waited for too long.
        psycopg.ProgrammingError: the schema or a permission is missing.
    """
    reader = reader or Reader(client, settings.key_prefix)
    if batch.live_dates:
        with transaction(conn):
            readings.forget_batch(conn, run_id, batch.attempt, batch.number)
    result = _store_parts(reader, conn, batch, run_id, settings)
    result.number = batch.number
    return result


def _store_parts(reader: Reader, conn: Connection, batch: Batch, run_id: str, settings: Settings) -> BatchResult:
    result = BatchResult()
    for part in parts(batch):
        try:
            result.add(again_on_conflict(partial(_insert_or_upsert, reader, conn, part, run_id, settings)))
        except psycopg.Error as error:
            if lacks_partition(error):
                result.add(_store_by_date(reader, conn, part, run_id, settings, error))
                continue
            if not _concerns_data(error):
                raise
            merchants = part.merchant_ids
            if len(merchants) == 1 and len(part.dates) > 1:
                # The cause may concern one of its dates alone.
                for date in part.dates:
                    result.add(_store_parts(reader, conn, part.of_date(date), run_id, settings))
                continue
            if len(merchants) == 1:
                result.failed_dates.update(part.dates)
                explained: UsageError = explain_postgres(error)
                result.failures[merchants[0]] = str(explained)
                log.warning(f"{shown(merchants[0])} could not be stored: {explained}", merchant=merchants[0])
                continue
            for half in part.halves():
                result.add(_store_parts(reader, conn, half, run_id, settings))
    return result


def _store_by_date(
    reader: Reader, conn: Connection, batch: Batch, run_id: str, settings: Settings, error: psycopg.Error
) -> BatchResult:
    """Store a batch one date at a time: the error concerns one of them."""
    result = BatchResult()
    if len(batch.dates) == 1:
        (date,) = batch.dates
        explained = explain_postgres(error)
        result.failed_dates.add(date)
        result.date_failures[date] = str(explained)
        log.warning(f"{date} could not be stored: {explained}", date=str(date))
        return result
    for date in batch.dates:
        result.add(_store_parts(reader, conn, batch.of_date(date), run_id, settings))
    return result


def _concerns_data(error: psycopg.Error) -> bool:
    """Whether leaving a merchant out can help: not if the server, the schema or a permission is the matter."""
    return (
        not explain_postgres(error).heals
        and not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        and (error.sqlstate or "")[:2] not in NO_DATA
    )


def parts(batch: Batch) -> Iterator[Batch]:
    """The batch in parts that one transaction may hold. A merchant stays whole unless it alone is too large."""
    if batch.key_count <= MAX_KEYS_PER_TRANSACTION:
        yield batch
    elif len(batch.merchant_ids) > 1:
        for half in batch.halves():
            yield from parts(half)
    else:
        for group in batch.groups:
            metrics = iter(group.metric_types)
            while some := tuple(islice(metrics, MAX_KEYS_PER_TRANSACTION)):
                yield replace(
                    batch, groups=(group._replace(metric_types=some),), live_dates=batch.live_dates & {group.date}
                )


class _OvertakenError(Exception):
    """Fewer rows were inserted than there were to insert: somebody else was faster, or a trigger keeps rows out."""


def _insert_or_upsert(reader: Reader, conn: Connection, batch: Batch, run_id: str, settings: Settings) -> BatchResult:
    try:
        return _store_in_transaction(reader, conn, batch, run_id, settings, alone=True)
    except (psycopg.errors.UniqueViolation, _OvertakenError):
        # A parallel run inserted a row that was new to both.
        return _store_in_transaction(reader, conn, batch, run_id, settings, alone=False)


def _store_in_transaction(
    reader: Reader, conn: Connection, batch: Batch, run_id: str, settings: Settings, *, alone: bool
) -> BatchResult:
    """Store what one transaction may hold. `alone`: no other run is expected to insert the same rows now."""
    result = BatchResult()
    merchants = _MerchantLog(batch)
    with transaction(conn, LIMITS):
        conn.execute(query("prepare_batch"))
        open_keys = dead_letters.open_keys(conn, batch.dates)
        rows, staged = reader.read(conn, batch, open_keys, merchants.note if merchants.wanted else None)
        suspects: list[CounterKey] = []
        if (block := next(rows, None)) is not None:
            stage(conn, chain([block], rows))
            suspects = _write(conn, batch, staged, result, alone=alone, history=settings.hourly_history)
        if staged.readings:
            # A parallel run may have carried a counter since it was compared: then it is a suspect.
            _keep_readings(conn, batch, run_id, staged, may_carry=staged.may_carry or bool(suspects))
        dead_letters.open_letters(conn, staged.dead_letters)
    for date, reading in staged.by_date.items():
        result.counts[date].read = reading.read
        result.counts[date].expired = reading.expired
        result.counts[date].dead_letters = reading.dead_letters
        if date in batch.live_dates:
            result.live_readings += reading.read
    # In transactions of their own: locking them after the rows above would break the order of locks.
    settled = settle(
        reader.client, conn, dict.fromkeys([*suspects, *_undecided(conn, batch, settings.key_prefix)]), settings
    )
    with transaction(conn):
        dead_letters.resolve(conn, (key for key in staged.healed if key not in settled.overflowing))
    for date in settled.raised:
        result.counts[date].updated += settled.raised[date]
    for date in settled.below:
        result.counts[date].regressed += settled.below[date]
    if merchants.keys:
        merchants.compare(
            {CounterKey(*row[:3]): row[3] for row in conn.execute(query("select_rows"), as_columns(merchants.keys))}
        )
    merchants.write(result)
    return result


def _keep_readings(conn: Connection, batch: Batch, run_id: str, staged: Staged, *, may_carry: bool) -> None:
    """Keep what was read of live dates until verification."""
    carrying: dict[CounterKey, int] = {}
    if may_carry:
        rows = conn.execute(query("select_carrying"), _part_of_table(batch) | {"dates": sorted(batch.live_dates)})
        carrying = {CounterKey(*key): whole for *key, whole in rows}
    packed = (page.with_carried(carrying) for page in staged.readings) if carrying else staged.readings
    readings.keep(conn, run_id, batch.attempt, batch.number, packed)


def _write(
    conn: Connection, batch: Batch, staged: Staged, result: BatchResult, *, alone: bool, history: bool
) -> list[CounterKey]:
    """Raise the table to what is staged; returns the keys that it still does not hold as they were read."""
    part = _part_of_table(batch)
    # What there is to do is known where pages were compared; else it is counted, which reads that part of the table.
    if not staged.mostly_raises and not _insert_new(conn, part, result, alone=alone):
        return []
    as_staged = 0
    for date, inserted, updated in conn.execute(query("upsert_staged"), part | {"history": history}):
        result.counts[date].inserted += inserted
        result.counts[date].updated = updated
        as_staged += inserted + updated
    if as_staged == staged.rows:
        return []
    return [CounterKey(*row) for row in conn.execute(query("select_suspects"), part)]


def _insert_new(conn: Connection, part: dict[str, Any], result: BatchResult, *, alone: bool) -> bool:
    """Insert what has no row yet, if nobody else does so now. Returns whether anything is left to be written."""
    differences = conn.execute(query("count_differences"), part).fetchall()
    missing = {date: without_row for date, without_row, _ in differences if without_row}
    if alone and missing:
        if conn.execute(query("insert_new"), part).rowcount != sum(missing.values()):
            raise _OvertakenError
        for date, inserted in missing.items():
            result.counts[date].inserted = inserted
    # Each staged row is else one that was equal, or one that was inserted.
    return any(other for *_, other in differences) or (not alone and bool(missing))


def _undecided(conn: Connection, batch: Batch, prefix: str) -> list[CounterKey]:
    """Those of a batch's counters that went backwards earlier: each reading of them is noted until somebody decides."""
    parsed = [parse_key(raw_key, prefix) for raw_key in dead_letters.regressed_keys(conn, batch.dates)]
    keys = {key for key in parsed if isinstance(key, CounterKey)}
    return [key for key in batch.counter_keys() if key in keys] if keys else []


def _part_of_table(batch: Batch) -> dict[str, Any]:
    """Which part of the table a batch concerns, as queries take it."""
    first, last = batch.range
    return {"dates": batch.dates, "first": first, "last": last}


class _MerchantLog:
    """One line a merchant, while there are few enough of them to be read."""

    def __init__(self, batch: Batch) -> None:
        self._merchants = batch.merchant_ids
        self._name = batch.name
        self.wanted = len(self._merchants) <= MAX_MERCHANTS_LOGGED
        self._readings: dict[tuple[str, dt.date], dict[str, int]] = defaultdict(dict)
        self._stored: Mapping[CounterKey, int] = {}

    def note(self, key: CounterKey, value: int) -> None:
        """Remember a reading for the log."""
        metrics = self._readings[key.merchant_id, key.date]
        if len(metrics) < MAX_METRICS_LOGGED:
            metrics[key.metric_type] = value

    @property
    def keys(self) -> list[CounterKey]:
        """What was read, as far as it is logged."""
        return [CounterKey(*of_whom, metric) for of_whom, metrics in self._readings.items() for metric in metrics]

    def compare(self, stored: Mapping[CounterKey, int]) -> None:
        """Take in what is stored now: another value than was read is told, too."""
        self._stored = stored

    def _value(self, key: CounterKey, read: int) -> str:
        stored = self._stored.get(key, read)
        return f"{shown(key.metric_type)} = " + (f"{read:,}" if stored == read else f"{read:,} read, {stored:,} stored")

    def write(self, result: BatchResult) -> None:
        """Log what was stored."""
        for (merchant, date), metrics in sorted(self._readings.items()):
            values = ", ".join(
                self._value(CounterKey(merchant, date, metric), value) for metric, value in sorted(metrics.items())
            )
            log.info(f"Aggregated {shown(merchant)}: {values} ({date})", merchant=merchant, date=str(date))
        total = result.total
        log.info(
            f"Stored {self._name}: {total.read} counters, {total.inserted} new, {total.updated} raised, "
            f"{total.unchanged} unchanged, {total.dead_letters} dead letters",
            **asdict(total),
        )


def totals_by_date(results: Iterable[BatchResult]) -> BatchResult:
    """Several batches' results as one."""
    total = BatchResult()
    for result in results:
        total.add(result)
    return total
