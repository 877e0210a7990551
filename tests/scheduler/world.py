"""A real Airflow with a real Redis, PostgreSQL and something in Slack's place, and what has been seen of them."""

from __future__ import annotations

import datetime as dt
import html
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import redis
from psycopg import Connection

from local.airflow_api import DagRun, TaskInstance
from merchant_usage.model.keys import CounterKey, build_key, parse_key
from merchant_usage.settings import DAG_ID, Settings
from merchant_usage.sink import ledger
from tests.receivers import OpenTelemetry
from tests.scheduler.tested import Again, TestedAirflow
from tests.webhooks import Receiver

SLACK_TOKEN: Final = "T000/B000/a-secret-of-slack"
PAGERDUTY_KEY: Final = "0123456789abcdef-a-secret-of-pagerduty"
#: A run that takes longer is late.
DEADLINE_SECONDS: Final = 40
# Everything here takes about 10 s, and several times that where other work is done beside it.
RUN_SECONDS: Final = 180
# No test that a scheduled run would disturb takes longer.
QUIET: Final = dt.timedelta(minutes=3)
HOUR: Final = dt.timedelta(hours=1)

# Few, because each is a task of each run: so that one id bears several oddities.
MERCHANTS: Final = (
    "acme",
    "100%",
    "o'brien",
    "a:b:2026-11-01:c %(date)s sta*r?[x]",
    ' émoji 🥐  phở {{ 7 * 7 }} "; DROP TABLE merchant_usage ',
    "line\nbreak " + "x" * 500,
)
METRICS: Final = ("queries", "api_calls")

Value = TypeVar("Value")


def wait_until(condition: Callable[[], Value | None], what: str, seconds: float = 90) -> Value:
    """Ask until the condition gives something true; return that."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.1)
    return value


def said(message: Mapping[str, Any]) -> str:
    """All texts of a message, as a reader sees them."""
    texts = [block["text"]["text"] for block in message["blocks"] if "text" in block]
    texts += [element["text"] for block in message["blocks"] for element in block.get("elements", ())]
    return html.unescape("\n".join(texts))


class Slack(Receiver):
    """What stands in Slack's place."""

    def about(self, run_id: str, *titles: str) -> list[tuple[str, bytes]]:
        """Path and body of the messages to Slack that name a run, and begin with one of these titles."""
        return [
            (path, body)
            for path, body in self.messages
            if run_id.encode() in body and json.loads(body)["text"].startswith(titles or "")
        ]

    def texts(self, title: str) -> list[str]:
        """All that was said in the messages whose title begins so."""
        bodies = [json.loads(body) for _, body in self.messages]
        return [said(body) for body in bodies if body["text"].startswith(title)]

    def count_other_than(self, *titles: str) -> int:
        """How many messages have none of these titles."""
        return sum(not json.loads(body)["text"].startswith(titles) for _, body in self.messages)


class PagerDuty(Receiver):
    """What stands in PagerDuty's place."""

    def incidents(self) -> list[tuple[str, str]]:
        """What it was told to do, with which incident."""
        events = [json.loads(body) for path, body in self.messages if path == "/v2/enqueue"]
        return [(event["event_action"], event["dedup_key"]) for event in events]


@dataclass
class World:
    """All of it, and verbs."""

    airflow: TestedAirflow
    redis: redis.Redis
    conn: Connection
    slack: Slack
    monitor: OpenTelemetry
    pagerduty: PagerDuty
    settings: Settings
    yesterday: dt.date
    today: dt.date
    secrets: Mapping[str, str] = field(repr=False)
    #: For the command line, which knows no Airflow connections.
    addresses: Mapping[str, str] = field(default_factory=dict, repr=False)
    logs: list[Path] = field(default_factory=list)
    commands: set[str] = field(default_factory=set, repr=False)

    def count(self, key: CounterKey, units: int) -> None:
        """Count usage, as the API does."""
        self.redis.incrby(build_key("usage", key), units)
        self.redis.expire(build_key("usage", key), dt.timedelta(days=7))

    def counters(self) -> dict[CounterKey, int]:
        """All good counters in Redis."""
        found = {}
        for raw in self.redis.scan_iter("usage:*", count=1000):
            key = parse_key(raw, "usage")
            if isinstance(key, CounterKey) and key.merchant_id in MERCHANTS and key.metric_type in METRICS:
                value: Any = self.redis.get(raw)
                found[key] = int(value)
        return found

    def rows(self) -> dict[CounterKey, int]:
        """All that is stored."""
        found = self.conn.execute("SELECT merchant_id, date, metric_type, metric_value FROM merchant_usage")
        return {CounterKey(*row[:3]): row[3] for row in found}

    def ledger(self, run: DagRun) -> dict[dt.date, str | None]:
        """The verdicts of a run's newest attempt."""
        return {row["usage_date"]: row["verdict"] for row in ledger.run(self.conn, run.run_id)}

    def trigger(self, **conf: Any) -> DagRun:
        """Run by hand, and wait for the end."""
        return self.ended(self.airflow.api.trigger(DAG_ID, conf).run_id)

    def ended(self, run_id: str) -> DagRun:
        """Wait for the end of a run."""

        def look() -> DagRun | None:
            run = self.airflow.api.run(DAG_ID, run_id)
            return run if run.finished else None

        # An answer costs the server 30 ms of the processor that the run needs.
        return self.airflow.wait_until(look, f"{run_id} has ended", RUN_SECONDS, every=0.5)

    def pass_the_hour(self) -> None:
        """If the scheduler is about to make a run by itself, or has just made one, wait for the end of that run."""
        now = dt.datetime.now(dt.UTC)
        following = now.replace(minute=0, second=0, microsecond=0) + HOUR
        last = following if following - now < QUIET else following - HOUR

        def look() -> bool:
            scheduled = [run for run in self.airflow.api.runs(DAG_ID) if run.run_type == "scheduled"]
            return any(run.interval_end == last for run in scheduled) and all(run.finished for run in scheduled)

        self.airflow.wait_until(look, f"the run for {last} has ended", QUIET.total_seconds() + RUN_SECONDS, every=0.5)

    def backfill(
        self, first: dt.datetime, last: dt.datetime, *, again: Again = Again.NONE, **conf: Any
    ) -> list[DagRun]:
        """Backfill the intervals that begin between two moments, as the docs say, and wait for the end."""
        self.airflow.backfill(DAG_ID, first, last, again=again, conf=conf)
        made = [
            run.run_id
            for run in self.airflow.api.runs(DAG_ID)
            if run.run_type == "backfill" and run.interval_start is not None and first <= run.interval_start <= last
        ]
        return [self.ended(run_id) for run_id in made]

    def clear(self, run: DagRun, *tasks: str | tuple[str, int]) -> DagRun:
        """Clear tasks of a run with all that comes after them, and wait for the end."""
        self.airflow.api.clear(DAG_ID, run.run_id, tasks)
        return self.ended(run.run_id)

    def forget_alerts(self) -> None:
        """As if nothing had been told so far."""
        self.conn.execute("DELETE FROM usage_alert; UPDATE usage_dead_letter SET told_at = now()")
        self.slack.messages.clear()
        self.pagerduty.messages.clear()

    def logged(self, text: str) -> int:
        """How often Airflow's processes have said this."""
        return sum(log.read_text(errors="replace").count(text) for log in self.airflow.logs.rglob("*.log"))

    def tasks(self, run: DagRun, task_id: str) -> list[TaskInstance]:
        """The instances of one task."""
        return [task for task in self.airflow.api.tasks(DAG_ID, run.run_id) if task.task_id == task_id]

    def events(self, run: DagRun) -> list[dict[str, Any]]:
        """The asset events that a run sent."""
        return [each for each in self.airflow.api.asset_events(DAG_ID) if each["source_run_id"] == run.run_id]

    def states(self, run: DagRun, task_id: str) -> set[str | None]:
        """The states of one task's instances."""
        return {task.state for task in self.tasks(run, task_id)}

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Note all command lines of this machine, once a second."""
        over = threading.Event()

        def look() -> None:
            while not over.wait(1):
                for command in (["ps", "axww", "-o", "args"], ["ps", "-ef"]):
                    said = subprocess.run(command, capture_output=True, check=True).stdout
                    self.commands.update(said.decode(errors="replace").splitlines())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count on today's counters meanwhile."""
        over = threading.Event()

        def go_on() -> None:
            while not over.wait(0.02):
                for merchant in MERCHANTS:
                    self.count(CounterKey(merchant, self.today, METRICS[0]), 1)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
