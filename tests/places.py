"""Where tests put the files of their servers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")
# What the servers of a test session write at most, WAL included. Containers often have 64 MB.
ROOM: Final = 4 << 30


def folder_in_memory() -> Path | None:
    """A folder whose files are kept in memory, for `TemporaryDirectory`; None, the usual place, where there is none.

    Each test has a database of its own, and each Airflow one of its metadata: three hundred files, which take ten times
    as long to make on a disk that is busy.
    """
    if os.access(MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(MEMORY).free >= ROOM:
        return MEMORY
    return None
