"""Runs one contestant in a process of its own and prints its time and memory. Started by `bench.running`."""

from __future__ import annotations

import json
import logging
import os
import sys
import time

from bench.contestants import CONTESTANTS, Servers
from bench.data import DataSet
from bench.memory import peak_megabytes


def main() -> None:
    """Take the contestant and the data set from the arguments, the servers from the environment."""
    # What a run warns of is right for these keys (they have no TTL), and would be said a hundred times.
    logging.disable(logging.WARNING)
    name, data = sys.argv[1], DataSet(**json.loads(sys.argv[2]))
    servers = Servers.connect(os.environ["USAGE_REDIS_URL"], os.environ["USAGE_POSTGRES_URL"])
    contestant = CONTESTANTS.get(name)
    if contestant is None:
        # The others do not pay for our imports.
        from bench.engine import ENGINES

        contestant = ENGINES[name]
    work = contestant(servers, data)
    started = time.perf_counter()
    figures = work()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "megabytes": peak_megabytes(), **figures}))


if __name__ == "__main__":
    main()
