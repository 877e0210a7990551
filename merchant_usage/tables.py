"""Tells the end of a run as a table that people can read in a log."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from merchant_usage.model.keys import shown
from merchant_usage.model.verdict import Proof, would_do
from merchant_usage.text import escape

# Wide enough for the totals of a billion, narrow enough for the log view without scrolling.
WIDTH = 140


def render(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], width: int = WIDTH) -> str:
    """A plain-text table. Numbers go to the right; cells are never read as markup, and control characters spelt out."""
    table = Table(title=Text(title), title_justify="left", box=box.ASCII2)
    filled = [list(row) for row in rows]
    for column, heading in enumerate(headings):
        numeric = bool(filled) and all(isinstance(row[column], int) for row in filled)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in filled:
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else escape(str(cell))) for cell in row))
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip()


def describe(proof: Proof, width: int = WIDTH) -> str:
    """The verdicts by date, and Redis beside PostgreSQL by merchant while these are few enough to read."""
    dates = render(
        "Verification: Redis, read again, against PostgreSQL",
        ("date", "verdict", "Redis", "PostgreSQL", "new", "raised", "unchanged", "dead letters", "keys"),
        (
            (
                report.date,
                report.verdict,
                report.redis_total,
                report.postgres_total,
                report.counts.inserted,
                report.counts.updated,
                report.counts.unchanged,
                report.counts.dead_letters,
                ", ".join(f"{number} {verdict}" for verdict, number in report.keys.items()) or "none",
            )
            for report in proof.reports
        ),
        width,
    )
    return "\n".join([dates, *describe_merchants(proof, width)])


def describe_preview(proof: Proof, width: int = WIDTH) -> str:
    """What a run would do to each date, and the merchants."""
    dates = render(
        "Dry run: nothing was written",
        ("date", "Redis", "PostgreSQL", "would store", "unchanged", "went backwards", "expired", "no counters"),
        (
            (
                report.date,
                report.redis_total,
                report.postgres_total,
                *would_do(report).values(),
                report.bad_values,
            )
            for report in proof.reports
        ),
        width,
    )
    return "\n".join([dates, *describe_merchants(proof, width)])


def describe_merchants(proof: Proof, width: int = WIDTH) -> list[str]:
    """Redis beside PostgreSQL by merchant; nothing if they are too many to read."""
    if not proof.merchants:
        return []
    merchants = render(
        "By merchant",
        ("date", "merchant", "counters", "Redis", "PostgreSQL"),
        ((date, shown(who), n, int(redis), int(postgres)) for date, who, n, redis, postgres in proof.merchants),
        width,
    )
    return [merchants]


def describe_letters(letters: Iterable[dict[str, Any]], width: int = WIDTH) -> str:
    """Dead letters, a line each."""
    return render(
        "Dead letters, newest first",
        ("key", "reason", "detail", "attempts", "first seen", "resolved"),
        (
            (
                shown(bytes(letter["redis_key"]).decode(errors="backslashreplace")),
                letter["reason"],
                shown(letter["detail"]),
                letter["attempts"],
                f"{letter['first_seen_at']:%Y-%m-%d %H:%M}",
                _end(letter),
            )
            for letter in letters
        ),
        width,
    )


def _end(letter: dict[str, Any]) -> str:
    if letter["resolved_at"] is None:
        return "open"
    how = f" ({letter['decision']})" if letter["decision"] else ""
    return f"{letter['resolved_at']:%Y-%m-%d %H:%M}{how}"
