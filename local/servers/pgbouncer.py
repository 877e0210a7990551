"""A local PgBouncer: what stands between many clients and few sessions of PostgreSQL."""

import os
import signal
import subprocess
from typing import IO
from urllib.parse import urlsplit

import psycopg

from local.servers.postgres import Postgres
from local.servers.processes import write_private
from local.servers.programs import find_pgbouncer, required, runs_as
from local.servers.unprivileged import UnprivilegedServer


class Pgbouncer(UnprivilegedServer):
    """A PgBouncer in transaction mode in front of all databases and roles of a PostgreSQL."""

    _program = "pgbouncer"
    # "Fast" shutdown for PgBouncer is SIGTERM; with SIGINT it waits for its clients.
    _stop_signal = signal.SIGTERM

    def __init__(self, postgres: Postgres, *, pool_size: int = 2) -> None:
        """Describe the server; `pool_size` is how many sessions of PostgreSQL a database and role share."""
        super().__init__()
        self._postgres = postgres
        self._pool_size = pool_size

    @property
    def url(self) -> str:
        """The address of the database `usage` through it, with the password."""
        return self.through(self._postgres.url)

    @property
    def password(self) -> str:
        """PostgreSQL's."""
        return self._postgres.password

    def through(self, url: str) -> str:
        """Give the address that leads to the same database of PostgreSQL as the same role, by way of this one."""
        parts = urlsplit(url)
        login, _, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{login}@127.0.0.1:{self.port}").geturl()

    def _prepare(self) -> None:
        super()._prepare()
        self._programs = required(find_pgbouncer(), "PgBouncer").for_user("pgbouncer", self._home)
        self._data.mkdir(mode=0o700, exist_ok=True)

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "pool_mode": "transaction",
            "default_pool_size": str(self._pool_size),
            "max_client_conn": "200",
            "auth_type": "scram-sha-256",
            "auth_file": "users",
            # Of other roles PostgreSQL itself is asked.
            "auth_user": "usage",
            "admin_users": "usage",
        }
        lines = [
            "[databases]",
            f"* = host=127.0.0.1 port={self._postgres.port}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        write_private(self._data / "pgbouncer.ini", "\n".join(lines) + "\n")
        write_private(self._data / "users", f'"usage" "{self.password}"\n')
        user = runs_as()
        if user is not None:
            for path in (self._data, *self._data.iterdir()):
                os.chown(path, user, user)
        return self._run_unprivileged("pgbouncer", "pgbouncer.ini", log=log)

    def _ping(self) -> None:
        with psycopg.connect(self.through(self._postgres.url_of("pgbouncer")), connect_timeout=2):
            pass
