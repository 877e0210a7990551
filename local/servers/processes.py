"""Small helpers about processes, ports and folders, for the servers beside this file."""

import fcntl
import os
import secrets
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import psutil

from local.processes import KILL_SECONDS, Watcher, processes_in

# A server's locale must not depend on whose machine it is, nor should a PGPORT of the user's reach it.
SERVER_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


class ServerError(RuntimeError):
    """A local server could not be started, stopped or used. The message says which, why and what to do."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on now (somebody may take it before you do)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def lock_folder(folder: Path) -> TextIO:
    """Hold `folder` for this process until the returned file is closed, or the process ends in any way."""
    lock = (folder / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip()
        lock.close()
        raise ServerError(
            f"{folder} is in use by the running process {holder}: end that one first, or take another folder."
        ) from None
    lock.truncate(0)
    lock.write(f"{os.getpid()}")
    lock.flush()
    return lock


def write_private(path: Path, text: str) -> None:
    """Write `text` to a file that only its owner can read, from its first byte on."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(text, encoding="utf-8")


def keep_password(folder: Path) -> str:
    """Return the password kept in `folder`; make one the first time. It needs no quoting anywhere."""
    path = folder / "password"
    if not path.exists():
        # A rename, so that no half-written password is ever read.
        draft = folder / "password.new"
        write_private(draft, secrets.token_hex(16))
        draft.replace(path)
    return path.read_text(encoding="utf-8")


def kill_processes_in(folder: Path, name: str) -> None:
    """End at once the processes called `name` that work in `folder`: one server's, no one else's."""

    def is_ours(process: psutil.Process) -> bool:
        return process.name() == name

    deadline = time.monotonic() + KILL_SECONDS
    # Asked again and again, not waited for: in a container nobody may ever reap what a killed parent left.
    while processes := processes_in(folder, is_ours):
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in processes)
            raise ServerError(f"{name} in {folder} does not end: {pids}.")
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.01)


class ServerWatcher(Watcher):
    """Signals a server when this process is gone, however it went (SIGKILL too)."""

    def __init__(self, pid: int, farewell: signal.Signals) -> None:
        """Watch on behalf of the server `pid`, which will get the signal `farewell`."""
        super().__init__(["/bin/sh", "-c", f"read -r line; kill -{farewell.value} {pid}"], Path("/"))
