"""`./run bench --beside`: what the keys of other days cost the hourly run, which has to walk past them."""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from bench.data import DataSet
from bench.running import Stage
from bench.tables import Sheet, yes_or_no

#: As many as a retention of a week and today.
DAYS: Final = 8
#: Seconds of the run beside the other days, over those of the run without them and of SCAN alone through all keys.
OF_WALK_AND_RUN: Final = 1.05


def measure(stage_of: Callable[[DataSet], Stage], data: DataSet, rounds: int) -> dict[str, Any]:
    """An hourly run of a live day, a tenth of it changed, with its day alone in Redis and beside others.

    Args:
        stage_of: fills the servers with a data set.
        data: how many merchants there are.
        rounds: medians are over so many.
    """
    days = replace(data, days=DAYS, others=0)
    alone = _seconds(stage_of(replace(days, days=1)), ("live",), rounds)
    beside = _seconds(stage_of(days), ("walk", "live"), rounds)
    return {"description": days.description, "run_alone": alone["live"], "walk": beside["walk"], "run": beside["live"]}


def _seconds(stage: Stage, contestants: Sequence[str], rounds: int) -> dict[str, float]:
    """Medians, on a table that was loaded and raised before."""
    stage.empty()
    taken: dict[str, list[float]] = defaultdict(list)
    # The first load, and the first change of rows whose pages are full, are no hourly runs.
    for number in range(-1, rounds + 1):
        stage.grow()
        stage.settle()
        for contestant in contestants:
            seconds = stage.run(contestant)["seconds"]
            if number > 0:
                taken[contestant].append(seconds)
        print(f"{stage.data.name}, {stage.data.days} days: run {number + 2} of {rounds + 2} done", file=sys.stderr)
    return {contestant: statistics.median(seconds) for contestant, seconds in taken.items()}


def sheets(measured: dict[str, Any], rounds: int) -> list[Sheet]:
    """The figures, and the target."""
    ratio = measured["run"] / (measured["walk"] + measured["run_alone"])
    rows = [
        ("SCAN alone, through all keys", f"{measured['walk']:.2f}"),
        ("an hourly run, 10 % changed, with its day alone in Redis", f"{measured['run_alone']:.2f}"),
        ("the same beside the other days", f"{measured['run']:.2f}"),
    ]
    met = yes_or_no(ratio <= OF_WALK_AND_RUN)
    target = ("the last / (the first + the second)", f"{ratio:.2f}", f"<= {OF_WALK_AND_RUN}", met)
    title = f"The hourly run beside other days: {measured['description']}, medians of {rounds}"
    return [
        Sheet(title, ("", "seconds"), rows),
        Sheet("The target of other days", ("", "measured", "wanted", "met"), [target]),
    ]
