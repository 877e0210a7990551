"""Runs one contestant in a process of its own and prints its time and memory. Called by `python -m bench`."""

from __future__ import annotations

import json
import os
import resource
import sys
import time

from bench.contestants import CONTESTANTS, connect
from bench.data import DataSet


def main() -> None:
    """Take name, merchants and days from the arguments, the servers from the environment."""
    name, merchants, days = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    client, conn = connect(os.environ["USAGE_REDIS_URL"], os.environ["USAGE_POSTGRES_URL"])
    client.ping()
    started = time.perf_counter()
    CONTESTANTS[name](client, conn, DataSet(merchants, days))
    seconds = time.perf_counter() - started
    # Linux counts kilobytes, macOS bytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": seconds, "megabytes": peak}))


if __name__ == "__main__":
    main()
