"""Keeps what was told in a file, for the time in which PostgreSQL cannot: its outage may be the very news.

When the file cannot be used either, a full disk being the cause of all, say, a process remembers for itself: better
some messages too many than none.
"""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from merchant_usage.alerts.alert import AlertKind
from merchant_usage.alerts.register import Entry, Register
from merchant_usage.log import Log
from merchant_usage.settings import DAG_ID

log = Log(__name__)

#: Older entries are of another outage.
MAX_AGE: Final = dt.timedelta(days=2)

# What no file took. Lost with the process.
_remembered: dict[str, Entry] = {}


def folder() -> Path:
    """Where the file lies: on this machine, and only for this user's Airflow of this home."""
    home = hashlib.sha256(os.environ.get("AIRFLOW_HOME", "").encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"{DAG_ID}-alerts-{os.getuid()}-{home}"


@contextmanager
def register(now: dt.datetime) -> Iterator[Register]:
    """The register of this machine, for one process at a time."""
    with ExitStack() as stack:
        file: int | None = None
        entries = list(_remembered.values())
        try:
            file = stack.enter_context(_locked())
            entries += _read(file)
        except OSError as error:
            log.warning(f"What is told cannot be kept in {folder()}: {error.strerror or error}")
        found = Register()
        found.take_over(entry for entry in entries if entry.raised_at > now - MAX_AGE)
        yield found
        try:
            if file is not None:
                _write(file, list(found.entries.values()))
        except OSError as error:
            log.warning(f"What is told cannot be kept in {folder()}: {error.strerror or error}")
            file = None
        if file is None:
            _remembered.update(found.entries)
        else:
            _remembered.clear()


def read_entries() -> list[Entry]:
    """What was raised here while PostgreSQL was down, as far as it can be read."""
    found = list(_remembered.values())
    with suppress(OSError):
        if _path().exists():
            with _locked() as file:
                found += _read(file)
    return found


def forget(entries: Iterable[Entry]) -> None:
    """PostgreSQL has these now.

    Raises:
        OSError: the file cannot be used.
    """
    gone = list(entries)
    for entry in gone:
        _remembered.pop(entry.key, None)
    if gone and _path().exists():
        with _locked() as file:
            _write(file, [entry for entry in _read(file) if entry not in gone])


def _path() -> Path:
    return folder() / "alerts.json"


@contextmanager
def _locked() -> Iterator[int]:
    folder().mkdir(mode=0o700, exist_ok=True)
    # The name can be foreseen: whoever made this folder before us must not lead us elsewhere, or read along.
    status = folder().lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or not folder().is_dir():
        raise PermissionError(f"{folder()} belongs to somebody else")
    file = os.open(_path(), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _read(file: int) -> list[Entry]:
    os.lseek(file, 0, os.SEEK_SET)
    with os.fdopen(os.dup(file), encoding="utf-8") as reader:
        try:
            rows: list[dict[str, Any]] = list(json.loads(reader.read() or "[]"))
        except (ValueError, TypeError):  # cut short when the disk was full, say
            return []
    entries = []
    for row in rows:
        # Of another version of this program, say.
        with suppress(ValueError, TypeError, KeyError):
            entries.append(
                Entry(
                    row["key"],
                    AlertKind(row["kind"]),
                    dt.datetime.fromisoformat(row["raised_at"]),
                    row["run_id"],
                    row["sent"],
                    row["resolved_at"] and dt.datetime.fromisoformat(row["resolved_at"]),
                )
            )
    return entries


def _write(file: int, entries: list[Entry]) -> None:
    rows = [
        {
            "key": entry.key,
            "kind": str(entry.kind),
            "raised_at": entry.raised_at.isoformat(),
            "run_id": entry.run_id,
            "sent": entry.sent,
            "resolved_at": entry.resolved_at and entry.resolved_at.isoformat(),
        }
        for entry in entries
    ]
    data = json.dumps(rows).encode()
    os.ftruncate(file, 0)
    if os.pwrite(file, data, 0) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
