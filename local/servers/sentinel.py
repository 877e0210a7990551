"""A local Redis Sentinel: what tells clients which server is the primary now."""

import signal
import subprocess
from typing import IO

from local.servers.base import Server
from local.servers.processes import write_private
from local.servers.programs import find_sentinel, required
from local.servers.valkey import Valkey, ping


class Sentinel(Server):
    """One Sentinel that watches a server, by the name `usage`, and decides alone who is the primary."""

    _program = "redis-sentinel"
    _stop_signal = signal.SIGTERM

    def __init__(self, primary: Valkey) -> None:
        """Describe the server."""
        super().__init__()
        self._primary = primary

    @property
    def url(self) -> str:
        """The address of the Sentinel itself, with its password."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}"

    def _prepare(self) -> None:
        self._programs = required(find_sentinel(), "Redis Sentinel")
        self._data.mkdir(exist_ok=True)

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self._password}",
            f"sentinel monitor usage 127.0.0.1 {self._primary.port} 1",
            f"sentinel auth-pass usage {self._primary.password}",
            # Seconds, not the default's half a minute: somebody waits for a failover.
            "sentinel down-after-milliseconds usage 1000",
        ]
        # Sentinel writes to it what it learns.
        write_private(self._data / "sentinel.conf", "\n".join(lines) + "\n")
        return self._run_in_background(
            [self._programs.folder / "redis-sentinel", "sentinel.conf"], log, self._programs.environment
        )

    def _ping(self) -> None:
        ping(self.url)
