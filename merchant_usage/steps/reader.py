"""Who reads the counters of a batch: whoever stores it, or a thread, while the batch before it is being stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, NamedTuple, Self

from psycopg import Connection

from merchant_usage.model.batches import Batch
from merchant_usage.model.pages import key_pages
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.page_comparison import rows_held
from merchant_usage.steps.staging import OnReading, OpenKeys, Staged, read_all, read_unequal

# Smaller batches are read in less time than a thread takes to be worth it, larger ones would take too much memory.
KEYS_AHEAD: Final = range(1_000, 50_001)

# Fewer are logged one by one as they are read, which is left to whoever stores them.
MERCHANTS_AHEAD: Final = 51


class Reading(NamedTuple):
    """Rows for COPY, and what was found besides. `staged` is complete once the rows have been taken."""

    rows: Iterator[bytes]
    staged: Staged


class Reader:
    """Reads a batch when it is asked for, page by page as its rows are taken."""

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self.client = client
        self._prefix = prefix
        #: Whether the table held nothing of the last batch that was looked up: then the next may be new, too.
        self._new = False

    def read(self, conn: Connection, batch: Batch, open_keys: OpenKeys, on_reading: OnReading | None) -> Reading:
        """What is to be staged of a batch: what the table does not hold yet. A new day is not compared with it twice.

        Args:
            open_keys: keys with an open dead letter.
            on_reading: called with every good value.
        """
        self._new = not rows_held(conn, next(key_pages(batch.groups, self._prefix)))
        if self._new:
            return self._read_all(batch, open_keys, on_reading)
        staged = Staged(self._prefix, open_keys, on_reading, batch.live_dates)
        # A list, because COPY and queries cannot share the connection; of a transaction's share, so it is bounded.
        return Reading(iter(list(read_unequal(self.client, conn, batch.groups, staged))), staged)

    def _read_all(self, batch: Batch, open_keys: OpenKeys, on_reading: OnReading | None) -> Reading:
        staged = Staged(self._prefix, open_keys, on_reading, batch.live_dates)
        return Reading(read_all(self.client, batch.groups, staged), staged)


class ReaderAhead(Reader):
    """Has the next batch read by a thread while this one is being stored: then Redis and PostgreSQL work at once.

    Only if all of it is to be staged. To have read a counter early is harmless: it only grows, and what is stored
    meanwhile by others is not lowered.
    """

    def __init__(self, client: RedisClient, prefix: str, batches: Iterable[Batch], open_keys: OpenKeys) -> None:
        super().__init__(client, prefix)
        self._coming: Iterator[Batch] = iter(batches)
        self._open_keys = open_keys
        self._thread = ThreadPoolExecutor(1, "usage-reader")
        self._next: Batch | None = None
        self._ahead: Future[Reading] | None = None

    def __enter__(self) -> Self:
        """Begin to read the first batch."""
        self._advance()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for what is being read: a batch at most."""
        self._thread.shutdown(cancel_futures=True)

    def read(self, conn: Connection, batch: Batch, open_keys: OpenKeys, on_reading: OnReading | None) -> Reading:
        """What is to be staged of a batch: from the thread if it is the one that was next and needs no closer look."""
        if batch is not self._next:
            return super().read(conn, batch, open_keys, on_reading)  # a part of one, or one once more
        if self._ahead is None or on_reading is not None:
            reading = super().read(conn, batch, open_keys, on_reading)
            self._advance()
            return reading
        ahead = self._ahead
        self._advance()
        return ahead.result()

    def _advance(self) -> None:
        self._next = next(self._coming, None)
        self._ahead = None
        if (
            self._next is not None
            and self._next.key_count in KEYS_AHEAD
            and len(self._next.merchant_ids) >= MERCHANTS_AHEAD
            and self._new
        ):
            self._ahead = self._thread.submit(self._read_whole, self._next)

    def _read_whole(self, batch: Batch) -> Reading:
        rows, staged = self._read_all(batch, self._open_keys, None)
        return Reading(iter(list(rows)), staged)
