"""What the figures should be, and whether they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench.data import LARGE, MEDIUM, SMALL

#: Seconds of an entry over those of the floor, for LARGE.
OF_THE_FLOOR: Final = {
    "stored": 1.00,
    "verified": 0.95,
    "unchanged": 0.60,
    "two_stored": 0.70,
    "two_verified": 0.80,
    "two_unchanged": 0.55,
    "live": 1.05,
    "live_unchanged": 0.70,
    "live_changed": 1.00,
    "live_without": 0.85,
}
#: MEDIUM may take so much more of the floor: seven keys of eight are looked at in vain.
EIGHT_DAYS: Final = 0.2
#: What sealing a date may take of the floor, once a day; it is in no run's seconds.
SEALING_OF_THE_FLOOR: Final = 0.5
#: What hourly history may take of the floor, in a run of a live day with 10 % changed.
HISTORY_OF_THE_FLOOR: Final = 0.15
SMALL_OF_CONNECTING: Final = 1.3
MEGABYTES: Final = 64.0
#: Whatever lies below the prefix.
MEGABYTES_WITH_GARBAGE: Final = 128.0
UNCHANGED_WAL: Final = 0.01
#: "No bloat": the space that updates left behind is used again.
SIZE_AFTER_RUNS: Final = 1.1
NEIGHBOUR_P99_MS: Final = 5.0


@dataclass(frozen=True)
class Target:
    """A figure that shall not be above a limit."""

    what: str
    figure: float
    limit: float
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether it is not."""
        return self.figure <= self.limit


def targets(report: dict[str, Any]) -> list[Target]:
    """All targets for which the report has a figure."""
    return [target for name, measured in report["data_sets"].items() for target in _of_data_set(name, measured)]


def _of_data_set(name: str, measured: dict[str, Any]) -> Iterator[Target]:
    results = measured["results"]
    if name in {MEDIUM.name, LARGE.name}:
        allowance = EIGHT_DAYS if name == MEDIUM.name else 0.0
        for entry, limit in OF_THE_FLOOR.items():
            ratio = results[entry]["seconds"] / results["floor"]["seconds"]
            yield Target(f"{name}: {measured['labels'][entry]}", ratio, round(limit + allowance, 2), "of the floor")
        more = results["live_changed"]["seconds"] - results["live_without"]["seconds"]
        ratio = more / results["floor"]["seconds"]
        yield Target(f"{name}: what hourly history takes of a run", ratio, HISTORY_OF_THE_FLOOR, "of the floor")
        ratio = results["verified"]["seal_seconds"] / results["floor"]["seconds"]
        yield Target(f"{name}: sealing a date, once a day", ratio, SEALING_OF_THE_FLOOR, "of the floor")
    if name == SMALL.name:
        ratio = results["verified"]["process_seconds"] / results["connect"]["process_seconds"]
        yield Target(f"{name}: whole process, first load", ratio, SMALL_OF_CONNECTING, "of imports and connecting")
    engine = [figures["megabytes"] for entry, figures in results.items() if entry in OF_THE_FLOOR or "live" in entry]
    yield Target(f"{name}: peak memory of a process", max(engine), MEGABYTES, "MB")
    if name != SMALL.name:
        # What a run writes whatever its size, its lines in usage_run and the like, is much beside a thousand rows.
        ratio = measured["wal"]["unchanged"] / measured["wal"]["first_load"]
        yield Target(f"{name}: WAL of an unchanged re-run", ratio * 100, UNCHANGED_WAL * 100, "% of the first load")
    if size := measured.get("size"):
        ratio = size["after_runs"] / size["after_load"]
        what = f"{name}: table and indexes after {size['runs']:.0f} runs with 10 % changed"
        yield Target(what, ratio, SIZE_AFTER_RUNS, "of after one load")
    if neighbour := measured.get("neighbour"):
        yield Target(f"{name}: p99 of others' GETs during a run", neighbour["during_p99"], NEIGHBOUR_P99_MS, "ms")
    if garbage := measured.get("garbage"):
        what = f"{name}: peak memory of a process, huge names and values among the counters"
        yield Target(what, garbage["peak"], MEGABYTES_WITH_GARBAGE, "MB")
    if connections := measured.get("connections"):
        limit = connections["mapped_tasks"] + 1
        yield Target(f"{name}: PostgreSQL connections, two tasks at once", connections["peak"], limit)
