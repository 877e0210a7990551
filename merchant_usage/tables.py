"""Tells the end of a run as a table that people can read in a log."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from merchant_usage.model.verdict import Proof, preview_counts
from merchant_usage.text import escape, shown

# Wide enough for the totals of a billion, narrow enough for the log view without scrolling.
WIDTH = 140


#: What may be shortened where a table is too wide, the least important first. All else stays whole.
FLEXIBLE: Final = ("run", "detail", "merchant", "key")
#: To how many columns at least.
SHORTEST: Final = 12
# Of the box, for each column.
_FRAME: Final = 3


def render(title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], width: int = WIDTH) -> str:
    """A plain-text table; where that does not fit, a record after the other. No number, date or word is broken.

    Numbers go to the right; cells are never read as markup, and control characters spelt out.
    """
    filled = [list(row) for row in rows]
    cells = [[f"{cell:,}" if isinstance(cell, int) else escape(str(cell)) for cell in row] for row in filled]
    widths = [max(map(cell_len, (heading, *column))) for heading, *column in zip(headings, *cells, strict=True)]
    room = width - _FRAME * len(headings) - 1
    for heading in FLEXIBLE:
        if heading in headings and sum(widths) > room:
            column = headings.index(heading)
            widths[column] = min(widths[column], max(SHORTEST, widths[column] - (sum(widths) - room)))
    if sum(widths) > room:
        return _records(title, headings, cells, width)
    table = Table(title=Text(title), title_justify="left", box=box.ASCII2)
    for column, heading in enumerate(headings):
        numeric = bool(filled) and all(isinstance(row[column], int) for row in filled)
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=True)
    for row in cells:
        table.add_row(*(Text(_cut(cell, widths[column])) for column, cell in enumerate(row)))
    console = Console(file=io.StringIO(), width=max(width, cell_len(title)), color_system=None, force_terminal=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _records(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> str:
    """A line a value. What may be shortened is, and all else is whole, though it stand out."""
    longest = max(map(cell_len, headings)) + 1
    lines = [title]
    for row in rows:
        lines.append("")
        for heading, cell in zip(headings, row, strict=True):
            shown_cell = _cut(cell, max(SHORTEST, width - longest - 1)) if heading in FLEXIBLE else cell
            lines.append(f"{heading + ':':<{longest}} {shown_cell}")
    return "\n".join(lines)


def _cut(text: str, cells: int) -> str:
    """A text in so many columns of a terminal, cut in the middle: ids differ at their ends."""
    if cell_len(text) <= cells:
        return text
    half = cells // 2
    head, tail = text[:half], text[-half:]
    while cell_len(head) + cell_len(tail) > cells - 1:
        head, tail = (head[:-1], tail) if cell_len(head) > cell_len(tail) else (head, tail[1:])
    return f"{head}…{tail}"


def describe(proof: Proof, width: int = WIDTH) -> str:
    """The verdicts by date, and Redis beside PostgreSQL by merchant while these are few enough to read."""
    dates = render(
        "Verification: Redis, read again, against PostgreSQL",
        ("date", "verdict", "Redis", "PostgreSQL", "new", "raised", "unchanged", "dead letters", "keys"),
        (
            (
                report.name,
                report.verdict,
                report.redis_total,
                report.postgres_total,
                report.counts.inserted,
                report.counts.updated,
                report.counts.unchanged,
                report.counts.dead_letters,
                report.keys_told,
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
        ("date", "Redis", "PostgreSQL", "would store", "unchanged", "went backwards", "expired", "bad keys"),
        (
            (
                report.name,
                report.redis_total,
                report.postgres_total,
                *preview_counts(report).values(),
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
        (
            (date, shown(merchant), n, int(redis), int(postgres))
            for date, merchant, n, redis, postgres in proof.merchants
        ),
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
