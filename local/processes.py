"""Finds and ends all processes of one working directory, also after the process that started them was killed.

Run as `python -m local.processes FOLDER` it waits for the end of its input, which only its parent holds open, and then
ends what works in the folder. (An environment variable would be a plainer mark, but Airflow's processes write their
titles over the place where the system shows it; and they form sessions and groups of their own.)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

PROJECT: Final = Path(__file__).resolve().parent.parent
# After the parent's death: long enough for a farewell, short enough for who starts it again at once.
GRACE_SECONDS: Final = 3
KILL_SECONDS: Final = 10


def _is_python(process: psutil.Process) -> bool:
    """Whether it is Airflow's, or any Python. A shell that somebody has open in a folder is not ours."""
    named = " ".join([process.name(), *process.cmdline()[:1]]).lower()
    return any(word in named for word in ("python", "airflow"))


def processes_in(folder: Path, is_ours: Callable[[psutil.Process], bool] = _is_python) -> list[psutil.Process]:
    """Those of our processes whose working directory is `folder`, but for this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()) == folder and is_ours(process):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # It has just ended (a zombie too has no directory), or it is another user's: not ours either way.
            continue
    return found


def end_processes(folder: Path, *, grace_seconds: float) -> None:
    """Ask them to end, and end those that have not after the grace.

    Raises:
        TimeoutError: some cannot be ended.
    """
    start = time.monotonic()
    asked: set[int] = set()
    while processes := processes_in(folder):
        waited = time.monotonic() - start
        if waited > grace_seconds + KILL_SECONDS:
            pids = ", ".join(str(process.pid) for process in processes)
            raise TimeoutError(f"Processes working in {folder} do not end: {pids}.")
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                if waited >= grace_seconds:
                    process.kill()
                elif process.pid not in asked:
                    process.terminate()
        asked.update(process.pid for process in processes)
        time.sleep(0.05)


class Watcher:
    """Another process, which acts when this one is gone, however it went (SIGKILL too).

    It waits for the end of a pipe that only this process holds open. Unlike Linux's PR_SET_PDEATHSIG this also works on
    macOS, and is not tied to the thread that started what is watched over.
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Not in the terminal's group: Ctrl-C must reach this process first, never the watcher.
            start_new_session=True,
            cwd=folder,
        )

    def dismiss(self) -> None:
        """Let it end without acting."""
        self._process.kill()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


class FolderWatcher(Watcher):
    """Ends all processes that work in a folder when this process is gone."""

    def __init__(self, folder: Path) -> None:
        """Watch `folder`, which must be without symbolic links."""
        super().__init__([sys.executable, "-m", "local.processes", str(folder)], PROJECT)


def main() -> None:
    """Wait until the parent is gone, then end the processes of the folder named on the command line."""
    sys.stdin.buffer.read()
    end_processes(Path(sys.argv[1]), grace_seconds=GRACE_SECONDS)


if __name__ == "__main__":
    main()
