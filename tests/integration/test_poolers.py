"""Behind PgBouncer in transaction mode: no session of ours is the same server for longer than a transaction."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import psycopg
import redis

from local.servers import Postgres, Valkey
from merchant_usage import pipeline
from merchant_usage.connections import prepare
from merchant_usage.model.run import Run
from tests.support import NOW, TODAY, YESTERDAY, StartPgbouncer, Usage, key, settings

RUNS = 5
# Ten pages a date and run, so that a driver would prepare what it sends.
MERCHANTS = 10_000


def test_five_runs_at_once_share_two_servers(
    usage: Usage, valkey: Valkey, postgres: Postgres, database_url: str, pgbouncer: StartPgbouncer
) -> None:
    counters = {key(f"m{n}", day): n for n in range(MERCHANTS) for day in (YESTERDAY, TODAY)}
    usage.write(counters)
    url = pgbouncer(postgres, 2).through(database_url)

    def run(number: int) -> set[str]:
        with redis.Redis.from_url(valkey.url) as client, closing(psycopg.connect(url)) as conn:
            asked = Run(f"pooled {number}", "manual", (YESTERDAY, TODAY), NOW)
            proof = pipeline.aggregate(client, prepare(conn), asked, settings(max_mapped_tasks=4))
            return {str(report.verdict) for report in proof.reports}

    with ThreadPoolExecutor(RUNS) as pool:
        assert list(pool.map(run, range(RUNS))) == [{"verified"}] * RUNS
    assert usage.rows() == counters
