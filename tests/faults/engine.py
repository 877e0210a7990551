"""Runs the engine as Airflow's tasks would, with somebody who hears each step of it, from outside the product's code.

What is heard, in order, as words: `sql:NAME` before a query of `include/sql` is sent and `did:NAME` after it,
`copied` after each piece of a COPY, `kept` after each page of readings, `commit:NAME` and `committed:NAME` around the
commit of a transaction that ran that query, `page` for each page of the SCAN, `mget` before each page of values,
`delete` before each page of keys to be deleted.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unittest import mock

import psycopg
import redis
from psycopg import Connection

from merchant_usage import pipeline
from merchant_usage.connections import prepare
from merchant_usage.driver_errors import explained
from merchant_usage.errors import UsageError
from merchant_usage.model.batches import Batch
from merchant_usage.model.dates import local_date, oldest_kept
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.run import Plan, Run
from merchant_usage.settings import Settings
from merchant_usage.sink import transactions
from merchant_usage.sink.queries import SQL_FOLDER, query
from merchant_usage.source import counters
from merchant_usage.steps import cleanup, scan
from merchant_usage.steps.resolve import Decision, Ruling, decide
from merchant_usage.steps.store import BatchResult

Hear = Callable[[str], None]

# By this name tests find the engine's sessions in PostgreSQL.
APPLICATION = "engine"
# A child that does not end is an error, not a hang.
CHILD_SECONDS = 180

_NAMES = {query(path.stem): path.stem for path in SQL_FOLDER.glob("*.sql")}


def nothing(_: str) -> None:
    """Hear, and do nothing."""


class At:
    """Acts once, at a certain moment: when the last of these words is heard, all of them in this order."""

    def __init__(self, *words: str, do: Callable[[], Any]) -> None:
        self._words = list(words)
        self._do = do
        self.happened = False

    def __call__(self, word: str) -> None:
        if self._words and word == self._words[0]:
            self._words.pop(0)
            if not self._words:
                self.happened = True
                self._do()


class HeardConnection(Connection[Any]):
    """A connection that tells what is done with it."""

    hear: Hear = staticmethod(nothing)
    _said: list[str] | None = None

    @classmethod
    def to(cls, url: str, hear: Hear = nothing) -> Self:
        conn = cls.connect(url, autocommit=True, application_name=APPLICATION)
        prepare(conn)
        conn.hear = hear
        return conn

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        name = _NAMES.get(query)
        if name is None:
            return super().execute(query, params, **options)
        if self._said is not None:
            self._said.append(name)
        self.hear(f"sql:{name}")
        cursor = super().execute(query, params, **options)
        self.hear(f"did:{name}")
        return cursor

    @contextmanager
    def transaction(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        said: list[str] = []
        self._said = said
        try:
            with super().transaction(*arguments, **options) as transaction:
                yield transaction
                for name in said:
                    self.hear(f"commit:{name}")
        finally:
            self._said = None
        for name in said:
            self.hear(f"committed:{name}")


class HeardRedis(redis.Redis):
    """A client that tells when it reads values."""

    hear: Hear = staticmethod(nothing)

    def mget(self, *arguments: Any, **options: Any) -> Any:
        self.hear("mget")
        return super().mget(*arguments, **options)


@contextmanager
def heard(redis_url: str, postgres_url: str, hear: Hear = nothing) -> Iterator[tuple[HeardRedis, HeardConnection]]:
    """Clients for the engine, all of whose steps are heard."""
    scan_pages, compare_and_delete = counters.scan_pages, cleanup._compare_and_delete
    write, write_row = psycopg.Copy.write, psycopg.Copy.write_row
    ask = counters._ask

    def scanning(*arguments: Any) -> Iterator[list[bytes]]:
        for page in scan_pages(*arguments):
            hear("page")
            yield page

    def asking(*arguments: Any) -> None:
        hear("mget")
        ask(*arguments)

    def deleting(*arguments: Any) -> list[bool]:
        hear("delete")
        return compare_and_delete(*arguments)

    def writing(copy: Any, data: Any) -> None:
        write(copy, data)
        hear("copied")

    def keeping(copy: Any, row: Any) -> None:
        write_row(copy, row)
        hear("kept")

    with ExitStack() as stack:
        if hear is not nothing:
            stack.enter_context(mock.patch.object(scan, "scan_pages", scanning))
            stack.enter_context(mock.patch.object(counters, "_ask", asking))
            stack.enter_context(mock.patch.object(cleanup, "_compare_and_delete", deleting))
            stack.enter_context(mock.patch.object(psycopg.Copy, "write", writing))
            stack.enter_context(mock.patch.object(psycopg.Copy, "write_row", keeping))
        client = stack.enter_context(HeardRedis.from_url(redis_url))
        client.hear = hear
        conn = stack.enter_context(HeardConnection.to(postgres_url, hear))
        yield client, conn


@dataclass(frozen=True)
class Job:
    """A DAG run: where, what, and the folder that keeps what its finished tasks returned, as XCom would."""

    redis_url: str
    postgres_url: str
    run: Run
    settings: Settings
    folder: Path

    def returned(self, task: str, work: Callable[[], Any]) -> Any:
        """What a task returned; a task that has not finished yet is run."""
        path = self.folder / f"{task}.json"
        if not path.exists():
            path.write_text(json.dumps(work()))
        return json.loads(path.read_text())

    def clear(self, *tasks: str) -> None:
        """Forget what tasks returned, so that they run again: `upsert` means all of its mapped tasks."""
        for task in tasks:
            for path in self.folder.glob(f"{task}*.json"):
                path.unlink()


def run_tasks(job: Job, hear: Hear = nothing) -> list[dict[str, Any]]:
    """Run those tasks of a DAG run that have not finished yet; returns the report of each date.

    As in Airflow, a mapped task that fails stops no other, and each task has connections of its own.
    """
    job.folder.mkdir(parents=True, exist_ok=True)

    def find() -> list[Any]:
        with heard(job.redis_url, job.postgres_url, hear) as (client, conn):
            plan, batches = scan.scan(client, conn, job.run, job.settings)
        return [plan.to_json(), [batch.to_json() for batch in batches]]

    def upsert(batch: Batch) -> dict[str, Any]:
        with heard(job.redis_url, job.postgres_url, hear) as (client, conn):
            return pipeline.store(client, conn, batch, job.run.run_id, job.settings).to_json()

    def verify() -> list[Any]:
        with heard(job.redis_url, job.postgres_url, hear) as (client, conn):
            proof = pipeline.prove(client, conn, Plan.from_json(plan), batches, results, job.settings)
        return [report.to_json() for report in proof.reports]

    def delete() -> list[int]:
        oldest = oldest_kept(local_date(job.run.now, job.settings), job.settings)
        proven = [s.date for s in Plan.from_json(plan).scopes if s.date < oldest and str(s.date) in verified]
        keys = [key for batch in batches for key in batch.counter_keys() if key.date < oldest]
        with heard(job.redis_url, job.postgres_url, hear) as (client, conn):
            cleaned = cleanup.delete_stale(client, conn, keys, proven, job.settings.key_prefix)
        return [cleaned.deleted, cleaned.kept]

    plan, found = job.returned("scan", find)
    batches = [Batch.from_json(batch) for batch in found]
    results: list[BatchResult] = []
    first_failure: Exception | None = None
    for number, batch in enumerate(batches):
        try:
            result = job.returned(f"upsert {number}", lambda batch=batch: upsert(batch))  # type: ignore[misc]
            results.append(BatchResult.from_json(result))
        except Exception as error:  # noqa: BLE001 - whatever it is, the other mapped tasks go on
            first_failure = first_failure or error
    if first_failure is not None:
        raise first_failure
    reports: list[dict[str, Any]] = job.returned("verify", verify)
    verified = {report["date"] for report in reports if report["verdict"] == DateVerdict.VERIFIED}
    if job.settings.delete_stale_keys:
        job.returned("delete", delete)
    return reports


def run_whole(job: Job, hear: Hear = nothing) -> list[dict[str, Any]]:
    """The same run as one process without a scheduler does it: nothing is kept from one attempt to the next."""
    # Several batches of few keys.
    few = mock.patch.object(scan, "KEYS_WORTH_A_BATCH", 2000)
    with heard(job.redis_url, job.postgres_url, hear) as (client, conn), few:
        proof = pipeline.aggregate(client, conn, job.run, job.settings)
    return [report.to_json() for report in proof.reports]


def run_decide(job: Job, hear: Hear = nothing) -> None:
    """Carry out `resolve --date D --carry` for the run's first date."""
    with heard(job.redis_url, job.postgres_url, hear) as (client, conn):
        decide(client, conn, Ruling(Decision.CARRY, "tester"), job.settings.key_prefix, date=job.run.dates[0])


def crash(work: Callable[[Job, Hear], Any], job: Job, moment: Sequence[str]) -> None:
    """Let another process do the work and end it by SIGKILL at a moment, which must come."""
    exit_code = _in_another_process(_work_and_die, work, job, moment)
    assert exit_code == -signal.SIGKILL, f"it ended by itself ({exit_code}): {moment} never came"


def in_another_process(work: Callable[[Job, Hear], Any], job: Job) -> None:
    """Let another process do the work, which must succeed."""
    assert _in_another_process(work, job, nothing) == 0


def _in_another_process(target: Callable[..., Any], *arguments: Any) -> int | None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    child = context.Process(target=target, args=arguments)
    child.start()
    child.join(CHILD_SECONDS)
    if child.exitcode is None:
        child.kill()
    return child.exitcode


@contextmanager
def frozen(work: Callable[[Job, Hear], Any], job: Job, moment: Sequence[str], idle_limit: str) -> Iterator[None]:
    """Another process does the work and is stopped at a moment, which must come. In the end it goes on, and fails."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    child = context.Process(target=_work_and_freeze, args=(work, job, moment, idle_limit))
    child.start()
    try:
        deadline = time.monotonic() + CHILD_SECONDS
        while (state := Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0]) != "T":
            assert state != "Z", f"it ended by itself: {moment} never came"
            assert time.monotonic() < deadline, f"{moment} never came"
            time.sleep(0.01)  # nobody tells
        yield
        assert child.pid is not None
        os.kill(child.pid, signal.SIGCONT)
        child.join(CHILD_SECONDS)
        assert child.exitcode == 1, f"it ended with {child.exitcode}"
    finally:
        child.kill()
        child.join()


def _work_and_freeze(work: Callable[[Job, Hear], Any], job: Job, moment: Sequence[str], idle_limit: str) -> None:
    transactions.IDLE_LIMIT = idle_limit
    try:
        with explained():
            work(job, At(*moment, do=lambda: os.kill(os.getpid(), signal.SIGSTOP)))
    except UsageError as error:
        sys.exit(1 if error.heals else 2)


def _work_and_die(work: Callable[[Job, Hear], Any], job: Job, moment: Sequence[str]) -> None:
    work(job, At(*moment, do=lambda: os.kill(os.getpid(), signal.SIGKILL)))
