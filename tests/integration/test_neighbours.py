"""What others who use the same table notice of a run: no lock outlives a batch, and verification locks nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import Connection

from merchant_usage import pipeline
from merchant_usage.model.run import Run
from merchant_usage.source.counters import read_pages
from merchant_usage.steps import page_comparison, scan
from tests.support import NOW, TABLES, TODAY, YESTERDAY, Connect, Usage, key, settings

BATCHES = 4


class Locks:
    """Those that the run's session holds, as somebody else sees them."""

    def __init__(self, run: Connection, watcher: Connection) -> None:
        self._pid = run.info.backend_pid
        self._watcher = watcher

    def on_tables(self) -> set[tuple[str, str]]:
        """Tables and their indexes, with the mode in which they are locked."""
        found = self._watcher.execute(
            "SELECT coalesce(i.indrelid, c.oid)::regclass::text, l.mode FROM pg_locks l"
            " JOIN pg_class c ON c.oid = l.relation LEFT JOIN pg_index i ON i.indexrelid = c.oid"
            " WHERE l.pid = %s AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            [self._pid],
        )
        return {(table, mode) for table, mode in found if table in TABLES}

    def count(self) -> int:
        """All of them, of whatever kind."""
        row = self._watcher.execute("SELECT count(*) FROM pg_locks WHERE pid = %s", [self._pid]).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def locks(usage: Usage, connect: Connect) -> Locks:
    return Locks(usage.conn, connect())


def test_no_lock_outlives_a_batch(usage: Usage, locks: Locks) -> None:
    usage.write({key(f"m{n}", day): 5 for n in range(200) for day in (YESTERDAY, TODAY)})
    usage.aggregate(YESTERDAY, TODAY)
    # Rows to raise, rows to insert, and one to lock and ask for again.
    usage.write({key(f"m{n}", day): 6 for n in range(100, 300) for day in (YESTERDAY, TODAY)} | {key("m1"): 4})
    run = Run("watched", "manual", (YESTERDAY, TODAY), NOW)
    chosen = settings(max_mapped_tasks=BATCHES)
    _, batches = scan.scan(usage.client, usage.conn, run, chosen)
    assert locks.count() == 0
    assert len(batches) == BATCHES
    for batch in batches:
        pipeline.store(usage.client, usage.conn, batch, run.run_id, chosen)
        assert locks.count() == 0


def test_verification_keeps_nobody_from_reading_or_writing(
    usage: Usage, locks: Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple[str, str]] = set()

    def watched(*arguments: Any) -> Iterator[Any]:
        for answer in read_pages(*arguments):
            seen.update(locks.on_tables())
            yield answer

    monkeypatch.setattr(page_comparison, "read_pages", watched)
    usage.write({key(f"m{n}", day): 5 for n in range(2000) for day in (YESTERDAY, TODAY)})
    usage.aggregate(YESTERDAY, TODAY)
    assert ("merchant_usage", "AccessShareLock") in seen
    assert {mode for _, mode in seen} == {"AccessShareLock"}
