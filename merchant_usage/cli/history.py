"""`history`: how a merchant's counters grew, by hours, days, weeks or months."""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import io
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo

from merchant_usage import clock
from merchant_usage.cli.output import remark, say, say_json, width
from merchant_usage.cli.requests import requested_dates
from merchant_usage.connections import postgres_from_url
from merchant_usage.errors import SettingsError
from merchant_usage.model.curve import Step, by_hours
from merchant_usage.model.keys import why_no_merchant_id
from merchant_usage.settings import load_settings
from merchant_usage.sink import curves, grants, schema
from merchant_usage.sink.curves import Used, Wanted, Window
from merchant_usage.tables import render
from merchant_usage.text import shown

HOUR: Final = "hour"
# Columns of the longest bar, and what it is drawn with, in eighths of a column.
_LONGEST: Final = 24
_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"

#: A row as programs get it.
Row: TypeAlias = dict[str, Any]


def history(options: argparse.Namespace) -> int:
    """Say how a merchant's counters grew."""
    if problem := why_no_merchant_id(options.merchant):
        raise SettingsError(f"MERCHANT={shown(options.merchant)!r} {problem}; it takes a merchant's id.")
    if options.json and options.csv:
        raise SettingsError("--json and --csv: give one of the two.")
    settings = load_settings()
    dates = requested_dates(options, clock.now(), settings)
    by = options.by or (HOUR if len(dates) == 1 else Window.DAY)
    wanted = Wanted(options.merchant, dates[0], dates[-1])
    with postgres_from_url() as conn:
        schema.check(conn, grants.CURVES)
        found: Sequence[Step] | Sequence[Used]
        if by == HOUR:
            found = by_hours(curves.steps(conn, wanted), settings.timezone)
        else:
            found = curves.used(conn, wanted, Window(by))
    rows = [_row(each, by, settings.timezone) for each in found]
    if options.json:
        say_json({**wanted._asdict(), "by": by, "timezone": settings.timezone.key, "rows": rows})
    elif options.csv:
        say(_csv(rows, by).rstrip("\n"))
    elif rows:
        say(_table(found, wanted, by, settings.timezone))
    if not rows:
        remark(f"Nothing is stored of {shown(wanted.merchant_id)} on {_dates(wanted)}.")
    return 0


def _row(found: Step | Used, by: str, zone: ZoneInfo) -> Row:
    """Its columns; moments in the time of the place, with its offset from UTC."""
    if isinstance(found, Step):
        return found._asdict() | {
            "from_at": found.from_at.astimezone(zone),
            "to_at": found.to_at.astimezone(zone),
        }
    start, *_ = found
    others = found._asdict()
    del others["start"]
    return {by: start, **others}


def _csv(rows: Sequence[Row], by: str) -> str:
    names = Step._fields if by == HOUR else (by, *Used._fields[1:])
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _plain(value: object) -> object:
    """A value as the JSON has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, dt.date) else value


def _dates(wanted: Wanted) -> str:
    return str(wanted.from_date) if wanted.from_date == wanted.to_date else f"{wanted.from_date} to {wanted.to_date}"


def _table(found: Sequence[Step] | Sequence[Used], wanted: Wanted, by: str, zone: ZoneInfo) -> str:
    bars = [*_bars([each.value for each in found])]
    if by == HOUR:
        title = f"{shown(wanted.merchant_id)} on {_dates(wanted)}, from reading to reading ({zone.key})"
        headings: tuple[str, ...] = ("date", "metric", "from", "to", "value", "")
        rows = [
            (each.date, shown(each.metric_type), *_local(each, zone), each.value, f"{bar}{_mark(each)}")
            for each, bar in zip(found, bars, strict=True)
            if isinstance(each, Step)
        ]
        return render(title, headings, rows, width())
    title = f"{shown(wanted.merchant_id)} on {_dates(wanted)}, by {by}s"
    headings = (by, "metric", "value", "days", "sealed", "")
    return render(
        title,
        headings,
        (
            (each.start, shown(each.metric_type), each.value, each.days, each.days_sealed, bar)
            for each, bar in zip(found, bars, strict=True)
            if isinstance(each, Used)
        ),
        width(),
    )


def _mark(step: Step) -> str:
    return " corrected" if step.correction else ""


def _local(step: Step, zone: ZoneInfo) -> Iterator[str]:
    """From and to, in the time of the place: with the date where that is another, with the offset where it changes."""
    midnight = dt.datetime.combine(step.date, dt.time(), zone)
    changes = midnight.utcoffset() != (midnight + dt.timedelta(days=1)).utcoffset()
    for moment in (step.from_at.astimezone(zone), step.to_at.astimezone(zone)):
        day = "" if moment.date() == step.date else f"{moment:%Y-%m-%d} "
        yield f"{day}{moment:%H:%M}" + (f"{moment:%z}" if changes else "")


def _bars(values: Sequence[int]) -> Iterator[str]:
    """A bar for each value, the longest for the largest; what is lower than nothing has none."""
    largest = max(values, default=0)
    for value in values:
        eighths = round(max(0, value) * _LONGEST * 8 / largest) if largest > 0 else 0
        yield _bar(eighths) if _can_draw() else "#" * (eighths // 8)


def _bar(eighths: int) -> str:
    return _EIGHTHS[-1] * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _can_draw() -> bool:
    """Whether stdout can show the bars."""
    try:
        _EIGHTHS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
