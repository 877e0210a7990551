"""`./run bench`: all contestants in turn, several rounds, on real servers; medians, and ratios to the floor."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable

import psycopg
import redis
from rich.console import Console
from rich.table import Table

from bench.data import DataSet
from include.usage import schema
from include.usage.connections import prepare
from local.servers import Postgres, Valkey

# The original needs minutes for what the others do in a second.
ORIGINAL_UP_TO = 10_000

Measured = dict[str, float]


def main() -> None:
    """Start servers, run everything, print a table (and JSON if asked)."""
    options = _options()
    measured: dict[str, list[Measured]] = defaultdict(list)
    with Valkey() as valkey, Postgres() as postgres:
        client = redis.Redis.from_url(valkey.url)
        with psycopg.connect(postgres.url, autocommit=True) as conn:
            schema.migrate(prepare(conn))
            data = DataSet(options.merchants, options.days)
            for number in range(options.rounds):
                client.flushall()
                data.write(client)

                def run(name: str, contestant: str, *, empty: bool) -> None:
                    if empty:
                        conn.execute("TRUNCATE merchant_usage, usage_run")
                    # Nobody pays for what another left to be written.
                    conn.execute("CHECKPOINT")
                    measured[name].append(_measure(contestant, data, valkey.url, postgres.url))

                _round(run, data, client)
                print(f"round {number + 1} of {options.rounds} done", file=sys.stderr)
    results = {name: _median(runs) for name, runs in measured.items()}
    _show(results, data, options.rounds)
    if options.json:
        print(json.dumps({"keys": data.wanted, "days": data.days, "rounds": options.rounds, "results": results}))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("--merchants", type=int, default=10_000, help="with ten metrics each (default 10000)")
    parser.add_argument("--days", type=int, default=2, help="days in Redis, of which one is wanted (default 2)")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over so many (default 3)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON too")
    return parser.parse_args()


def _round(run: Callable[..., None], data: DataSet, client: redis.Redis) -> None:
    run("floor: read and discard, COPY + upsert of ready rows", "floor", empty=True)
    if data.wanted <= ORIGINAL_UP_TO:
        run("original: a GET and a transaction a key", "original", empty=True)
    run("plain: MGET and executemany", "plain", empty=True)
    run("this project, first load", "engine", empty=True)
    run("this project, again, nothing changed", "engine", empty=False)
    data.grow(client)
    run("this project, again, 10 % changed", "engine", empty=False)


def _measure(contestant: str, data: DataSet, redis_url: str, postgres_url: str) -> Measured:
    finished = subprocess.run(
        [sys.executable, "-m", "bench.one", contestant, str(data.merchants), str(data.days)],
        env={**os.environ, "USAGE_REDIS_URL": redis_url, "USAGE_POSTGRES_URL": postgres_url},
        stdout=subprocess.PIPE,
        check=True,
    )
    measured: Measured = json.loads(finished.stdout)
    return measured


def _median(runs: list[Measured]) -> Measured:
    return {figure: statistics.median(run[figure] for run in runs) for figure in runs[0]}


def _show(results: dict[str, Measured], data: DataSet, rounds: int) -> None:
    floor = next(iter(results.values()))["seconds"]
    table = Table(
        title=f"{data.wanted:,} keys of {data.wanted * data.days:,}, medians of {rounds} rounds, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}"
    )
    for heading in ("contestant", "seconds", "of the floor", "keys a second", "MB"):
        table.add_column(heading, justify="left" if heading == "contestant" else "right")
    for name, figures in results.items():
        seconds = figures["seconds"]
        table.add_row(
            name,
            f"{seconds:.2f}",
            f"{seconds / floor:.2f}",
            f"{data.wanted / seconds:,.0f}",
            f"{figures['megabytes']:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
