"""The cost model: what a run takes for other numbers of keys, merchants, primaries and workers.

All constants come from a report of the benchmark, so they are those of its machine. docs/explanation/performance.md
says how far they carry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from bench.tables import Sheet

GB: Final = 1e9
MICRO: Final = 1e-6
MEGABYTE: Final = 1e6
DAYS_IN_REDIS: Final = 8
DAYS_IN_MONTH: Final = 30
RUNS_A_DAY: Final = 24


@dataclass(frozen=True)
class Constants:
    """What one key, counter or merchant costs: times in µs, with one worker; memory in the process that scans."""

    walk: float
    sort: float
    store_first: float
    store_again: float
    verify: float
    serial: float
    fixed_seconds: float
    wal_first: float
    wal_again: float
    row_bytes: float
    redis_bytes: float
    xcom_bytes: float
    base_megabytes: float
    bytes_a_merchant: float

    @classmethod
    def of(cls, report: dict[str, Any]) -> Constants:
        """Derive them from a report of two data sets or more.

        Costs are what the largest adds to the smallest; sizes are those of the largest.
        """
        measured = sorted(report["data_sets"].values(), key=lambda measured: measured["wanted"])
        smallest, largest = measured[0], measured[-1]
        sized = [one for one in measured if "size" in one][-1]
        results = largest["results"]

        def growth(entry: str, figure: str, by: str = "wanted") -> float:
            """What one more key or counter adds: the rest is there in the smallest run too."""
            more = largest["results"][entry][figure] - smallest["results"][entry][figure]
            return float(max(0.0, more / (largest[by] - smallest[by])))

        # Time with w workers is serial + (1 - serial) / w of the time with one (Amdahl); measured with two.
        by_two = results["two_verified"]["store_seconds"] / results["verified"]["store_seconds"]
        walk = growth("walk", "seconds", "keys")
        return cls(
            walk=walk / MICRO,
            sort=max(0.0, growth("verified", "scan_seconds", "keys") - walk) / MICRO,
            store_first=growth("live", "store_seconds") / MICRO,
            store_again=growth("live_changed", "store_seconds") / MICRO,
            verify=growth("live_changed", "verify_seconds") / MICRO,
            serial=min(1.0, max(0.0, 2 * by_two - 1)),
            fixed_seconds=smallest["results"]["live_changed"]["seconds"],
            wal_first=largest["wal"]["first_load"] / largest["wanted"],
            wal_again=largest["wal"]["changed"] / largest["wanted"],
            row_bytes=sized["size"]["after_runs"] / sized["wanted"],
            redis_bytes=largest["redis_bytes"],
            xcom_bytes=report["xcom"]["batches_bytes"] / report["xcom"]["merchants"],
            base_megabytes=smallest["results"]["live"]["megabytes"],
            bytes_a_merchant=growth("live", "megabytes", "merchants") * MEGABYTE,
        )


@dataclass(frozen=True)
class Load:
    """A size to plan for: counters of one day, their merchants, and what works on them."""

    counters: int
    merchants: int
    primaries: int
    workers: int

    @property
    def keys(self) -> int:
        """Keys in Redis: every day that is kept there."""
        return self.counters * DAYS_IN_REDIS


LOADS: Final = (
    Load(1_000_000, 100_000, primaries=1, workers=2),
    Load(10_000_000, 1_000_000, primaries=3, workers=8),
    Load(100_000_000, 10_000_000, primaries=12, workers=32),
)


@dataclass(frozen=True)
class Cost:
    """What one hourly run of a load takes, in seconds; GB a run, a day or a month."""

    scan: float
    store_first: float
    store_again: float
    verify: float
    wal_run: float
    wal_day: float
    table_month: float
    redis: float
    xcom: float
    scan_megabytes: float

    @classmethod
    def of(cls, load: Load, constants: Constants) -> Cost:
        """Apply the formulas of docs/explanation/performance.md."""
        shared = constants.serial + (1 - constants.serial) / load.workers
        wal_again = load.counters * constants.wal_again / GB
        return cls(
            scan=load.keys * (constants.walk / load.primaries + constants.sort) * MICRO + constants.fixed_seconds,
            store_first=load.counters * constants.store_first * MICRO * shared,
            store_again=load.counters * constants.store_again * MICRO * shared,
            verify=load.counters * constants.verify * MICRO,
            wal_run=wal_again,
            wal_day=load.counters * constants.wal_first / GB + (RUNS_A_DAY - 1) * wal_again,
            table_month=load.counters * constants.row_bytes * DAYS_IN_MONTH / GB,
            redis=load.keys * constants.redis_bytes / GB,
            xcom=load.merchants * constants.xcom_bytes / GB,
            scan_megabytes=constants.base_megabytes + load.merchants * constants.bytes_a_merchant / MEGABYTE,
        )

    @property
    def run(self) -> float:
        """Seconds of a whole run in which a tenth of the counters changed."""
        return self.scan + self.store_again + self.verify


def sheets(report: dict[str, Any]) -> list[Sheet]:
    """The constants, and what they come to. Nothing for a report that has no two sizes to compare."""
    if len(report["data_sets"]) < 2 or not any("size" in measured for measured in report["data_sets"].values()):
        return []
    constants = Constants.of(report)
    return [
        Sheet("Cost model: constants", ("", "value", "unit"), _constants(constants)),
        Sheet(
            f"Cost model: an hourly run, {DAYS_IN_REDIS} days in Redis, 10 % of the day's counters changed",
            ("", *(f"{load.counters / 1e6:,.0f} M counters" for load in LOADS)),
            _costs([(load, Cost.of(load, constants)) for load in LOADS]),
        ),
    ]


def _constants(constants: Constants) -> list[tuple[str, str, str]]:
    return [
        ("walk: Redis, for each key it holds", f"{constants.walk:.2f}", "µs"),
        ("sort: the scan's own work, for each key in Redis", f"{constants.sort:.2f}", "µs"),
        ("first: storing a counter for the first time", f"{constants.store_first:.2f}", "µs"),
        ("again: storing a counter again, 10 % changed", f"{constants.store_again:.2f}", "µs"),
        ("verify: the second reading and comparison, for each counter", f"{constants.verify:.2f}", "µs"),
        ("serial: share of storing that more workers do not speed up", f"{constants.serial:.2f}", ""),
        ("fixed: a run with next to nothing to do", f"{constants.fixed_seconds:.2f}", "s"),
        ("WAL of a counter stored for the first time", f"{constants.wal_first:.0f}", "bytes"),
        ("WAL of a counter stored again, 10 % changed", f"{constants.wal_again:.0f}", "bytes"),
        ("row: a counter in the table and its indexes", f"{constants.row_bytes:.0f}", "bytes"),
        ("a key in Redis", f"{constants.redis_bytes:.0f}", "bytes"),
        ("a merchant in XCom", f"{constants.xcom_bytes:.1f}", "bytes"),
        ("a process with next to nothing to do", f"{constants.base_megabytes:.0f}", "MB"),
        ("memory of a merchant in scan and verify", f"{constants.bytes_a_merchant:.0f}", "bytes"),
    ]


def _costs(costs: list[tuple[Load, Cost]]) -> list[tuple[str, ...]]:
    def row(what: str, form: str, *figures: float) -> tuple[str, ...]:
        return what, *(format(figure, form) for figure in figures)

    loads, each = [load for load, _ in costs], [cost for _, cost in costs]
    return [
        row("keys in Redis", ",", *(load.keys for load in loads)),
        row("merchants", ",", *(load.merchants for load in loads)),
        row("primaries", ",", *(load.primaries for load in loads)),
        row("workers (mapped tasks at once)", ",", *(load.workers for load in loads)),
        row("scan, s", ",.1f", *(cost.scan for cost in each)),
        row("store, s", ",.1f", *(cost.store_again for cost in each)),
        row("verify, s", ",.1f", *(cost.verify for cost in each)),
        row("whole run, s", ",.1f", *(cost.run for cost in each)),
        row("store of a first load, s", ",.1f", *(cost.store_first for cost in each)),
        row("WAL a run, GB", ",.2f", *(cost.wal_run for cost in each)),
        row("WAL a day (one load, 23 runs), GB", ",.1f", *(cost.wal_day for cost in each)),
        row("table and indexes a month (a partition), GB", ",.1f", *(cost.table_month for cost in each)),
        row("Redis, GB", ",.1f", *(cost.redis for cost in each)),
        row("XCom of the batches, MB", ",.1f", *(cost.xcom * 1000 for cost in each)),
        row("memory of scan and verify, MB", ",.0f", *(cost.scan_megabytes for cost in each)),
    ]
