"""The demo's last words: runs and verdicts, Redis against PostgreSQL, dead letters."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from psycopg import Connection
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from local.demo.runs import RunVerdict, name_of
from merchant_usage import clock
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.report import DateReport
from merchant_usage.model.run import Run
from merchant_usage.model.verdict import Proof
from merchant_usage.settings import DAG_ID, Settings
from merchant_usage.sink import dead_letters
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps import preview
from merchant_usage.text import shown

MOST_LETTERS = 30
MOST_DIFFERENCES = 20


def compare(client: RedisClient, conn: Connection, dates: Sequence[dt.date], settings: Settings) -> Proof:
    """A fresh look, apart from any run: PostgreSQL first, then Redis, key by key."""
    run = Run("demo: a fresh look", "manual", tuple(dates), clock.now())
    return preview.compare(client, conn, run, settings)


#: What to type in another terminal, in this folder.
COMMANDS: Final = {
    "./run usage status": "how each day stands",
    "./run usage verify today": "compare both servers now",
    "./run usage dead-letters": "the keys that cannot be counted",
    f"./run airflow dags trigger {DAG_ID}": "aggregate yesterday once more",
    "./run psql": "PostgreSQL: SELECT * FROM merchant_usage",
    "./run redis": "Redis: GET, TTL, INCRBY ...",
}


def commands_table() -> Table:
    """What there is to type while the demo runs."""
    table = _table("In another terminal, in this folder", "type", "")
    for command, meaning in COMMANDS.items():
        table.add_row(command, meaning)
    return table


def runs_table(verdicts: Sequence[RunVerdict]) -> Table:
    """What became of each run."""
    table = _table("Runs", "run", "state", "verdict by date", "")
    for verdict in verdicts:
        dates = ", ".join(f"{date:%d %b} {said}" for date, said in verdict.verdicts.items() if said != "empty")
        empty = sum(said == "empty" for said in verdict.verdicts.values())
        table.add_row(
            name_of(verdict.run),
            verdict.run.state,
            Text((dates or verdict.note) + (f", {empty} earlier days empty" if empty else "")),
            Text("verified", "green") if verdict.verified else Text(f"NOT verified: {verdict.note}", "red"),
        )
    return table


def comparison(proof: Proof) -> Group:
    """Redis against PostgreSQL: a line a merchant, then one a date, then what is wrong."""
    table = [_merchants_table(proof)] if proof.merchants else []
    wrong = [Text(str(difference), "red") for difference in proof.failing[:MOST_DIFFERENCES]]
    return Group(*table, *map(_date_line, proof.reports), *wrong, Text())


def _merchants_table(proof: Proof) -> Table:
    totals: dict[str, dict[dt.date, tuple[int, int]]] = defaultdict(dict)
    for date, merchant, _, redis, postgres in proof.merchants:
        totals[merchant][date] = int(redis), int(postgres)
    dates = sorted(report.date for report in proof.reports)
    live = {report.date for report in proof.reports if not report.settled}
    headings = [f"{date:%d %b} {server}" for date in dates for server in ("Redis", "PostgreSQL")]
    table = _table("Redis against PostgreSQL, read just now", "merchant", *headings, "")
    for column in table.columns[1:-1]:
        column.justify = "right"
    for merchant, by_date in totals.items():
        numbers = [f"{number:,}" for date in dates for number in by_date.get(date, (0, 0))]
        ahead = {date: redis - postgres for date, (redis, postgres) in by_date.items()}
        table.add_row(Text(shown(merchant)), *numbers, _agreement(ahead, live))
    return table


def _agreement(ahead: Mapping[dt.date, int], live: Collection[dt.date]) -> Text:
    """Whether a merchant's numbers agree.

    Args:
        ahead: by date, how much more Redis has. It was read last, so on a live date that is no fault.
    """
    since = sum(more for date, more in ahead.items() if date in live)
    if since < 0 or any(more for date, more in ahead.items() if date not in live):
        return Text("DIFFERENT", "red")
    return Text(f"equal, and {since:,} counted since" if since else "equal", "green")


def _date_line(report: DateReport) -> Text:
    keys = ", ".join(f"{number} {verdict}" for verdict, number in report.keys.items() if number)
    totals = f"Redis {report.redis_total:,}, PostgreSQL {report.postgres_total:,}"
    return Text(f"{report.date}: {report.verdict}, key by key: {keys}; {totals}")


def letters_table(conn: Connection) -> Table:
    """The keys that could not be counted, and why."""
    table = _table("Dead letters", "key", "reason", "detail")
    for letter in dead_letters.listed(conn, with_resolved=False, reason=None, limit=MOST_LETTERS):
        key = bytes(letter["redis_key"]).decode(errors="backslashreplace")
        table.add_row(Text(shown(key)), letter["reason"], Text(shown(letter["detail"])))
    return table


def month_table(found: Sequence[tuple[CounterKey, str]]) -> Table:
    """What is worth looking at in the month before."""
    table = _table("The month before, made up: what there is to be found", "date", "merchant", "metric", "")
    for key, what in found:
        table.add_row(str(key.date), Text(shown(key.merchant_id)), key.metric_type, what)
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=Text(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
