"""Stores batches: monotone, differences only, one bounded transaction at a time."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from typing import Any, Final

import psycopg
from psycopg import Connection

from merchant_usage.driver_errors import explain_postgres, lacks_partition
from merchant_usage.errors import UsageError
from merchant_usage.log import Log
from merchant_usage.model.batches import Batch
from merchant_usage.model.dead_letter import DeadLetter, Reason
from merchant_usage.model.keys import CounterKey, build_key, shown
from merchant_usage.model.pages import pages
from merchant_usage.model.report import Counts
from merchant_usage.settings import OnRegression, Settings
from merchant_usage.sink import dead_letters
from merchant_usage.sink.merchant_usage import RowWrite, lock_rows, set_rows
from merchant_usage.sink.queries import query
from merchant_usage.source.counters import MAX_VALUE, RedisClient, read_page, with_date
from merchant_usage.steps.reader import Reader
from merchant_usage.steps.staging import stage

log = Log(__name__)

# Rows locked by one transaction at most: about half a second of work, so nobody waits long for us.
MAX_KEYS_PER_TRANSACTION: Final = 50_000
# A lock of somebody else is waited for this long; a statement may take this long. Then the task is retried.
LIMITS: Final = {"lock_timeout": "20s", "statement_timeout": "120s"}
# What two writers may do to each other, and what is over when one of them begins again.
CONFLICTS: Final = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
# Lines a person would read; above that the batch is told in one line.
MAX_MERCHANTS_LOGGED: Final = 50
MAX_METRICS_LOGGED: Final = 10


@dataclass(slots=True)
class BatchResult:
    """What storing a batch did, date by date, and which merchants could not be stored."""

    counts: dict[dt.date, Counts] = field(default_factory=lambda: defaultdict(Counts))
    failures: dict[str, str] = field(default_factory=dict)
    #: Good values read of dates that may still grow: verification finds each of them in usage_reading.
    live_readings: int = 0

    def add(self, other: BatchResult) -> None:
        """Add another's counts and failures to these."""
        for date, counts in other.counts.items():
            self.counts[date].add(counts)
        self.failures.update(other.failures)
        self.live_readings += other.live_readings

    @property
    def total(self) -> Counts:
        """All dates together."""
        total = Counts()
        for counts in self.counts.values():
            total.add(counts)
        return total

    def to_xcom(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "counts": {date.isoformat(): asdict(counts) for date, counts in self.counts.items()},
            "failures": self.failures,
            "live_readings": self.live_readings,
        }

    @classmethod
    def from_xcom(cls, data: dict[str, Any]) -> BatchResult:
        """The result that `to_xcom` wrote down."""
        result = cls(failures=dict(data["failures"]), live_readings=data["live_readings"])
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
    down by halving the batch, so that every merchant but the refused ones is stored; those are in `failures`.

    Args:
        conn: in autocommit mode; transactions are opened here.
        reader: reads the counters; None for one that reads when asked.

    Raises:
        redis.exceptions.RedisError: Redis cannot be read; what was committed before stays, and is right.
        psycopg.OperationalError: PostgreSQL went away, or a lock was waited for too long.
        psycopg.ProgrammingError: the schema or a permission is missing.
    """
    result = BatchResult()
    reader = reader or Reader(client, settings.key_prefix)
    for part in _parts(batch):
        try:
            result.add(_store_part(reader, conn, part, run_id, settings))
        except psycopg.Error as error:
            if not _concerns_data(error):
                raise
            merchants = part.merchant_ids
            if len(merchants) == 1:
                explained: UsageError = explain_postgres(error)
                result.failures[merchants[0]] = str(explained)
                log.warning(f"{shown(merchants[0])} could not be stored: {explained}", merchant=merchants[0])
                continue
            for half in part.halves():
                result.add(store_batch(client, conn, half, run_id, settings))
    return result


def _concerns_data(error: psycopg.Error) -> bool:
    """Whether leaving a merchant out can help: not if the server, the schema or a permission is the matter."""
    return not lacks_partition(error) and not isinstance(
        error,
        psycopg.OperationalError
        | psycopg.InterfaceError
        | psycopg.errors.UndefinedTable
        | psycopg.errors.UndefinedColumn
        | psycopg.errors.InsufficientPrivilege
        | psycopg.errors.ReadOnlySqlTransaction,
    )


def _parts(batch: Batch) -> Iterator[Batch]:
    """The batch in parts that one transaction may hold. A merchant stays whole unless it alone is too large."""
    if batch.key_count <= MAX_KEYS_PER_TRANSACTION:
        yield batch
    elif len(batch.merchant_ids) > 1:
        for half in batch.halves():
            yield from _parts(half)
    else:
        for group in batch.groups:
            metrics = iter(group.metric_types)
            while some := tuple(islice(metrics, MAX_KEYS_PER_TRANSACTION)):
                yield Batch((group._replace(metric_types=some),), batch.live_dates & {group.date})


class _OvertakenError(Exception):
    """Fewer rows were inserted than there were to insert: somebody else was faster, or a trigger keeps rows out."""


def _store_part(reader: Reader, conn: Connection, batch: Batch, run_id: str, settings: Settings) -> BatchResult:
    """Store what one transaction may hold; deadlocks and serialization failures are tried again at once."""
    try:
        return _store_once(reader, conn, batch, run_id, settings)
    except CONFLICTS:
        import tenacity  # takes 2 MB and as long as a thousand counters, and is seldom needed

        again = tenacity.retry(
            retry=tenacity.retry_if_exception_type(CONFLICTS),
            stop=tenacity.stop_after_attempt(4),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=2),
            reraise=True,
        )
        return again(_store_once)(reader, conn, batch, run_id, settings)


def _store_once(reader: Reader, conn: Connection, batch: Batch, run_id: str, settings: Settings) -> BatchResult:
    try:
        return _try_part(reader, conn, batch, run_id, settings, alone=True)
    except (psycopg.errors.UniqueViolation, _OvertakenError):
        # A parallel run inserted a row that was new to both.
        return _try_part(reader, conn, batch, run_id, settings, alone=False)


def _try_part(
    reader: Reader, conn: Connection, batch: Batch, run_id: str, settings: Settings, *, alone: bool
) -> BatchResult:
    """Store what one transaction may hold. `alone`: no other run is expected to insert the same rows now."""
    result = BatchResult()
    told = _MerchantLog(batch)
    live = sorted(batch.live_dates)
    with conn.transaction():
        conn.execute(query("set_limits"), LIMITS)
        conn.execute(query("prepare_batch"))
        open_keys = dead_letters.open_keys(conn, batch.dates)
        rows, staged = reader.read(conn, batch, open_keys, told.note if told.wanted else None)
        suspects: list[CounterKey] = []
        if (block := next(rows, None)) is not None:
            stage(conn, chain([block], rows))
            suspects = _write(conn, batch, result, alone=alone)
        if live:
            conn.execute(query("insert_readings"), {**_part_of_table(batch), "run_id": run_id, "dates": live})
        dead_letters.open_letters(conn, staged.dead_letters)
        dead_letters.resolve(conn, staged.healed)
    for date, reading in staged.by_date.items():
        result.counts[date].read = reading.read
        result.counts[date].expired = reading.expired
        result.counts[date].dead_letters = reading.dead_letters
        if date in batch.live_dates:
            result.live_readings += reading.read
    # In transactions of their own: locking them after the rows above would break the order of locks.
    for page in pages(suspects):
        _settle_suspects(reader.client, conn, page, result, settings)
    told.tell(result)
    return result


def _write(conn: Connection, batch: Batch, result: BatchResult, *, alone: bool) -> list[CounterKey]:
    """Raise the table to what is staged; returns the keys that it still does not hold as they were read."""
    part = _part_of_table(batch)
    # Planned anew each time (prepare=False): what is staged differs from batch to batch.
    differences = conn.execute(query("count_differences"), part, prepare=False).fetchall()
    missing = {date: without_row for date, without_row, _ in differences if without_row}
    different = any(other for *_, other in differences)
    if alone and missing:
        if conn.execute(query("insert_new"), part, prepare=False).rowcount != sum(missing.values()):
            raise _OvertakenError
        for date, inserted in missing.items():
            result.counts[date].inserted = inserted
    if not different and (alone or not missing):
        return []  # each staged row is one that was equal, or one that was inserted
    for date, inserted, updated in conn.execute(query("upsert_staged"), part, prepare=False):
        result.counts[date].inserted += inserted
        result.counts[date].updated = updated
    return [CounterKey(*row) for row in conn.execute(query("select_suspects"), part, prepare=False)]


def _part_of_table(batch: Batch) -> dict[str, Any]:
    """Which part of the table a batch concerns, as queries take it."""
    first, last = batch.range
    return {"dates": batch.dates, "first": first, "last": last}


def _settle_suspects(
    client: RedisClient, conn: Connection, keys: list[CounterKey], result: BatchResult, settings: Settings
) -> None:
    """Read suspects again with their rows locked: raise the row, or state that the counter went backwards."""
    letters: list[DeadLetter] = []
    writes: list[RowWrite] = []
    carried_keys: list[bytes] = []
    with conn.transaction():
        conn.execute(query("set_limits"), LIMITS)
        rows = lock_rows(conn, keys)
        raw_keys = [build_key(settings.key_prefix, key) for key, _, _ in rows]
        decided = dead_letters.kept(conn, {raw: stored for raw, (_, stored, _) in zip(raw_keys, rows, strict=True)})
        values = read_page(client, raw_keys)
        for (key, stored, carried), raw_key, value in zip(rows, raw_keys, values, strict=True):
            if isinstance(value, DeadLetter):
                letters.append(with_date(value, key.date))
            elif value is None or value == stored - carried:
                pass
            elif value > stored - carried:
                writes.append(RowWrite(key, carried + value, carried))
                result.counts[key.date].updated += 1
            elif value >= decided.get(raw_key, MAX_VALUE):
                log.info(f"{key} stays at {stored}, as was decided; Redis has {value}")
            else:
                letter = DeadLetter.regression(raw_key, key.date, redis=value, postgres=stored, carried=carried)
                letters.append(letter)
                result.counts[key.date].regressed += 1
                carry = settings.on_regression is OnRegression.CARRY
                if carry:
                    writes.append(RowWrite(key, stored + value, stored))
                    carried_keys.append(raw_key)
                log.warning(
                    f"{key} went backwards: {letter.detail}; {'carried on from' if carry else 'kept'} {stored}",
                    merchant=key.merchant_id,
                    metric=key.metric_type,
                    date=str(key.date),
                    redis=value,
                    postgres=stored,
                )
        set_rows(conn, writes)
        dead_letters.open_letters(conn, letters)
        dead_letters.resolve(conn, carried_keys, [Reason.COUNTER_REGRESSED])


class _MerchantLog:
    """One line a merchant, while there are few enough of them to be read."""

    def __init__(self, batch: Batch) -> None:
        self._merchants = batch.merchant_ids
        self._name = batch.name
        self.wanted = len(self._merchants) <= MAX_MERCHANTS_LOGGED
        self._readings: dict[tuple[str, dt.date], dict[str, int]] = defaultdict(dict)

    def note(self, key: CounterKey, value: int) -> None:
        """Remember a reading for the log."""
        metrics = self._readings[key.merchant_id, key.date]
        if len(metrics) < MAX_METRICS_LOGGED:
            metrics[key.metric_type] = value

    def tell(self, result: BatchResult) -> None:
        """Log what was stored."""
        for (merchant, date), metrics in sorted(self._readings.items()):
            told = ", ".join(f"{shown(metric)} = {value:,}" for metric, value in sorted(metrics.items()))
            log.info(f"Aggregated {shown(merchant)}: {told} ({date})", merchant=merchant, date=str(date))
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
