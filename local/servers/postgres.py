"""A local PostgreSQL server."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

import psycopg
from psycopg import sql

from local.servers.processes import ServerError, write_private
from local.servers.programs import Programs, chosen_version, find_postgres, required, runs_as, wheel_postgres
from local.servers.unprivileged import UnprivilegedServer


class Postgres(UnprivilegedServer):
    """A PostgreSQL server with one superuser, `usage`, and a database `usage`."""

    _program = "postgres"
    # PostgreSQL's "fast" shutdown: sessions are cut off, and what was committed is written out.
    _stop_signal = signal.SIGINT

    def __init__(
        self,
        folder: Path | None = None,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        version: int | None = None,
    ) -> None:
        """Describe the server; `settings` are those of postgresql.conf, and win over ours.

        `version` is a major version, as Debian builds it. None is what LOCAL_POSTGRES names, and else the wheel's.
        """
        super().__init__(folder, port=port)
        self._version = version or chosen_version()
        self._settings = dict(settings or {})

    @property
    def url(self) -> str:
        """The address of the database `usage`, with the password."""
        return self.url_of("usage")

    def url_of(self, database: str) -> str:
        """Give the address of a database, which need not exist yet."""
        return f"postgresql://usage:{self._password}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    def create_database(self, name: str) -> str:
        """Create the database unless it is there, and return its address."""
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url_of(name)

    def _prepare(self) -> None:
        super()._prepare()
        self._programs = self._find_programs().for_user("postgres", self._home)
        if not self._data.exists():
            self._initialise()

    def _find_programs(self) -> Programs:
        if self._version is None:
            return wheel_postgres()
        return required(find_postgres(self._version), f"PostgreSQL {self._version}")

    def _initialise(self) -> None:
        """Make the cluster, in a draft first: a half-made one must never look like a whole one."""
        draft, password_file = self._home / "data.new", self._home / "password.initdb"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        write_private(password_file, self._password)
        user = runs_as()
        if user is not None:
            os.chown(draft, user, user)
            os.chown(password_file, user, user)
        try:
            self._programs.run(
                "initdb",
                f"--pgdata={draft}",
                f"--pwfile={password_file}",
                "--username=usage",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                # Nothing is lost when the power fails during initdb: the next start makes the cluster anew.
                "--no-sync",
            )
        except subprocess.CalledProcessError as error:
            raise ServerError(f"initdb failed in {self._home}:\n{error.stdout.decode(errors='replace')}") from error
        finally:
            password_file.unlink()
        draft.rename(self._data)

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        # No server runs on this data (`start` saw to it), so a pid in this file is a stranger's by now.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        settings = {
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            # TCP only: the path of a socket may have 107 bytes at most, and folders can be longer than that.
            "unix_socket_directories": "",
            **self._settings,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return self._run_unprivileged("postgres", "-D", self._data, *options, log=log)

    def _complete(self) -> None:
        self.create_database("usage")

    def _ping(self) -> None:
        with psycopg.connect(self.url_of("postgres"), connect_timeout=2):
            pass
