"""Who reads the counters of a batch: whoever stores it, or a thread, while the batch before it is being stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, NamedTuple, Self

from include.usage.batches import Batch
from include.usage.counters import RedisClient
from include.usage.keys import CounterKey
from include.usage.staging import Staged, read_batch

# Smaller batches are read in less time than a thread takes to be worth it, larger ones would take too much memory.
KEYS_AHEAD: Final = range(1_000, 50_001)

# Fewer are logged one by one as they are read, which is left to whoever stores them.
MERCHANTS_AHEAD: Final = 51

OpenKeys = frozenset[bytes] | set[bytes]
OnReading = Callable[[CounterKey, int], None]


class Reading(NamedTuple):
    """Rows for COPY, and what was found besides. `staged` is complete once the rows have been taken."""

    rows: Iterable[bytes]
    staged: Staged


class Reader:
    """Reads a batch when it is asked for, page by page as its rows are taken."""

    def __init__(self, client: RedisClient, prefix: str) -> None:
        self.client = client
        self._prefix = prefix

    def read(self, batch: Batch, open_keys: OpenKeys, on_reading: OnReading | None) -> Reading:
        """The counters of a batch. Arguments as those of `read_batch`."""
        staged = Staged()
        rows = read_batch(self.client, batch, self._prefix, staged, open_keys=open_keys, on_reading=on_reading)
        return Reading(rows, staged)


class ReaderAhead(Reader):
    """Has the next batch read by a thread while this one is being stored: then Redis and PostgreSQL work at once.

    To have read a counter early is harmless: it only grows, and what is stored meanwhile by others is not lowered.
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

    def read(self, batch: Batch, open_keys: OpenKeys, on_reading: OnReading | None) -> Reading:
        """The counters of a batch: from the thread if it is the one that was next and needs no look at each value."""
        if batch is not self._next:
            return super().read(batch, open_keys, on_reading)  # a part of one, or one once more
        ahead = self._ahead
        self._advance()
        if ahead is None or on_reading is not None:
            return super().read(batch, open_keys, on_reading)
        return ahead.result()

    def _advance(self) -> None:
        self._next = next(self._coming, None)
        self._ahead = None
        if (
            self._next is not None
            and self._next.key_count in KEYS_AHEAD
            and len(self._next.merchant_ids) >= MERCHANTS_AHEAD
        ):
            self._ahead = self._thread.submit(self._read_all, self._next)

    def _read_all(self, batch: Batch) -> Reading:
        rows, staged = super().read(batch, self._open_keys, None)
        return Reading(list(rows), staged)
