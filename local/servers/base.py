"""What every local server does: it is started in a folder, waited for, stopped, killed and started again."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, ClassVar, TextIO

import psycopg
import redis

from local.servers.processes import (
    SERVER_ENVIRONMENT,
    ServerError,
    ServerWatcher,
    free_port,
    keep_password,
    kill_processes_in,
    lock_folder,
)
from local.startable import Startable

START_SECONDS = 30
STOP_SECONDS = 30
PORT_ATTEMPTS = 5


class Server(Startable):
    """One server process and its folder."""

    _program: ClassVar[str]
    _stop_signal: ClassVar[signal.Signals]

    def __init__(self, folder: Path | None = None, *, port: int | None = None) -> None:
        """Describe a server in `folder` (None: a temporary one) on `port` (None: any free one, then kept)."""
        self._given_folder = folder
        self._folder: Path | None = None
        self._port = port
        self._password = ""
        self._lock: TextIO | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: ServerWatcher | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """The address a client connects to, with the password."""

    @property
    def folder(self) -> Path:
        """Where the server's data, log and password are."""
        if self._folder is None:
            raise ServerError(f"{self._program} was not started yet: it has no folder.")
        return self._folder

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._port is None:
            raise ServerError(f"{self._program} was not started yet: it has no port.")
        return self._port

    @property
    def password(self) -> str:
        """The password of its only user."""
        return self._password

    @property
    def log(self) -> Path:
        """The file with all that the server said."""
        return self.folder / "log"

    @property
    def pid(self) -> int:
        """The process id of the server (PostgreSQL: of the postmaster)."""
        if self._process is None:
            raise ServerError(f"{self._program} is not running.")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def _start(self) -> None:
        self._forget_process()
        self._open_folder()
        self._prepare()
        kill_processes_in(self._data, self._program)
        self._launch()
        self._complete()

    def stop(self) -> None:
        """End it in good order (after 30 seconds by SIGKILL). Its data and port stay for the next start."""
        if self._process is not None and self.running:
            self._process.send_signal(self._stop_signal)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        self._forget_process()

    def kill(self) -> None:
        """End it as a crash would: SIGKILL to the server and to all of its children."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._forget_process()
        kill_processes_in(self._data, self._program)

    def restart(self) -> None:
        """Stop it in good order and start it again: same port, same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop it for good, let go of the folder, and delete the folder if it is a temporary one."""
        self.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None
            if self._given_folder is None:
                self._delete()
                self._folder = None

    @property
    def _data(self) -> Path:
        """The server's working directory, without symbolic links."""
        return self.folder / "data"

    @property
    def _folder_mode(self) -> int:
        return 0o700

    @abstractmethod
    def _prepare(self) -> None:
        """Make ready what the server wants to find in its folder, before a port is chosen."""

    @abstractmethod
    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the process on `self.port`."""

    @abstractmethod
    def _ping(self) -> None:
        """Return when the server answers; raise its client's error when it does not yet."""

    def _run_in_background(
        self,
        command: Sequence[str | Path],
        log: IO[bytes],
        environment: Mapping[str, str] = SERVER_ENVIRONMENT,
        user: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start the server's program in its data folder, as this user and group if it is not to be the caller."""
        return subprocess.Popen(
            command,
            cwd=self._data,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C in a terminal is for this process, which then stops its servers in good order.
            start_new_session=True,
            # Some write a file with passwords anew, as readable as this lets it be.
            umask=0o077,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )

    def _complete(self) -> None:
        """Do what can only be done on the running server."""

    def _delete(self) -> None:
        shutil.rmtree(self.folder)

    def _open_folder(self) -> None:
        if self._folder is None:
            if self._given_folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix=f"{self._program}-")).resolve()
                self._folder.chmod(self._folder_mode)
            else:
                self._folder = self._given_folder.expanduser().resolve()
                if not self._folder.exists():
                    self._folder.mkdir(parents=True)
                    self._folder.chmod(self._folder_mode)
        if self._lock is None:
            self._lock = lock_folder(self._folder)
        self._password = keep_password(self._folder)

    def _launch(self) -> None:
        """Start on the chosen port; if that was any free one and somebody took it meanwhile, on another."""
        port_is_fixed = self._port is not None
        for _ in range(PORT_ATTEMPTS):
            if not port_is_fixed:
                self._port = free_port()
            with self.log.open("a+b") as log:
                log_start = log.seek(0, os.SEEK_END)
                self._process = self._spawn(log)
                self._watcher = ServerWatcher(self._process.pid, self._stop_signal)
                trouble = self._wait_until_ready()
                if trouble is None:
                    return
                log.seek(log_start)
                said = log.read().decode(errors="replace")
            self.kill()
            if port_is_fixed or "ddress already in use" not in said:
                break
        last_lines = "\n".join(said.splitlines()[-10:])
        raise ServerError(
            f"{self._program} did not start in {self.folder} on port {self._port}: {trouble}\n"
            f"The last lines of its log:\n{last_lines}"
        )

    def _wait_until_ready(self) -> str | None:
        """Return None when it answers, and else what the trouble is."""
        deadline = time.monotonic() + START_SECONDS
        while self.running:
            try:
                self._ping()
            except (redis.RedisError, psycopg.OperationalError) as error:
                if time.monotonic() > deadline:
                    return f"no answer within {START_SECONDS} seconds ({error})."
            else:
                return None
            # Nothing tells when a server begins to answer, so ask again soon: it takes 0.1 s or so.
            time.sleep(0.02)
        return "the process ended."

    def _forget_process(self) -> None:
        if self._watcher is not None:
            self._watcher.dismiss()
        self._watcher = self._process = None
