"""What servers share that refuse to run as root: as root, they run as "nobody"."""

import shutil
import subprocess
from pathlib import Path
from typing import IO

from local.servers.base import Server
from local.servers.processes import ServerError
from local.servers.programs import Programs, make_refuge, others_can_enter, runs_as


class UnprivilegedServer(Server):
    """A server whose data lies where "nobody" can reach it, if that is who it runs as."""

    _programs: Programs

    @property
    def _home(self) -> Path:
        """The folder itself; or, as root and when "nobody" cannot enter it, the refuge it has elsewhere."""
        refuge = self.folder / "refuge"
        return refuge.readlink() if refuge.is_symlink() else self.folder

    @property
    def _data(self) -> Path:
        return self._home / "data"

    @property
    def _folder_mode(self) -> int:
        # "nobody" must be able to pass through, but not to list.
        return 0o700 if runs_as() is None else 0o711

    def _prepare(self) -> None:
        refuge = self.folder / "refuge"
        if not self._home.exists():
            raise ServerError(f"The data was in {self._home}, which is gone: remove {self.folder} and start again.")
        if runs_as() is not None and not refuge.is_symlink() and not others_can_enter(self.folder):
            refuge.symlink_to(make_refuge())

    def _run_unprivileged(self, program: str, *arguments: str | Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start one of `_programs` in the data folder, as the right user."""
        command = [self._programs.folder / program, *arguments]
        return self._run_in_background(command, log, self._programs.environment, runs_as())

    def _delete(self) -> None:
        shutil.rmtree(self._home)
        # The folder still stands if its home was elsewhere.
        shutil.rmtree(self.folder, ignore_errors=True)
