"""Deletes keys that are past the retention and proven to be stored: compare-and-delete, never plain delete.

Looks besides at the keys that should expire soon: some may have no TTL, and some may not be stored.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import redis
from psycopg import Connection
from redis.cluster import RedisCluster

from merchant_usage.log import Log
from merchant_usage.model.dates import local_date, oldest_kept
from merchant_usage.model.dead_letter import DeadLetter
from merchant_usage.model.keys import CounterKey, as_columns, build_key
from merchant_usage.model.pages import pages
from merchant_usage.settings import Settings
from merchant_usage.sink import dead_letters
from merchant_usage.sink.merchant_usage import RowWrite, lock_rows, set_rows
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import transaction
from merchant_usage.source import cluster
from merchant_usage.source.counters import holders, read_page, seconds_to_live
from merchant_usage.source.replies import bound_replies
from merchant_usage.source.shards import RedisClient, Shards

log = Log(__name__)

# One atomic step on the server: an increment that arrives in between makes the value differ, and the key stays.
COMPARE_AND_DELETE: Final = """
if redis.call('MGET', KEYS[1])[1] == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

# A key that is not stored and has less to live than this is usage about to be lost.
EXPIRING_SECONDS: Final = 24 * 60 * 60
# What a person needs to find the cause; the rest is counted.
MAX_EXAMPLES: Final = 10


@dataclass(slots=True)
class TimeToLive:
    """Keys that will never expire, and keys that will soon though PostgreSQL does not hold them."""

    without: int = 0
    expiring: int = 0
    examples_without: list[str] = field(default_factory=list)
    examples_expiring: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Cleaned:
    """Keys deleted (or, in a dry run, that would be), and keys that differ from PostgreSQL and were left."""

    deleted: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class OldDates:
    """The dates that clean-up looks at.

    `stale`: past the retention and verified by this run, so that their keys may be deleted. `newest`: from this date on
    keys still have more than a day to live.
    """

    stale: frozenset[dt.date]
    newest: dt.date

    @classmethod
    def of(cls, verified: Iterable[dt.date], now: dt.datetime, settings: Settings) -> OldDates:
        """Of the dates that a run verified."""
        oldest = oldest_kept(local_date(now, settings), settings)
        return cls(frozenset(date for date in verified if date < oldest), oldest + dt.timedelta(days=1))

    def are_among(self, dates: Iterable[dt.date]) -> bool:
        """Whether any of these dates is one of them."""
        return min(dates, default=dt.date.max) <= self.newest


@dataclass(frozen=True, slots=True)
class CleanUp:
    """What a clean-up did, and what it found."""

    cleaned: Cleaned = field(default_factory=Cleaned)
    ttl: TimeToLive = field(default_factory=TimeToLive)

    def to_json(self) -> dict[str, int]:
        """Plain JSON."""
        return {
            "deleted": self.cleaned.deleted,
            "kept": self.cleaned.kept,
            "without_ttl": self.ttl.without,
            "expiring": self.ttl.expiring,
        }


def clean_up(
    client: RedisClient,
    conn: Connection,
    keys: Callable[[], Iterable[CounterKey]],
    dates: OldDates,
    settings: Settings,
) -> CleanUp:
    """Delete the keys of stale dates, if that is switched on, and look how long the old ones have to live.

    Args:
        keys: those that the scan found. Called more than once, because there may be too many to keep.
    """

    def old() -> Iterable[CounterKey]:
        return (key for key in keys() if key.date <= dates.newest)

    prefix = settings.key_prefix
    cleaned = delete_stale(client, conn, old(), dates.stale, prefix) if settings.delete_stale_keys else Cleaned()
    return CleanUp(cleaned, inspect_ttl(client, conn, old(), prefix))


def log_clean_up(done: CleanUp, settings: Settings) -> None:
    """Say what was deleted and what was found."""
    cleaned, ttl = done.cleaned, done.ttl
    log.info(
        f"Deleted {cleaned.deleted} stale keys, left {cleaned.kept}"
        if settings.delete_stale_keys
        else "Clean-up is off (USAGE_DELETE_STALE_KEYS=false): nothing is deleted from Redis",
        deleted=cleaned.deleted,
        kept=cleaned.kept,
    )
    if ttl.without:
        log.warning(f"{ttl.without} keys have no TTL: {', '.join(ttl.examples_without)}", without_ttl=ttl.without)
    if ttl.expiring:
        log.warning(
            f"{ttl.expiring} keys expire within a day and are not stored: {', '.join(ttl.examples_expiring)}",
            expiring=ttl.expiring,
        )


def delete_stale(
    client: RedisClient,
    conn: Connection,
    keys: Iterable[CounterKey],
    proven_dates: Iterable[dt.date],
    prefix: str,
    *,
    dry_run: bool = False,
) -> Cleaned:
    """Delete those keys of proven dates whose value is exactly what PostgreSQL holds.

    Args:
        proven_dates: dates past the retention that this run verified.
    """
    proven = set(proven_dates)
    cleaned = Cleaned()
    for page in pages(key for key in keys if key.date in proven):
        rows = [_Row(CounterKey(*row[:3]), row[3], row[4]) for row in _select_rows(conn, page)]
        if dry_run:
            expected = [(build_key(prefix, row.key), row.counter) for row in rows]
            values = read_page(client, [key for key, _ in expected])
            deleted = sum(value == row.stored - row.carried for value, row in zip(values, rows, strict=True))
        else:
            deleted = _delete_page(client, conn, rows, prefix)
        cleaned.deleted += deleted
        cleaned.kept += len(page) - deleted
    return cleaned


class _Row(NamedTuple):
    """A stored counter."""

    key: CounterKey
    stored: int
    carried: int

    @property
    def counter(self) -> bytes:
        """What Redis has of it, if it has not moved on."""
        return b"%d" % (self.stored - self.carried)


def _delete_page(client: RedisClient, conn: Connection, rows: Sequence[_Row], prefix: str) -> int:
    """Delete keys that hold just what is stored, and let their rows carry it: a key that comes back counts from zero.

    What is about to be deleted is written down first, so that a process that dies in between leaves no doubt. Rows are
    locked meanwhile: whoever finds a new counter waits, and then adds it.
    """
    columns = as_columns(row.key for row in rows)
    with transaction(conn):
        conn.execute(query("set_durable"))
        conn.execute(query("insert_deletions"), columns | {"metric_values": [row.stored - row.carried for row in rows]})
    with transaction(conn):
        conn.execute(query("set_durable"))
        locked = [_Row(*row) for row in lock_rows(conn, [row.key for row in rows])]
        # Another process that found them left over has taken those that are not here any more.
        ours = {CounterKey(*row[:3]): row[3] for row in conn.execute(query("lock_deletions"), columns)}
        meant = [row for row in locked if ours.get(row.key) == row.stored - row.carried]
        deleted = _compare_and_delete(client, [(build_key(prefix, row.key), row.counter) for row in meant])
        gone = [row for row, is_gone in zip(meant, deleted, strict=True) if is_gone]
        set_rows(conn, [RowWrite(row.key, row.stored, row.stored) for row in gone])
        conn.execute(query("delete_deletions"), as_columns(ours))
    return len(gone)


def deletion_dates(conn: Connection) -> set[dt.date]:
    """The dates of which a clean-up that was cut short has left something."""
    return {row[1] for row in conn.execute(query("select_deletions"))}


def recover_deletions(client: RedisClient, conn: Connection, settings: Settings) -> None:
    """Bring to its end what a clean-up that was cut short has left: before anything else is made of these keys.

    A key that is gone was deleted, one that holds what it held was not. One that holds something else may have grown
    before it was deleted or begun anew afterwards: that is for a person to decide.
    """
    left = conn.execute(query("select_deletions")).fetchall()
    for page in pages(CounterKey(*row) for row in left):
        with transaction(conn):
            rows = lock_rows(conn, page)
            values = {CounterKey(*row[:3]): row[3] for row in conn.execute(query("lock_deletions"), as_columns(page))}
            rows = [row for row in rows if row[0] in values]
            raw_keys = [build_key(settings.key_prefix, key) for key, _, _ in rows]
            letters, gone = list[DeadLetter](), set[CounterKey]()
            for (key, stored, carried), raw, now in zip(rows, raw_keys, read_page(client, raw_keys), strict=True):
                if now is None:
                    gone.add(key)
                elif isinstance(now, int) and now != values[key]:
                    letters.append(
                        DeadLetter.regression(raw, key.date, redis=now, postgres=stored, carried=carried, base=stored)
                    )
            set_rows(conn, [RowWrite(key, stored, stored) for key, stored, _ in rows if key in gone])
            dead_letters.open_letters(conn, letters)
            conn.execute(query("delete_deletions"), as_columns(values))
        log.warning(
            f"A clean-up was cut short: {len(gone)} of {len(values)} keys had been deleted, {len(letters)} wait for a "
            "decision.",
            deleted=len(gone),
            undecided=len(letters),
        )


def inspect_ttl(client: RedisClient, conn: Connection, keys: Iterable[CounterKey], prefix: str) -> TimeToLive:
    """Look for keys without a TTL, and for keys that expire within a day and have no row in PostgreSQL.

    Finds nothing, and says so in the log, if the Redis user may not ask for a TTL: it moves no counter.
    """
    found = TimeToLive()
    for page in pages(keys):
        try:
            seconds = _seconds_to_live(client, page, prefix)
        except redis.exceptions.NoPermissionError:
            log.warning("The Redis user may not ask for a TTL (+ttl), so keys that never expire are not looked for.")
            return found
        soon = [key for key, left in seconds.items() if 0 <= left < EXPIRING_SECONDS]
        stored = {CounterKey(*row[:3]) for row in _select_rows(conn, soon)} if soon else set()
        without = [key for key, left in seconds.items() if left == -1]
        expiring = [key for key in soon if key not in stored]
        found.without += len(without)
        found.expiring += len(expiring)
        found.examples_without += map(str, without[: MAX_EXAMPLES - len(found.examples_without)])
        found.examples_expiring += map(str, expiring[: MAX_EXAMPLES - len(found.examples_expiring)])
    return found


def expiring(client: RedisClient, keys: Iterable[CounterKey], prefix: str) -> set[CounterKey]:
    """Those of the keys that expire within a day; none if the Redis user may not ask for a TTL."""
    found: set[CounterKey] = set()
    with suppress(redis.exceptions.NoPermissionError):
        for page in pages(keys):
            seconds = _seconds_to_live(client, page, prefix)
            found.update(key for key, left in seconds.items() if 0 <= left < EXPIRING_SECONDS)
    return found


def _seconds_to_live(client: RedisClient, page: Sequence[CounterKey], prefix: str) -> dict[CounterKey, int]:
    """How long each key has to live: -1 for ever, -2 if there is none."""
    return dict(zip(page, seconds_to_live(client, [build_key(prefix, key) for key in page]), strict=True))


def _value(client: redis.Redis, key: bytes) -> bytes | None:
    # MGET, because GET is an error for a key that holds something else than a counter.
    values: Any = client.mget([key])
    return values[0]  # type: ignore[no-any-return]  # bytes or None


def _select_rows(conn: Connection, keys: Sequence[CounterKey]) -> list[tuple[Any, ...]]:
    return conn.execute(query("select_rows"), as_columns(keys)).fetchall()


def _compare_and_delete(client: RedisClient, expected: Sequence[tuple[bytes, bytes]]) -> list[bool]:
    if isinstance(client, RedisCluster):
        keys = [key for key, _ in expected]
        commands = [("EVAL", COMPARE_AND_DELETE, 1, key, value) for key, value in expected]
        return list(map(bool, cluster.execute_each(client, keys, commands)))
    if isinstance(client, Shards):
        return _compare_and_delete_where_held(client, expected)
    pipeline = client.pipeline(transaction=False)
    for key, value in expected:
        pipeline.eval(COMPARE_AND_DELETE, 1, key, value)
    replies: list[Any] = pipeline.execute(raise_on_error=False)
    refused = next((reply for reply in replies if isinstance(reply, redis.exceptions.NoPermissionError)), None)
    if refused is not None:
        try:
            return [_watch_and_delete(client, key, value) for key, value in expected]
        except redis.exceptions.NoPermissionError:
            raise refused from None  # scripts are what is best allowed
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return [bool(reply) for reply in replies]


def _compare_and_delete_where_held(client: Shards, expected: Sequence[tuple[bytes, bytes]]) -> list[bool]:
    """The same on several servers. A key that is on two of them is left: which one counts nobody knows."""
    where = holders(client, [key for key, _ in expected])
    deleted = [False] * len(expected)
    for server in client.servers:
        positions = [position for position, holder in enumerate(where) if holder is server]
        done = _compare_and_delete(server, [expected[position] for position in positions])
        for position, is_gone in zip(positions, done, strict=True):
            deleted[position] = is_gone
    return deleted


def _watch_and_delete(client: redis.Redis, key: bytes, value: bytes) -> bool:
    """The same for a user who may not run scripts: WATCH makes the DEL fail if the key was touched."""
    with client.pipeline() as pipeline:
        pipeline.watch(key)
        bound_replies(pipeline.connection)
        if _value(pipeline, key) != value:
            return False
        pipeline.multi()
        pipeline.delete(key)
        try:
            return bool(pipeline.execute()[0])
        except redis.exceptions.WatchError:
            return False
