"""The files of evidence: the same rows make the same bytes, whoever writes them and when."""

from __future__ import annotations

import base64
import csv
import datetime as dt
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from heapq import merge
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeAlias

from psycopg import Connection

from merchant_usage import __version__
from merchant_usage.cli.evidence_pages import Merchant, write_page
from merchant_usage.errors import NAME
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.seal import format_moment
from merchant_usage.sink import period, seals
from merchant_usage.sink.period import DecisionRow, Event, LetterRow, Period, RunRow, Used
from merchant_usage.sink.queries import query
from merchant_usage.steps.evidence import Day, days_of

#: Adds a row to a file.
Write: TypeAlias = Callable[[Sequence[object]], None]

USAGE: Final = ("merchant_id", "date", "metric_type", "metric_value", "carried", "created_at", "updated_at")
DAYS: Final = (
    *("date", "merchants", "counters", "total", "state", "why", "verdict"),
    *("seal_version", "seal_counters", "seal_total", "seal_root", "stored_root"),
)
INDEX: Final = ("page", "merchant_id", "counters", "total")

README: Final = """\
What is stored of the dates of totals.json, and what shows that it is right. Written by `{name} explain --evidence`
from one moment of the database; the same rows make the same files, byte for byte.

days.csv           each date: its sums, and whether it is proven, or why not. Proven is a date of which what is
                   stored is what was compared with Redis, counter by counter, and sealed: stored_root = seal_root
usage.csv          what is stored of each counter, and the state of its date
events.csv         what happened to counters: counted between two readings, dead letters, decisions, corrections
runs.csv           each run that read a date, what it found and its verdict
decisions.csv      who decided what, when and why
dead_letters.csv   keys that could not be counted
seals.jsonl        the chain of seals from the first to the last one of these dates; they are over all merchants
merchants/         a page for each merchant, for people; index.csv says which is whose
queries/           the SQL that was asked, with parameters.json
totals.json        the sums of all, and the dates that are not proven
SHA256SUMS         the SHA-256 of each file: sha256sum --check --quiet SHA256SUMS

To check it without us: docs/reference/check_evidence.py of the project adds everything up anew, needs nothing but
Python, and ends with 1 if anything differs. docs/reference/verify_seal.py checks what `{name} prove` writes of a
single merchant. What shows that the seals were not made anew is a checkpoint that was kept elsewhere.

In the CSV files texts are in quotes, numbers are not, and moments are in UTC. Whatever an id holds is written as it
is, because it is evidence: a spreadsheet may take what begins with = + - @ for a formula, and it rounds numbers of
more than 15 digits. Import all columns as texts there, or read the pages, in which ids are nothing but text. Keys of
Redis may be any bytes: key is to be read, key_base64 is exact.

Evidence of some merchants has their rows only. Its runs, its decisions about whole dates and its seals are those of
whole dates nevertheless, and the error of a run may name other merchants.
"""


def write(conn: Connection, folder: Path, asked: Period) -> dict[str, Any]:
    """Write all files, and return what totals.json holds. Needs a transaction that is one snapshot."""
    days = days_of(conn, asked)
    _write_text(folder / "README.txt", README.format(name=NAME))
    _write_queries(folder / "queries", asked)
    _write_runs(conn, folder / "runs.csv", asked, days)
    _write_decisions(conn, folder / "decisions.csv", asked, days)
    _write_letters(conn, folder / "dead_letters.csv", asked)
    _write_seals(conn, folder / "seals.jsonl", asked, days)
    with _table(folder / "days.csv", DAYS) as add:
        for day in days:
            day.told.sort()  # each begins with its moment, but for what is said of all runs
            add(_day(day))
    merchants = _write_merchants(conn, folder, asked, days)
    totals = _totals(asked, days, merchants)
    _write_text(folder / "totals.json", _json(totals))
    _write_digests(folder)
    return totals


def _totals(asked: Period, days: Sequence[Day], merchants: int) -> dict[str, Any]:
    """Numbers may be large: texts, as in a checkpoint."""
    return {
        "evidence": 1,
        "written_by": f"{NAME} {__version__}",
        "from_date": asked.from_date.isoformat(),
        "to_date": asked.to_date.isoformat(),
        "merchant_ids": None if asked.merchant_ids is None else list(asked.merchant_ids),
        "dates": len(days),
        "proven": sum(day.is_proven for day in days),
        "not_proven": [{"date": day.date.isoformat(), "why": day.why} for day in days if not day.is_proven],
        "merchants": merchants,
        "counters": sum(day.sums.counters for day in days),
        "total": str(sum(day.sums.total for day in days)),
    }


def _day(day: Day) -> tuple[object, ...]:
    seal = day.seal
    sealed = (seal.version, seal.counters, seal.total, seal.root.hex()) if seal else (None,) * 4
    return day.date, *day.sums, day.state, day.why, day.verdict, *sealed, day.stored_root.hex()


def _write_runs(conn: Connection, path: Path, asked: Period, days: Sequence[Day]) -> None:
    by_date = {day.date: day for day in days}
    count = dict.fromkeys(by_date, 0)
    proof: dict[dt.date, RunRow] = {}
    with _table(path, RunRow._fields) as add:
        for run in period.runs(conn, asked):
            add(run)
            count[run.usage_date] += 1
            if run.for_merchants is None and run.settled and run.verdict == DateVerdict.VERIFIED:
                proof[run.usage_date] = run
    for date, number in count.items():
        told = f"Runs that read it: {number:,}."
        if last := proof.get(date):
            told += f" The last that verified its end: {last.run_id}, begun at {last.started_at:%Y-%m-%d %H:%M:%S} UTC."
        by_date[date].told.append(told)


def _write_decisions(conn: Connection, path: Path, asked: Period, days: Sequence[Day]) -> None:
    by_date = {day.date: day for day in days}
    key, *others = DecisionRow._fields
    with _table(path, ("key", "key_base64", *others)) as add:
        for found in period.decisions(conn, asked):
            add((*_key(found.redis_key), *found[1:]))
            if found.redis_key is None:
                by_date[found.usage_date].told.append(
                    f"{found.decided_at:%Y-%m-%d %H:%M:%S} UTC: {found.decision} by {found.decided_by}, of the whole "
                    f"date: {found.reason or 'no reason was given'}."
                )
    assert key == "redis_key"  # what `key` and `key_base64` stand for


def _write_letters(conn: Connection, path: Path, asked: Period) -> None:
    _, *others = LetterRow._fields
    with _table(path, ("key", "key_base64", *others)) as add:
        for found in period.letters(conn, asked):
            add((*_key(found.redis_key), *found[1:]))


def _key(raw: bytes | None) -> tuple[str | None, str | None]:
    """To be read, and exact."""
    if raw is None:
        return None, None
    return raw.decode(errors="backslashreplace"), base64.b64encode(raw).decode()


def _write_seals(conn: Connection, path: Path, asked: Period, days: Sequence[Day]) -> None:
    by_date = {day.date: day for day in days}
    with path.open("w", encoding="utf-8", newline="") as file:
        for seal in seals.of_period(conn, asked.from_date, asked.to_date):
            file.write(json.dumps(seal.to_json()) + "\n")
            if day := by_date.get(seal.date):
                day.told.append(
                    f"{seal.sealed_at:%Y-%m-%d %H:%M:%S} UTC: sealed as version {seal.version} ({seal.reason}): "
                    f"{seal.total:,} in {seal.counters:,} counters of all merchants, seal {seal.number:,}, "
                    f"root {seal.root.hex()}."
                )


def _write_merchants(conn: Connection, folder: Path, asked: Period, days: Sequence[Day]) -> int:
    """Write usage, events and the pages, which tell the same merchant by merchant; returns how many pages there are."""
    pages = folder / "merchants"
    pages.mkdir()
    number = 0
    with ExitStack() as files:
        add_usage = files.enter_context(_table(folder / "usage.csv", (*USAGE, "state", "seal_version")))
        add_event = files.enter_context(_table(folder / "events.csv", Event._fields))
        add_page = files.enter_context(_table(pages / "index.csv", INDEX))
        rows = merge(
            ((merchant, asked.from_date, 0, None) for merchant in asked.merchant_ids or ()),
            _stored(period.usage(conn, asked), {day.date: day for day in days}, add_usage),
            _happened(period.events(conn, asked), add_event),
            key=itemgetter(0, 1, 2),
        )
        for merchant_id, theirs in groupby(rows, key=itemgetter(0)):
            number += 1
            name = f"{number:06}.html"
            found = (row for *_, row in theirs if row is not None)
            with (pages / name).open("w", encoding="utf-8", newline="") as file:
                merchant = write_page(file, Merchant(merchant_id), days, found)
            add_page((name, merchant.merchant_id, merchant.counters, merchant.total))
    return number


#: Whose it is, of which date, which of the streams it is of, and the row.
_Row: TypeAlias = tuple[str, dt.date, int, Used | Event | None]


def _stored(rows: Iterable[Used], days: dict[dt.date, Day], add: Write) -> Iterator[_Row]:
    for row in rows:
        day = days[row.date]
        add((*row, day.state, day.seal.version if day.seal else None))
        yield row.merchant_id, row.date, 1, row


def _happened(rows: Iterable[Event], add: Write) -> Iterator[_Row]:
    for row in rows:
        add(row)
        yield row.merchant_id, row.date, 2, row


def _write_queries(folder: Path, asked: Period) -> None:
    folder.mkdir()
    for name in period.QUERIES:
        (folder / f"{name}.sql").write_bytes(query(name))
    dates = [str(date) for date in asked.dates]
    of_period = {name: _plain(value) for name, value in asked.parameters.items()}
    note = "dates: all at once; date (select_leaves): one after the other, those that have a seal"
    _write_text(folder / "parameters.json", _json({**of_period, "dates": dates, "note": note}))


def _write_digests(folder: Path) -> None:
    with (folder / "SHA256SUMS").open("w", encoding="utf-8", newline="") as file:
        for part in ("", "merchants/", "queries/"):
            names = (path.name for path in (folder / part).iterdir() if path.is_file() and path.name != "SHA256SUMS")
            for name in sorted(names):
                with (folder / part / name).open("rb") as content:
                    file.write(f"{hashlib.file_digest(content, 'sha256').hexdigest()}  {part}{name}\n")


@contextmanager
def _table(path: Path, columns: Sequence[str]) -> Iterator[Write]:
    """A CSV file, whose texts are in quotes: a carriage return within one is part of it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(columns)
        yield lambda row: writer.writerow([_plain(cell) for cell in row])


#: How values are written that are neither text nor number: as no place and no language has an influence on.
_FORMS: Final[dict[type, Callable[[Any], object]]] = {
    bool: lambda value: str(value).lower(),
    dt.datetime: format_moment,
    dt.date: dt.date.isoformat,
    bytes: bytes.hex,
}


def _plain(value: object) -> Any:
    form = _FORMS.get(type(value))
    return form(value) if form else value


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
