"""The report as tables, for a terminal or for a Markdown file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table

from bench.targets import targets

#: Wide enough that no Markdown row is ever wrapped.
MARKDOWN_WIDTH: Final = 250
TERMINAL_WIDTH: Final = 150
MB: Final = 1_000_000


@dataclass(frozen=True)
class Sheet:
    """A heading and rows. The first column is text, all others are figures."""

    title: str
    headings: Sequence[str]
    rows: Iterable[Sequence[str]]


def show(sheets: Iterable[Sheet], *, markdown: bool) -> None:
    """Print them."""
    console = Console(width=MARKDOWN_WIDTH if markdown else TERMINAL_WIDTH, highlight=False)
    for sheet in sheets:
        table = Table(box=box.MARKDOWN if markdown else box.HEAVY_HEAD)
        for number, heading in enumerate(sheet.headings):
            table.add_column(heading, justify="right" if number else "left")
        for row in sheet.rows:
            table.add_row(*row)
        console.print(f"\n### {sheet.title}" if markdown else f"\n[bold]{sheet.title}[/]", soft_wrap=True)
        # Without the spaces that fill the console's width.
        with console.capture() as captured:
            console.print(table)
        print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def yes_or_no(met: bool) -> str:
    """Whether a target is met, so that the eye finds those that are not."""
    return "yes" if met else "NO"


def sheets(report: dict[str, Any]) -> list[Sheet]:
    """The whole report."""
    return [
        machine_sheet(report),
        *(_race(measured, report["rounds"]) for measured in report["data_sets"].values()),
        *(_footprint(measured) for measured in report["data_sets"].values()),
        _xcom(report["xcom"]),
        _targets(report),
    ]


def machine_sheet(report: dict[str, Any]) -> Sheet:
    """On what it was measured."""
    return Sheet("The machine", ("", "value"), report["machine"].items())


def _race(measured: dict[str, Any], rounds: int) -> Sheet:
    floor = measured["results"]["floor"]["seconds"]
    rows = []
    for entry, figures in measured["results"].items():
        seconds, phases = figures["seconds"], ("scan_seconds", "store_seconds", "verify_seconds")
        idle = entry == "connect"
        rows.append(
            (
                measured["labels"][entry],
                "" if idle else f"{seconds:.3f}",
                "" if idle else f"{seconds / floor:.2f}",
                "" if idle else f"{seconds / measured['wanted'] * 1e6:.1f}",
                " + ".join(f"{figures[phase]:.2f}" for phase in phases if phase in figures),
                f"{figures['process_seconds']:.2f}",
                f"{figures['megabytes']:.0f}",
            )
        )
    headings = ("contestant", "seconds", "of the floor", "µs a counter", "scan + store + verify", "process", "MB")
    title = (
        f"{measured['description']}; {measured['wanted']:,} keys wanted of {measured['keys']:,}, medians of {rounds}"
    )
    return Sheet(title, headings, rows)


def _footprint(measured: dict[str, Any]) -> Sheet:
    wal, counters = measured["wal"], measured["wanted"]
    sealing = {entry: measured["results"][entry]["seal_seconds"] for entry in ("verified", "unchanged")}
    rows = [
        ("sealing a date, which no run's seconds hold", f"{sealing['verified']:.3f} s", ""),
        ("finding that a sealed date is as it was sealed", f"{sealing['unchanged']:.3f} s", ""),
        _bytes_row("WAL of a first load", wal["first_load"], counters),
        _bytes_row("WAL of an unchanged re-run", wal["unchanged"], counters),
        _bytes_row("WAL of a re-run with 10 % changed", wal["changed"], counters),
        _bytes_row("WAL of the hourly run of a day that grows, 10 % changed", wal["hourly"], counters),
        ("the same over the bytes of the changed rows", f"{wal['hourly'] / wal['changed_rows']:.1f}", ""),
        ("its images of whole pages, 8 kB at most", f"{wal['hourly_images']:,.0f}", ""),
    ]
    if size := measured.get("size"):
        rows.append(_bytes_row("table and indexes after one load", size["after_load"], counters))
        what = f"table and indexes after {size['runs']:.0f} more runs, 10 % changed in each, no VACUUM"
        rows.append(_bytes_row(what, size["after_runs"], counters))
        rows.append(_bytes_row("hourly history and indexes then", size["history"], counters))
        points = f"{size['history'] / size['points']:.0f}"
        rows.append(("the same, a change", f"{points} bytes", ""))
    if neighbour := measured.get("neighbour"):
        for when, meanwhile in (("idle", "while nothing runs"), ("during", "during a first load")):
            figures = " / ".join(f"{neighbour[f'{when}_{name}']:.2f}" for name in ("p50", "p99", "max"))
            rows.append((f"another client's GETs {meanwhile}: p50 / p99 / max", f"{figures} ms", ""))
    if connections := measured.get("connections"):
        rows.append(("PostgreSQL connections at peak, two tasks at once", f"{connections['peak']:.0f}", ""))
    if garbage := measured.get("garbage"):
        what = f"{garbage['names']:.0f} names of 64 MB and {garbage['values']:.0f} values of 100 MB among the counters"
        rows.append((f"memory of a process at its peak, {what}", f"{garbage['peak']:.0f} MB", ""))
    rows.append(("memory of Redis", f"{measured['redis_bytes'] * measured['keys'] / MB:,.1f} MB", ""))
    return Sheet(f"{measured['name']}: besides time", ("", "value", "bytes a counter"), rows)


def _bytes_row(what: str, size: float, counters: int) -> tuple[str, str, str]:
    return what, f"{size / MB:,.3f} MB", f"{size / counters:,.1f}"


def _xcom(xcom: dict[str, float]) -> Sheet:
    rows = [
        ("plan", f"{xcom['plan_bytes']:,.0f}", ""),
        ("all batches", f"{xcom['batches_bytes']:,.0f}", f"{xcom['batches_bytes'] / xcom['merchants']:.1f}"),
        ("largest batch", f"{xcom['largest_batch_bytes']:,.0f}", ""),
    ]
    title = f"XCom of {xcom['merchants']:,.0f} merchants in {xcom['batches']:.0f} batches"
    return Sheet(title, ("", "bytes", "a merchant"), rows)


def _targets(report: dict[str, Any]) -> Sheet:
    rows = [
        (target.what, f"{target.figure:.2f}", f"<= {target.limit:.2f}", target.unit, yes_or_no(target.met))
        for target in targets(report)
    ]
    return Sheet("Targets", ("", "measured", "wanted", "unit", "met"), rows)
