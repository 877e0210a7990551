"""What runs read of live dates, kept in `usage_reading` until the run is proven."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from psycopg import Connection

from merchant_usage.model.keys import CounterKey
from merchant_usage.model.readings import PackedReading, lower, unpack
from merchant_usage.model.run import Attempt
from merchant_usage.sink.queries import query


def keep(conn: Connection, run_id: str, attempt: int, batch: int, packed: Iterable[PackedReading]) -> None:
    """Keep what was read of a batch, or of a part of one."""
    with conn.cursor() as cursor, cursor.copy(query("copy_readings")) as copy:
        for reading in packed:
            copy.write_row((run_id, attempt, batch, *reading))


def forget_batch(conn: Connection, run_id: str, attempt: int, batch: int) -> None:
    """A batch is stored (again): what an earlier try read of it counts no more."""
    conn.execute(query("delete_batch_readings"), {"run_id": run_id, "attempt": attempt, "batch": batch})


def of_batch(conn: Connection, attempt: Attempt, batch: int) -> dict[bytes, list[str]]:
    """What was read of a batch, by the digests of its pages. A task that was taken for dead may have read one, too."""
    found: dict[bytes, list[str]] = defaultdict(list)
    parameters = {"run_id": attempt.run_id, "attempt": attempt.number, "batch": batch}
    for page, counters in conn.execute(query("select_readings"), parameters):
        found[page].append(counters)
    return found


def of_pages(
    conn: Connection, attempt: Attempt, batch: int, pages: Collection[bytes]
) -> Iterator[dict[CounterKey, int]]:
    """What was read of some pages of a batch: of each what the row of a key must hold at least."""
    parameters = {"run_id": attempt.run_id, "attempt": attempt.number, "batch": batch, "pages": list(pages)}
    for row in conn.execute(query("select_readings_with_keys"), parameters):
        yield dict(unpack(*row))


def accept(conn: Connection, accepted: Mapping[CounterKey, int]) -> None:
    """Demand no more of these rows than was accepted, not for runs that are under way either. Needs a transaction."""
    dates = sorted({key.date for key in accepted})
    for place, date, keys, counters in conn.execute(query("lock_readings"), {"dates": dates}):
        lowered = lower(date, keys, counters, accepted)
        if lowered != counters:
            conn.execute(query("set_readings"), {"place": place, "counters": lowered})
