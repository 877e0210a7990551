"""`./run bench --tenfold`: ten times the merchants, against ten times the seconds, and against their forecast."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from bench.contestants import Figures
from bench.data import DataSet
from bench.running import Stage
from bench.tables import Sheet, yes_or_no

TIMES: Final = 10
#: Seconds of ten times the counters, over ten times those of the counters.
OF_TEN_TIMES: Final = 1.05
MEGABYTES: Final = 96.0
PHASES: Final = ("scan_seconds", "store_seconds", "verify_seconds")

#: What is run, and whether a tenth of the counters is raised before it. The first change of rows whose pages are full
#: is no hourly run.
RUNS: Final = (
    ("floor", "floor", "(a) floor: read and discard, COPY + upsert of ready rows", False),
    ("live", "live", "(d) first load of a day that still grows", False),
    ("first_changed", "live", "(d) the first re-run of it with 10 % changed", True),
    ("changed", "live", "(d) re-run of it, 10 % changed", True),
    ("unchanged", "live", "(d) re-run of it, nothing changed", False),
)


def measure(stage_of: Callable[[DataSet], Stage], data: DataSet, _rounds: int) -> dict[str, Any]:
    """Each run once, with a tenth of the data, the data, and ten times the data.

    The smaller two are what the model's constants come from; the largest is forecast with them.
    """
    sizes = [
        replace(data, name=name, merchants=data.merchants * share // TIMES, others=data.others * share // TIMES)
        for name, share in (("tenth", 1), ("once", TIMES), ("tenfold", TIMES * TIMES))
    ]
    measured = []
    for size in sizes:
        stage = stage_of(size)
        runs: dict[str, Figures] = {}
        for name, contestant, _, raised in RUNS:
            if name in {"floor", "live"}:
                stage.empty()
            if raised:
                stage.grow()
            stage.settle()
            runs[name] = stage.run(contestant)
            if (rows := stage.number("SELECT count(*) FROM merchant_usage")) != size.wanted:
                raise SystemExit(f"{name}: left {rows:.0f} rows of {size.wanted} behind")
            print(f"{size.description}: {name} done", file=sys.stderr)
        measured.append({"description": size.description, "wanted": size.wanted, "runs": runs})
    return {"sizes": measured}


def forecast(sizes: list[dict[str, Any]], run: str, figure: str) -> float:
    """What the smaller two foretell of the largest: a line through both."""
    tenth, once, tenfold = sizes
    slope = (once["runs"][run][figure] - tenth["runs"][run][figure]) / (once["wanted"] - tenth["wanted"])
    return float(once["runs"][run][figure] + slope * (tenfold["wanted"] - once["wanted"]))


def sheets(measured: dict[str, Any], _rounds: int) -> list[Sheet]:
    """Seconds and memory of all sizes, the forecast beside the measured, and the targets."""
    sizes = measured["sizes"]
    found: list[Sheet] = []
    for size in sizes:
        floor = size["runs"]["floor"]["seconds"]
        rows = [(label, *_row(size["runs"][name], floor)) for name, _, label, _ in RUNS]
        headings = ("contestant", "seconds", "of the floor", "scan + store + verify", "MB")
        found.append(Sheet(f"{size['description']}, one run each", headings, rows))
    _, once, tenfold = sizes
    foretold = [
        (
            f"{label}: {phase.removesuffix('_seconds')}",
            f"{forecast(sizes, name, phase):.1f}",
            f"{tenfold['runs'][name][phase]:.1f}",
            f"{tenfold['runs'][name][phase] / forecast(sizes, name, phase):.2f}",
        )
        for name, contestant, label, _ in RUNS
        if contestant != "floor"
        for phase in PHASES
    ]
    of_both = ("", "forecast, s", "measured, s", "of the forecast")
    found.append(Sheet("The largest, forecast from the other two", of_both, foretold))
    targets = []
    for name, _, label, _ in RUNS:
        ratio = tenfold["runs"][name]["seconds"] / (TIMES * once["runs"][name]["seconds"])
        targets.append(_target(f"{label} / ten times those of a tenth", ratio, OF_TEN_TIMES))
    peak = max(figures["megabytes"] for name, figures in tenfold["runs"].items() if name != "floor")
    targets.append(_target("peak memory of a process, MB", peak, MEGABYTES))
    found.append(Sheet("The targets of ten times as many", ("", "measured", "wanted", "met"), targets))
    return found


def _row(figures: Figures, floor: float) -> tuple[str, ...]:
    phases = " + ".join(f"{figures[phase]:.1f}" for phase in PHASES if phase in figures)
    return f"{figures['seconds']:.2f}", f"{figures['seconds'] / floor:.2f}", phases, f"{figures['megabytes']:.0f}"


def _target(what: str, figure: float, limit: float) -> tuple[str, str, str, str]:
    return what, f"{figure:.2f}", f"<= {limit}", yes_or_no(figure <= limit)
