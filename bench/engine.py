"""This project as a contestant: in one process, or the batches shared by two, as two mapped tasks share them."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from bench.contestants import Figures, Servers, Work
from bench.data import DAY, NOON, NOW, DataSet
from bench.memory import peak_megabytes
from merchant_usage import pipeline
from merchant_usage.connections import prepare
from merchant_usage.model.batches import Batch
from merchant_usage.model.run import Plan, Run
from merchant_usage.settings import load_settings
from merchant_usage.steps.scan import scan
from merchant_usage.steps.seal import seal_dates
from merchant_usage.steps.store import BatchResult

if TYPE_CHECKING:
    from multiprocessing.connection import Connection as Pipe

PROCESSES: Final = 2

Store = Callable[[Plan, Sequence[Batch]], list[BatchResult]]


def engine(
    servers: Servers, _: DataSet, *, verified: bool = True, now: dt.datetime = NOW, history: bool = True
) -> Work:
    """A run in one process: scan, store, verify."""
    prepare(servers.conn)
    settings = load_settings({"USAGE_HOURLY_HISTORY": str(history)})

    def store(plan: Plan, batches: Sequence[Batch]) -> list[BatchResult]:
        results, _failures = pipeline.store_all(servers.client, servers.conn, plan, batches, settings)
        return results  # fewer than batches if any failed; the rows are counted at the end

    return lambda: _run(servers, store, in_process=True, verified=verified, now=now)


def engine_in_two(servers: Servers, _: DataSet, *, verified: bool = True) -> Work:
    """A run whose batches are stored by two processes at once; they are up before time is taken."""
    prepare(servers.conn)
    import multiprocessing  # the contestants in one process do not pay for it

    spawn = multiprocessing.get_context("spawn")
    pipes = []
    for _number in range(PROCESSES):
        here, there = spawn.Pipe()
        spawn.Process(target=_store_for, args=(there, servers.redis_url, servers.postgres_url), daemon=True).start()
        pipes.append(here)
    for pipe in pipes:
        pipe.recv()  # connected

    def store(plan: Plan, batches: Sequence[Batch]) -> list[BatchResult]:
        # In turn, as an executor hands out mapped tasks.
        for number, pipe in enumerate(pipes):
            pipe.send((plan.run_id, [batch.to_json() for batch in batches[number::PROCESSES]]))
        return [BatchResult.from_json(result) for pipe in pipes for result in pipe.recv()]

    def work() -> Figures:
        figures = _run(servers, store, in_process=False, verified=verified, now=NOW)
        for pipe in pipes:
            pipe.send(None)
        return {**figures, "megabytes": max([peak_megabytes(), *(pipe.recv() for pipe in pipes)])}

    return work


def scan_only(servers: Servers, _: DataSet) -> Work:
    """Only the scan: how many bytes its plan and its batches take in XCom."""
    prepare(servers.conn)

    def work() -> Figures:
        plan, batches = scan(servers.client, servers.conn, _new_run(NOW), load_settings({}))
        sizes = [len(json.dumps(batch.to_json())) for batch in batches]
        return {
            "plan_bytes": len(json.dumps(plan.to_json())),
            "batches": len(batches),
            "batches_bytes": sum(sizes),
            "largest_batch_bytes": max(sizes),
        }

    return work


def _run(servers: Servers, store: Store, *, in_process: bool, verified: bool, now: dt.datetime) -> Figures:
    settings, run = load_settings({}), _new_run(now)
    started = time.perf_counter()
    plan, batches = scan(servers.client, servers.conn, run, settings, in_process=in_process)
    scanned = time.perf_counter()
    results = store(plan, batches)
    stored = time.perf_counter()
    figures = {"scan_seconds": scanned - started, "store_seconds": stored - scanned}
    if verified:
        with _timed_sealing() as sealing:
            pipeline.prove(servers.client, servers.conn, plan, batches, results, settings)
        figures["seal_seconds"] = sum(sealing)
        figures["verify_seconds"] = time.perf_counter() - stored - figures["seal_seconds"]
    figures["seconds"] = time.perf_counter() - started - figures.get("seal_seconds", 0.0)
    return figures


@contextmanager
def _timed_sealing() -> Iterator[list[float]]:
    """Times sealing, which is done once a day, apart from the run that does it."""
    seconds: list[float] = []

    def timed(*args: Any) -> Any:
        started = time.perf_counter()
        try:
            return seal_dates(*args)
        finally:
            seconds.append(time.perf_counter() - started)

    # By hand, because unittest.mock would add a megabyte to the process that is measured.
    vars(pipeline)["seal_dates"] = timed
    try:
        yield seconds
    finally:
        vars(pipeline)["seal_dates"] = seal_dates


def _store(servers: Servers, run_id: str, batches: Iterable[Batch]) -> list[BatchResult]:
    settings = load_settings({})
    return [pipeline.store(servers.client, servers.conn, batch, run_id, settings) for batch in batches]


def _store_for(pipe: Pipe[Any, Any], redis_url: str, postgres_url: str) -> None:
    """A process of its own: stores what it is sent until it is sent nothing, then tells its memory."""
    servers = Servers.connect(redis_url, postgres_url)
    prepare(servers.conn)
    pipe.send("connected")
    while (task := pipe.recv()) is not None:
        run_id, batches = task
        pipe.send([result.to_json() for result in _store(servers, run_id, map(Batch.from_json, batches))])
    pipe.send(peak_megabytes())


def _new_run(now: dt.datetime) -> Run:
    # A run of its own each time: a run that is repeated is spared some of the work.
    return Run(f"bench {uuid4()}", "cli", (DAY,), now)


ENGINES: Final[dict[str, Callable[[Servers, DataSet], Work]]] = {
    "stored": partial(engine, verified=False),
    "verified": engine,
    "live": partial(engine, now=NOON),
    "live_without": partial(engine, now=NOON, history=False),
    "stored_by_two": partial(engine_in_two, verified=False),
    "verified_by_two": engine_in_two,
    "scan": scan_only,
}
