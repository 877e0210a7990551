"""Draws each kind of message to Slack for the docs, from the very blocks that are sent.

    ./run messages

Everything that makes a message is the product's own; only what happened is made up here.
"""

from __future__ import annotations

import datetime as dt
import html
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import psycopg
import redis
from psycopg import Connection

from local.servers import Postgres, Valkey
from merchant_usage import clock
from merchant_usage.alerts.alert import AlertKind, Discrepancy
from merchant_usage.alerts.collect import gather, gather_risks
from merchant_usage.alerts.register import AT_MOST, Entry, Notification, Register
from merchant_usage.alerts.seals import gather_seals
from merchant_usage.alerts.slack_message import render
from merchant_usage.connections import prepare
from merchant_usage.model.dates import Scope
from merchant_usage.model.keys import CounterKey, build_key
from merchant_usage.model.report import DateReport, DateVerdict
from merchant_usage.model.risk import ServerState, SourceState
from merchant_usage.model.run import SCHEDULED, Run
from merchant_usage.model.verdict import Difference, Proof, Verdict
from merchant_usage.orchestration.alerts import runs
from merchant_usage.orchestration.alerts.failure_notes import DATES, DISCREPANCY_KEY, FAILURE_KEY
from merchant_usage.orchestration.alerts.verified import with_command
from merchant_usage.orchestration.dag_runs import DagRunFacts
from merchant_usage.orchestration.names import SCAN_TASK_ID, VERIFY_TASK_ID
from merchant_usage.orchestration.seal_export import alert_of_export
from merchant_usage.pipeline import aggregate
from merchant_usage.settings import Settings, load_settings
from merchant_usage.sink import schema
from merchant_usage.steps.audit import audit
from merchant_usage.steps.source_risks import evictions

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "images" / "messages"
#: What is never a message.
SILENT: Final = frozenset({AlertKind.INCIDENT, AlertKind.UNANSWERED})

NOW: Final = dt.datetime(2026, 11, 26, 3, 5, tzinfo=dt.UTC)
TODAY: Final = NOW.date()
DAY: Final = TODAY - dt.timedelta(days=2)
RUN_ID: Final = "scheduled__2026-11-26T03:00:00+00:00"
LOG: Final = "https://airflow.example/log"


def messages(client: redis.Redis, conn: Connection, settings: Settings) -> dict[AlertKind, dict[str, Any]]:
    """One message of each kind, as it is sent.

    Args:
        client, conn: an empty Redis, and a PostgreSQL with nothing but the schema.
    """
    told = [*_of_dates(client, conn, settings), *_of_runs(conn, settings)]
    return {notification.alert.kind: render(notification) for notification in told}


def _of_runs(conn: Connection, settings: Settings) -> Iterator[Notification]:
    scan_down = {"error": "Redis does not answer: connection refused. It was asked at redis.example:6379."}
    refused = {"error": "No merchant is known as acmee: Redis has no usage of that name.", "refused": True}
    wrong = {"error": "2 counter(s) in PostgreSQL do not match Redis; nothing was lowered or deleted."}
    lacking = Discrepancy.of({"acme": (21_223, 20_223), "b:eu": (512, 500)}, 2)
    left = {DISCREPANCY_KEY: {**lacking.to_json(), DATES: [str(TODAY)]}}
    for task_id, failure, notes in (
        (SCAN_TASK_ID, scan_down, {}),
        (SCAN_TASK_ID, refused, {}),
        (VERIFY_TASK_ID, wrong, left),
    ):
        yield Notification(runs.failed(_failed(task_id, failure, notes), settings, NOW))

    register = Register()
    alert = runs.failed(_failed(SCAN_TASK_ID, scan_down, {}), settings, NOW)
    for number in range(AT_MOST):
        still = register.raise_alert(replace(alert, key=f"run {number}"), NOW)
    assert still is not None
    yield still

    interval = (NOW - dt.timedelta(hours=1, minutes=5), NOW - dt.timedelta(minutes=5))
    run = DagRunFacts(RUN_ID, SCHEDULED, {}, *interval, state="running")
    yield Notification(runs.late(run, settings, NOW, conn))
    entries = [Entry(f"run {n}", AlertKind.FAILED, NOW, f"run {n}", sent=True) for n in range(2)]
    yield Notification(runs.recovered(RUN_ID, [TODAY], entries, conn))


def _failed(task_id: str, failure: Mapping[str, Any], notes: Mapping[str, Any]) -> dict[str, Any]:
    """What Airflow gives to the callback of a run that failed, with what its task left."""
    left = {(task_id, FAILURE_KEY): {**failure, "log_url": LOG}}
    left |= {(task_id, key): value for key, value in notes.items()}
    ti = SimpleNamespace(xcom_pull=lambda task_ids, key: [left.get((each, key)) for each in task_ids])
    conf = {"from_date": str(TODAY), "to_date": str(TODAY)}
    dag_run = SimpleNamespace(run_id=RUN_ID, run_type="manual", conf=conf, state="failed")
    return {"ti": ti, "dag_run": dag_run, "run_id": RUN_ID, "reason": "task_failure"}


def _of_dates(client: redis.Redis, conn: Connection, settings: Settings) -> Iterator[Notification]:
    counters = {CounterKey("acme", DAY, "api_calls"): 21_223, CounterKey("b:eu", DAY, "storage_bytes"): 572_783}
    raw = {key: build_key(settings.key_prefix, key) for key in counters}
    client.mset({raw[key]: value for key, value in counters.items()})
    aggregate(client, conn, Run("before", "manual", (DAY,), NOW), settings)
    client.set(raw[CounterKey("acme", DAY, "api_calls")], 1_200)
    client.set(f"{settings.key_prefix}:acme:{DAY}:half", "1.5")
    aggregate(client, conn, Run(RUN_ID, "manual", (DAY,), NOW), settings)

    expires = CounterKey("acme", TODAY - dt.timedelta(days=6), "api_calls")
    client.set(build_key(settings.key_prefix, expires), 9_000, ex=dt.timedelta(hours=5))
    empty = DAY + dt.timedelta(days=1)
    unread = TODAY - dt.timedelta(days=9)
    remark = f"nobody read the end of {unread} while its keys lived (no run read it before), so usage may be lost"
    proof = Proof(
        [
            DateReport(empty, settled=True, verdict=DateVerdict.EMPTY),
            DateReport(unread, settled=True, verdict=DateVerdict.INCOMPLETE, remark=remark),
        ],
        failing=[Difference(expires, Verdict.BEHIND, 8_500, 0, None, 9_000)],
        failing_count=1,
    )
    scopes = [Scope(report.date, settled=True) for report in proof.reports]
    yield from map(with_command, gather(client, conn, proof, scopes, RUN_ID, settings, NOW).notifications)
    yield from _of_seals(client, conn, settings)
    may_evict = evictions([ServerState("redis.example:6379", "1", 0, "allkeys-lru")], {})
    yield from gather_risks(conn, SourceState(risks=tuple(may_evict)), RUN_ID, NOW)


def _of_seals(client: redis.Redis, conn: Connection, settings: Settings) -> Iterator[Notification]:
    """Usage that comes late, and a row that somebody changes after that."""
    day = TODAY - dt.timedelta(days=4)
    for counters in ({"acme": 21_223, "b:eu": 512}, {"acme": 21_903, "b:eu": 512}):
        for merchant_id, value in counters.items():
            client.set(build_key(settings.key_prefix, CounterKey(merchant_id, day, "api_calls")), value)
        with mock.patch.object(clock, "now", return_value=NOW):
            aggregate(client, conn, Run(RUN_ID, "manual", (day,), NOW), settings)
    conn.execute("UPDATE merchant_usage SET metric_value = 12 WHERE merchant_id = 'b:eu' AND date = %s", [day])
    yield from gather_seals(conn, audit(conn, day, day), RUN_ID, NOW)
    yield from alert_of_export(conn, ["USAGE_SEAL_EXPORT cannot be written (PermissionError)"], RUN_ID, NOW)


# How it looks, in pixels.
WIDTH: Final = 760
MARGIN: Final = 20
LINE: Final = 21
GAP: Final = 11
#: Characters of a line that fit, at the width of a letter on the average.
LETTERS: Final = {"header": 74, "text": 96}
STYLE: Final = {
    "header": 'font-size="17" font-weight="700" fill="#1d1c1d"',
    "text": 'font-size="14" fill="#1d1c1d"',
    "link": 'font-size="14" fill="#1264a3" text-decoration="underline"',
    "context": 'font-size="12" fill="#616061"',
}


def draw(body: Mapping[str, Any]) -> str:
    """A message of Slack's blocks as a picture (SVG)."""
    lines: list[str] = []
    y = MARGIN
    for block in body["blocks"]:
        for text, style in _texts(block):
            for line in _wrapped(text, LETTERS.get(style, LETTERS["text"])):
                y += LINE
                shown = html.escape(line, quote=False)
                lines.append(f'<text x="{MARGIN + 14}" y="{y}" xml:space="preserve" {STYLE[style]}>{shown}</text>')
            y += GAP
    height = y + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" font-family="Lato, Helvetica, Arial, sans-serif" role="img">',
            f"<title>{html.escape(_read(body['blocks'][0]['text']), quote=False)}</title>",
            f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff" stroke="#dddddd"/>',
            f'<rect x="{MARGIN}" y="{MARGIN}" width="4" height="{height - 2 * MARGIN}" rx="2" fill="#bbbbbb"/>',
            *lines,
            "</svg>\n",
        ]
    )


def _texts(block: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The texts of a block as a person reads them, each with its style."""
    for text in block.get("elements", [block.get("text")]):
        if text["type"] == "mrkdwn":
            yield html.unescape(text["text"]).removesuffix(">").rpartition("|")[2], "link"
        else:
            yield _read(text), {"header": "header", "context": "context"}.get(block["type"], "text")


def _read(text: Mapping[str, Any]) -> str:
    return html.unescape(text["text"])


def _wrapped(text: str, letters: int) -> Iterator[str]:
    for line in text.split("\n"):
        yield from textwrap.wrap(line, letters, break_on_hyphens=False, replace_whitespace=False) or [""]


def pictures(client: redis.Redis, conn: Connection) -> dict[str, str]:
    """The pictures of all kinds of messages, by the name of the file."""
    told = messages(client, conn, load_settings({}))
    return {f"{kind}.svg": draw(body) for kind, body in told.items()}


def main() -> None:
    """Draw all of them anew."""
    with TemporaryDirectory(prefix="usage-messages-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o711)  # PostgreSQL runs as another user than root
        with (
            Valkey(folder / "redis") as valkey,
            Postgres(folder / "postgres") as postgres,
            closing(prepare(psycopg.connect(postgres.url, autocommit=True))) as conn,
            redis.Redis.from_url(valkey.url) as client,
        ):
            schema.migrate(conn)
            drawn = pictures(client, conn)
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.svg"):
        old.unlink()
    for file, picture in drawn.items():
        (FOLDER / file).write_text(picture)


if __name__ == "__main__":
    main()
