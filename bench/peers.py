"""`./run bench --peers`: what people would pick instead, each as a whole process, from its start to its end.

What cannot be had on this machine is left out, and said: a C compiler for the reader in C, Node for the original design
in its own stack, packages for dlt. Each is set up below `.local/bench`, once.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.data import DAY, DataSet
from bench.running import Stage
from bench.tables import Sheet, yes_or_no
from local.airflow_environment import PROJECT
from local.running import find_psql, psql_environment

JOBS: Final = PROJECT / "bench" / "jobs"
FOLDER: Final = PROJECT / ".local" / "bench"
#: The whole process of a run that proves what it moved, over that of a reader in C, `\copy` and one upsert.
OF_THE_C_READER: Final = 1.35
#: Why there is no figure of it: neither the wheel nor Debian's packages bring what it is built against.
REDIS_FDW: Final = "redis_fdw: nobody packages it, and the headers of this PostgreSQL to build it with are not here"

_TOTAL = "SELECT coalesce(sum(metric_value), 0) FROM merchant_usage"
# dlt makes its tables itself, in a schema of its own.
_TOTAL_OF_DLT = "SELECT coalesce(sum(metric_value), 0) FROM by_dlt.merchant_usage"
_UPSERT = """
INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value) SELECT * FROM ready
ON CONFLICT (merchant_id, date, metric_type) DO UPDATE
SET metric_value = EXCLUDED.metric_value, updated_at = now()
"""
_BY_PSQL: Final = f"""
"$READER" 127.0.0.1 "$REDIS_PORT" {DAY} | "$PSQL" --quiet --set ON_ERROR_STOP=1 \\
    --command "CREATE TEMPORARY TABLE ready (merchant_id text, date date, metric_type text, metric_value bigint)" \\
    --command "\\\\copy ready from pstdin" --command "{_UPSERT}"
"""


class NotHere(Exception):
    """What a peer needs is not on this machine."""


#: Moves the day once, in a new process; returns its seconds.
Run = Callable[[Stage], float]


@dataclass(frozen=True)
class Peer:
    """A way to move the day's counters."""

    name: str
    label: str
    #: Sets it up, if need be; raises NotHere.
    prepare: Callable[[], Run]
    total: str = _TOTAL


def _c_reader() -> Run:
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotHere("no C compiler (cc)")
    reader = FOLDER / "reader"
    FOLDER.mkdir(parents=True, exist_ok=True)
    _set_up([compiler, "-O2", "-o", reader, JOBS / "reader.c"])
    programs = {"READER": str(reader), "PSQL": find_psql()}

    def run(stage: Stage) -> float:
        to_redis = {"REDIS_PORT": str(stage.valkey.port), "REDIS_PASSWORD": stage.valkey.password}
        return _seconds(["sh", "-c", _BY_PSQL], {**psql_environment(stage.postgres.url), **to_redis, **programs})

    return run


def _ours() -> Run:
    def run(stage: Stage) -> float:
        figures = stage.run("verified")
        # Done once a day, and told apart in the other tables too.
        return figures["process_seconds"] - figures["seal_seconds"]

    return run


def _plain() -> Run:
    return lambda stage: stage.run("plain")["process_seconds"]


def _original() -> Run:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NotHere("no Node (node and npm)")
    folder = _folder("node", "original.mjs", "package.json", "package-lock.json")
    _set_up([npm, "ci", "--silent", "--no-audit", "--no-fund"], folder)
    return lambda stage: _seconds([node, str(folder / "original.mjs"), str(DAY)], _addresses(stage))


def _dlt() -> Run:
    folder = _folder("dlt", "dlt_merge.py", "requirements-dlt.txt")
    uv, python = PROJECT / ".tools" / "bin" / "uv", folder / "venv" / "bin" / "python"
    if not python.exists():
        _set_up([uv, "venv", "--quiet", folder / "venv"])
    _set_up([uv, "pip", "install", "--quiet", "--python", python, "-r", folder / "requirements-dlt.txt"])

    def run(stage: Stage) -> float:
        stage.conn.execute("DROP SCHEMA IF EXISTS by_dlt CASCADE")
        state = folder / "state"
        shutil.rmtree(state, ignore_errors=True)
        environ = {**_addresses(stage), "RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "CRITICAL"}
        return _seconds([str(python), str(folder / "dlt_merge.py"), str(DAY), str(state)], environ)

    return run


PEERS: Final = (
    Peer("c", "a reader in C, \\copy and one upsert: nothing checked, nothing proven", _c_reader),
    Peer("ours", "this project: first load, proven", _ours),
    Peer("plain", "plain Python: SCAN 1000, MGET, executemany", _plain),
    Peer("dlt", "dlt: a resource of pages, merged (upsert)", _dlt, _TOTAL_OF_DLT),
    Peer("original", "the original design in its own stack: Node, ioredis, pg", _original),
)


def measure(stage_of: Callable[[DataSet], Stage], data: DataSet, rounds: int) -> dict[str, Any]:
    """First loads of one day, in turns; and what is not here, with the reason."""
    runs, missing = {}, [REDIS_FDW]
    for peer in PEERS:
        try:
            runs[peer] = peer.prepare()
        except NotHere as reason:
            missing.append(f"{peer.label}: {reason}")
    stage = stage_of(data)
    taken: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds):
        for peer, run in runs.items():
            stage.empty()
            stage.settle()
            taken[peer.name].append(run(stage))
            if (total := stage.number(peer.total)) != data.total:
                raise SystemExit(f"{peer.label}: left {total:.0f} units of {data.total} behind")
        print(f"peers: round {number + 1} of {rounds} done", file=sys.stderr)
    seconds = {name: statistics.median(times) for name, times in taken.items()}
    return {"description": data.description, "seconds": seconds, "missing": missing}


def sheets(measured: dict[str, Any], rounds: int) -> list[Sheet]:
    """The figures, what was left out, and the target."""
    seconds = measured["seconds"]
    rows = [
        (peer.label, f"{seconds[peer.name]:.2f}", f"{seconds[peer.name] / seconds['ours']:.2f}")
        for peer in PEERS
        if peer.name in seconds
    ]
    title = f"What people would pick instead, whole processes: {measured['description']}, medians of {rounds}"
    found = [Sheet(title, ("", "seconds", "of ours"), rows)]
    if measured["missing"]:
        found.append(Sheet("Left out", ("what, and why",), [(each,) for each in measured["missing"]]))
    if "c" in seconds:
        ratio = seconds["ours"] / seconds["c"]
        limit = (f"<= {OF_THE_C_READER}", yes_or_no(ratio <= OF_THE_C_READER))
        target = ("this project / the reader in C", f"{ratio:.2f}", *limit)
        found.append(Sheet("The target of whole processes", ("", "measured", "wanted", "met"), [target]))
    return found


def _folder(name: str, *files: str) -> Path:
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(JOBS / file, folder)
    return folder


def _set_up(command: list[str | Path], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHere(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-200:]}")


def _addresses(stage: Stage) -> dict[str, str]:
    return {"USAGE_REDIS_URL": stage.valkey.url, "USAGE_POSTGRES_URL": stage.postgres.url}


def _seconds(command: list[str], environ: dict[str, str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{command[0]} failed: {done.stderr[-2000:]}")
    return seconds
