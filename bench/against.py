"""Compares a run of the benchmark with a stored one: what became slower, or larger, by more than the noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bench.tables import Sheet

#: Fewer rounds tell nothing of the noise.
LEAST_ROUNDS: Final = 3
#: The slowest of a few rounds is not the slowest there can be.
ALLOWANCE: Final = 0.05


@dataclass(frozen=True)
class Change:
    """A figure of all rounds, then and now; of each the median."""

    what: str
    then: float
    now: float
    worse: bool


def changes(report: dict[str, Any], stored: dict[str, Any]) -> list[Change]:
    """What both have measured.

    Of times the ratios to the floor of the same round are compared: another machine, or one that was busier, is as fast
    for both. Something is worse if even its best round is worse than the worst one that is stored, by a twentieth more.

    Raises:
        ValueError: a report has too few rounds, or they have no data set in common.
    """
    for name, each in (("this run", report), ("the stored one", stored)):
        if each["rounds"] < LEAST_ROUNDS:
            raise ValueError(f"{name} has {each['rounds']} rounds: to tell a change from noise takes {LEAST_ROUNDS}.")
    both = [name for name in report["data_sets"] if name in stored["data_sets"]]
    if not both:
        raise ValueError(f"none of {', '.join(report['data_sets'])} is in the stored run.")
    return [
        change for name in both for change in _of_data_set(name, report["data_sets"][name], stored["data_sets"][name])
    ]


def _of_data_set(name: str, measured: dict[str, Any], stored: dict[str, Any]) -> Iterator[Change]:
    for entry, now in measured["ratios"].items():
        then = stored["ratios"].get(entry)
        if then is not None:
            yield _change(f"{name}: {measured['labels'][entry]}", then, now)
    for entry, figures in measured["results"].items():
        if entry in measured["ratios"] and entry in stored["results"]:
            then, now = stored["results"][entry]["megabytes"], figures["megabytes"]
            yield _change(f"{name}: MB, {measured['labels'][entry]}", [then], [now])


def _change(what: str, then: list[float], now: list[float]) -> Change:
    return Change(what, _middle(then), _middle(now), min(now) > max(then) * (1 + ALLOWANCE))


def _middle(figures: list[float]) -> float:
    return sorted(figures)[len(figures) // 2]


def sheet(found: list[Change]) -> Sheet:
    """A line for each, the worst first."""
    rows = [
        (each.what, f"{each.then:.2f}", f"{each.now:.2f}", f"{each.now / each.then:.2f}", "WORSE" if each.worse else "")
        for each in sorted(found, key=lambda each: each.then / each.now)
    ]
    worse = sum(each.worse for each in found)
    title = f"Against the stored run: {worse} of {len(found)} figures worse by more than the noise"
    return Sheet(title, ("of the floor, or MB", "then", "now", "now / then", ""), rows)
