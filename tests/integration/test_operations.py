"""What is sent to Redis and PostgreSQL is counted: requests, not keys."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import redis
from psycopg import Connection
from redis.cluster import RedisCluster

from local.servers import Valkey
from local.servers.processes import free_port
from merchant_usage.orchestration.request_counts import count_requests, count_statements
from tests.scheduler.world import wait_until

KEYS = [f"usage:{n}" for n in range(100)]


class Tally:
    """Counts calls; `since` tells how many came since it was asked last."""

    def __init__(self) -> None:
        self._count, self._told = count(), 0

    def __call__(self) -> None:
        self._now = next(self._count) + 1

    def since(self) -> int:
        seen, self._told = self._now - self._told, self._now
        return seen


@pytest.fixture
def cluster(server_folder: Path) -> Iterator[RedisCluster]:
    """A cluster of one primary."""
    # The port of the cluster's own talk would be 10 000 above the other, and that is too high for some.
    configuration = ["cluster-enabled yes", f"cluster-port {free_port()}"]
    with Valkey(server_folder / "cluster-of-one", extra_config=configuration) as server:
        with redis.Redis.from_url(server.url) as node:
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: b"cluster_state:ok" in node.execute_command("CLUSTER", "INFO"), "the cluster is up")
        with RedisCluster.from_url(server.url) as client:
            yield client


def test_requests_to_redis(redis_client: redis.Redis) -> None:
    tally = Tally()
    count_requests(redis_client, tally)
    redis_client.ping()
    assert tally.since() > 1, "opening the connection takes some"
    redis_client.mget(KEYS)
    assert tally.since() == 1
    pipeline = redis_client.pipeline(transaction=False)
    for each in KEYS:
        pipeline.ttl(each)
    pipeline.execute()
    assert tally.since() == 1
    for each in KEYS:
        redis_client.get(each)
    assert tally.since() == len(KEYS)


def test_requests_to_a_cluster(cluster: RedisCluster) -> None:
    tally = Tally()
    count_requests(cluster, tally)
    cluster.set("usage:a", 1)
    tally.since()
    pipeline = cluster.pipeline()
    for each in KEYS:
        pipeline.get(each)
    assert pipeline.execute() == [None] * len(KEYS)
    assert tally.since() == 1
    assert cluster.get("usage:a") == b"1"
    assert tally.since() == 1


def test_statements_to_postgresql(database: Connection) -> None:
    tally = Tally()
    count_statements(database, tally)
    with database.transaction():
        database.execute("CREATE TEMPORARY TABLE numbers (n int)")
        assert tally.since() == 1
        with database.cursor() as cursor, cursor.copy("COPY numbers FROM STDIN") as copy:
            copy.write("".join(f"{n}\n" for n in range(1000)))
        assert tally.since() == 1
        with database.cursor(name="numbers") as cursor:
            cursor.itersize = 10
            assert len(cursor.execute("SELECT n FROM numbers").fetchall()) == 1000
        assert tally.since() == 1
        database.cursor().executemany("INSERT INTO numbers VALUES (%s)", [[1], [2]])
        assert tally.since() == 1
