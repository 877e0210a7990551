"""A page for each merchant, for people: one file that asks nobody for anything. Whatever an id holds is text in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final, TextIO

from merchant_usage.sink.period import Event, Used
from merchant_usage.steps.evidence import Day
from merchant_usage.text import Place, capitalized, safe

_HEAD: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>Usage of {merchant}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 60em; margin: 2em auto; padding: 0 1em }}
h1, td, p, li {{ overflow-wrap: anywhere }}
h2 {{ margin-top: 2em; font-size: 1.1em }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .2em .6em; border-bottom: 1px solid #ddd }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
.proven {{ color: #14622d }}
.not {{ color: #a4161a; font-weight: 600 }}
summary {{ cursor: pointer }}
</style>
</head>
<body>
<h1>Usage of {merchant}</h1>
"""
_STORED: Final = '<tr><th>metric</th><th class="number">value</th><th class="number">of it carried</th></tr>'
_EVENTS: Final = "<tr><th>when (UTC)</th><th>what</th><th>metric</th><th></th></tr>"


@dataclass(slots=True)
class Merchant:
    """Whose page it is, and what is on it in all."""

    merchant_id: str
    counters: int = 0
    total: int = 0


def write_page(file: TextIO, merchant: Merchant, days: Sequence[Day], rows: Iterator[Used | Event]) -> Merchant:
    """Write a merchant's page, and count what is on it.

    Args:
        days: each date of the period: one without any row is told, too.
        rows: in the order of dates, of each what is stored before what happened.
    """
    file.write(_HEAD.format(merchant=_text(merchant.merchant_id)))
    missing = [str(day.date) for day in days if not day.is_proven]
    file.write(f"<p>{days[0].date} to {days[-1].date}, {len(days) - len(missing)} of {len(days)} dates proven.")
    file.write(f' <span class="not">Not proven: {", ".join(missing)}.</span></p>\n' if missing else "</p>\n")
    by_date = groupby(rows, key=attrgetter("date"))
    date, theirs = next(by_date, (None, iter(())))
    for day in days:
        if day.date == date:
            _write_day(file, merchant, day, theirs)
            date, theirs = next(by_date, (None, iter(())))
        else:
            _write_day(file, merchant, day, iter(()))
    file.write(f"<h2>In all</h2>\n<p>{merchant.total:,} in {merchant.counters:,} counters.</p>\n</body>\n</html>\n")
    return merchant


def _write_day(file: TextIO, merchant: Merchant, day: Day, rows: Iterator[Used | Event]) -> None:
    kind = "proven" if day.is_proven else "not"
    file.write(f'<h2 id="{day.date}">{day.date} <span class="{kind}">{day.state}</span></h2>\n')
    if day.why:
        file.write(f"<p>{_text(capitalized(day.why))}.</p>\n")
    counters, total = merchant.counters, merchant.total
    happened = False
    for row in rows:
        if isinstance(row, Used):
            if merchant.counters == counters:
                file.write(f"<table>\n{_STORED}\n")
            merchant.counters += 1
            merchant.total += row.metric_value
            file.write(_stored(row))
            continue
        if not happened:
            _end_table(file, merchant.counters - counters, merchant.total - total)
            file.write(f"<details><summary>What happened to these counters</summary>\n<table>\n{_EVENTS}\n")
            happened = True
        file.write(_event(row))
    if happened:
        file.write("</table></details>\n")
    else:
        _end_table(file, merchant.counters - counters, merchant.total - total)
    if day.told:
        told = "".join(f"<li>{_text(each)}</li>\n" for each in day.told)
        file.write(f"<details><summary>What happened to the whole date</summary>\n<ul>\n{told}</ul></details>\n")


def _end_table(file: TextIO, counters: int, total: int) -> None:
    if counters:
        file.write(f'<tr><th>in all</th><th class="number">{total:,}</th><th></th></tr>\n</table>\n')
    else:
        file.write("<p>Nothing is stored.</p>\n")


def _stored(row: Used) -> str:
    number = '<td class="number">{:,}</td>'
    return f"<tr><td>{_text(row.metric_type)}</td>{number.format(row.metric_value)}{number.format(row.carried)}</tr>\n"


def _event(row: Event) -> str:
    told = row.told
    if row.value_before is not None or row.value_after is not None:
        told = f"{_number(row.value_before)} -> {_number(row.value_after)}. {told}"
    if row.by_whom:
        told += f" By {row.by_whom}."
    cells = (f"{row.happened_at:%Y-%m-%d %H:%M:%S}", row.kind, row.metric_type or "all metrics", told)
    return "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>\n"


def _number(value: int | None) -> str:
    return "nothing" if value is None else f"{value:,}"


def _text(text: str) -> str:
    return safe(text, Place.HTML)
