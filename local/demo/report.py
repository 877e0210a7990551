"""The demo's last words: runs and verdicts, Redis against PostgreSQL, dead letters."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from psycopg import Connection
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from local.demo.runs import RunVerdict, told
from merchant_usage import clock
from merchant_usage.model.dates import Scope, is_settled
from merchant_usage.model.keys import shown
from merchant_usage.model.run import Run
from merchant_usage.model.verdict import Proof
from merchant_usage.settings import Settings
from merchant_usage.sink import dead_letters
from merchant_usage.source.counters import RedisClient
from merchant_usage.steps.scan import take_survey
from merchant_usage.steps.store import BatchResult
from merchant_usage.steps.verify import verify

MOST_LETTERS = 30


def compare(client: RedisClient, conn: Connection, dates: Sequence[dt.date], settings: Settings) -> Proof:
    """A fresh look, apart from any run: PostgreSQL first, then Redis, key by key."""
    run = Run("demo: a fresh look", "manual", tuple(dates), clock.now())
    scopes = {date: Scope(date, is_settled(date, run.now, settings)) for date in dates}
    survey = take_survey(client, scopes, run, settings)
    batches = survey.census.batches((), settings.max_mapped_tasks)
    return verify(
        client,
        conn,
        list(scopes.values()),
        batches,
        BatchResult(),
        run.run_id,
        settings.key_prefix,
        flag_regressions=False,
    )


def runs_table(verdicts: Sequence[RunVerdict]) -> Table:
    """What became of each run."""
    table = _table("Runs", "run", "state", "verdict by date", "")
    for verdict in verdicts:
        dates = ", ".join(f"{date:%d %b} {said}" for date, said in verdict.verdicts.items() if said != "empty")
        empty = sum(said == "empty" for said in verdict.verdicts.values())
        table.add_row(
            told(verdict.run),
            verdict.run.state,
            Text((dates or verdict.note) + (f", {empty} earlier days empty" if empty else "")),
            Text("verified", "green") if verdict.verified else Text(f"NOT verified: {verdict.note}", "red"),
        )
    return table


def comparison(proof: Proof) -> Group:
    """Redis against PostgreSQL: a line a merchant, then one a date."""
    dates = sorted(report.date for report in proof.reports)
    live = {report.date for report in proof.reports if not report.settled}
    totals: dict[str, dict[dt.date, tuple[int, int]]] = {}
    for date, merchant, _, redis, postgres in proof.merchants:
        totals.setdefault(merchant, {})[date] = int(redis), int(postgres)
    headings = [f"{date:%d %b} {server}" for date in dates for server in ("Redis", "PostgreSQL")]
    table = _table("Redis against PostgreSQL, read just now", "merchant", *headings, "")
    for column in table.columns[1:-1]:
        column.justify = "right"
    for merchant, by_date in totals.items():
        pairs = [by_date.get(date, (0, 0)) for date in dates]
        numbers = [f"{number:,}" for pair in pairs for number in pair]
        ahead = {date: redis - postgres for date, (redis, postgres) in zip(dates, pairs, strict=True)}
        since = sum(more for date, more in ahead.items() if date in live)
        if since < 0 or any(more for date, more in ahead.items() if date not in live):
            word = Text("DIFFERENT", "red")
        else:
            word = Text(f"equal, and {since:,} counted since" if since else "equal", "green")
        table.add_row(Text(shown(merchant)), *numbers, word)
    lines = [
        Text(
            f"{report.date}: {report.verdict}, key by key: "
            + ", ".join(f"{number} {verdict}" for verdict, number in report.keys.items() if number)
            + f"; Redis {report.redis_total:,}, PostgreSQL {report.postgres_total:,}"
        )
        for report in proof.reports
    ]
    wrong = [Text(str(difference), "red") for difference in proof.failing[:20]]
    return Group(*([table] if totals else []), *lines, *wrong, Text())


def letters_table(conn: Connection) -> Table:
    """The keys that could not be counted, and why."""
    table = _table("Dead letters", "key", "reason", "detail")
    for letter in dead_letters.listed(conn, with_resolved=False, reason=None, most=MOST_LETTERS):
        key = bytes(letter["redis_key"]).decode(errors="backslashreplace")
        table.add_row(Text(shown(key)), letter["reason"], Text(shown(letter["detail"])))
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=Text(title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
