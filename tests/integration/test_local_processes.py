"""Processes of a folder end with whoever started them, and nobody else's do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from local.processes import end_processes, processes_in
from tests.support import PROJECT

SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
PARENT = """
import subprocess, sys, time
from pathlib import Path
from local.processes import FolderWatcher
watcher = FolderWatcher(Path(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", sys.argv[2]], cwd=sys.argv[1], start_new_session=True)
time.sleep(60)
"""


def _wait(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.mark.parametrize("program", [SLEEP, STUBBORN])
def test_end_processes_ends_those_of_the_folder_only(tmp_path: Path, program: str) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "inside2"
    inside.mkdir()
    outside.mkdir()
    ours = subprocess.Popen([sys.executable, "-c", program], cwd=inside, start_new_session=True)
    other = subprocess.Popen([sys.executable, "-c", SLEEP], cwd=outside)
    shell = subprocess.Popen(["/bin/sleep", "60"], cwd=inside)
    try:
        _wait(lambda: processes_in(inside), "it started")
        end_processes(inside, grace_seconds=0.3)
        assert ours.wait(5) in {-signal.SIGTERM, -signal.SIGKILL}
        assert other.poll() is None
        assert shell.poll() is None, "whatever is neither Python nor Airflow is somebody else's"
    finally:
        for process in (ours, other, shell):
            process.kill()
            process.wait()


@pytest.mark.parametrize("program", [SLEEP, STUBBORN])
def test_they_end_when_their_parent_is_killed(tmp_path: Path, program: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), program], env={**os.environ, "PYTHONPATH": str(PROJECT)}
    )
    _wait(lambda: processes_in(tmp_path), "it started")
    watchers = [p for p in psutil.Process(parent.pid).children() if "local.processes" in p.cmdline()]
    assert len(watchers) == 1
    parent.kill()
    parent.wait()
    _wait(lambda: not processes_in(tmp_path), "they ended")
    _wait(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in watchers), "the watcher ended")
