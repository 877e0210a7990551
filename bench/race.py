"""All contestants in turn on one data set, over several rounds: medians of what they measured."""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bench.contestants import Figures
from bench.data import MODEST
from bench.running import Stage

# The original needs minutes for what the others do in a second.
ORIGINAL_UP_TO: Final = MODEST.wanted

Results = dict[str, Figures]
#: Of each entry of ours, round by round: its seconds over those of the floor.
Ratios = dict[str, list[float]]


@dataclass(frozen=True)
class Entry:
    """A contestant, and the state it finds PostgreSQL and Redis in."""

    name: str
    label: str
    contestant: str
    before: Literal["empty", "unchanged", "grown"] = "empty"
    #: Whether all wanted rows are in the table afterwards.
    moves: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether it is this project that is measured."""
        return self.label.startswith("(d)")


ENTRIES: Final[Sequence[Entry]] = (
    Entry("connect", "import redis-py and psycopg, connect, no work", "connect", moves=False),
    Entry("walk", "Redis walks its keys (SCAN alone)", "walk", moves=False),
    Entry("floor", "(a) floor: read and discard, COPY + upsert of ready rows", "floor"),
    Entry("floor_all", "(a) the same, but every day's values are read", "floor_all"),
    Entry("original", "(b) original design: a GET and a transaction a key", "original"),
    Entry("plain", "(c) plain: MGET and executemany", "plain"),
    Entry("stored", "(d) first load, checked inside the database", "stored"),
    Entry("verified", "(d) first load and verify's second reading", "verified"),
    Entry("unchanged", "(d) re-run, nothing changed", "verified", "unchanged"),
    Entry("changed", "(d) re-run, 10 % changed", "verified", "grown"),
    Entry("two_stored", "(d) by two: first load, checked inside the database", "stored_by_two"),
    Entry("two_verified", "(d) by two: first load and second reading", "verified_by_two"),
    Entry("two_unchanged", "(d) by two: re-run, nothing changed", "verified_by_two", "unchanged"),
    Entry("live", "(d) first load of a day that still grows", "live"),
    Entry("live_unchanged", "(d) re-run of a day that still grows, nothing changed", "live", "unchanged"),
    # The first change of a row finds its page full, and is dearer than all that come after it. It is told apart, so
    # that history is weighed on two runs that find the table alike.
    Entry("live_first_changed", "(d) the first re-run of it with 10 % changed", "live", "grown"),
    Entry("live_changed", "(d) re-run of a day that still grows, 10 % changed", "live", "grown"),
    Entry("live_without", "(d) the same without hourly history", "live_without", "grown"),
)
LABELS: Final = {entry.name: entry.label for entry in ENTRIES}


def race(stage: Stage, rounds: int) -> tuple[Results, Ratios]:
    """Run every contestant once a round; returns the median of each of its figures, and its times of the floor's."""
    measured: dict[str, list[Figures]] = defaultdict(list)
    for number in range(rounds):
        for entry in ENTRIES:
            if entry.contestant == "original" and stage.data.wanted > ORIGINAL_UP_TO:
                continue
            if entry.before == "empty":
                stage.empty()
            elif entry.before == "grown":
                stage.grow()
            stage.settle()
            measured[entry.name].append(stage.run(entry.contestant))
            if entry.moves and (rows := stage.number("SELECT count(*) FROM merchant_usage")) != stage.data.wanted:
                raise SystemExit(f"{entry.label}: left {rows:.0f} rows of {stage.data.wanted} behind")
        print(f"{stage.data.name}: round {number + 1} of {rounds} done", file=sys.stderr)
    floor = [run["seconds"] for run in measured["floor"]]
    ratios = {
        entry.name: [run["seconds"] / least for run, least in zip(measured[entry.name], floor, strict=True)]
        for entry in ENTRIES
        if entry.is_ours
    }
    return {name: _median(runs) for name, runs in measured.items()}, ratios


def _median(runs: Sequence[Figures]) -> Figures:
    return {figure: statistics.median(run[figure] for run in runs) for figure in runs[0]}
