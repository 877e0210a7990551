"""Clusters for the tests of this folder: one for those that only read it, and a new one for those that change it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from psycopg import Connection

from merchant_usage.connections import redis_from_url
from tests.cluster.servers import Cluster, running_cluster
from tests.cluster.usage import ClusterUsage


@pytest.fixture(scope="session")
def steady_servers(server_folder: Path) -> Iterator[Cluster]:
    """Three primaries that keep their slots and places, each with a replica."""
    with running_cluster(server_folder / "steady-cluster", replicas=True) as cluster:
        yield cluster


@pytest.fixture
def steady(steady_servers: Cluster) -> Cluster:
    """The same, without a key."""
    for primary in steady_servers.primaries:
        primary.client.flushall()
    return steady_servers


@pytest.fixture
def changing(server_folder: Path, tmp_path: Path) -> Iterator[Cluster]:
    """Three primaries and their replicas, for one test to change as it likes."""
    with running_cluster(server_folder / f"cluster-{tmp_path.name}", replicas=True) as cluster:
        yield cluster


@pytest.fixture
def usage(steady: Cluster, database: Connection) -> Iterator[ClusterUsage]:
    """An empty cluster and a migrated database, and verbs for them."""
    with redis_from_url({"USAGE_REDIS_URL": steady.url}) as client:
        yield ClusterUsage(client, database, count(1))  # type: ignore[arg-type]  # a cluster's client does as well
