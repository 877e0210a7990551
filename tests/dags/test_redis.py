"""Redis as production has it: a cluster, behind TLS, and a user who may do no more than the docs name."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from local.servers import Valkey
from merchant_usage import clock
from merchant_usage.connections import redis_from_url
from merchant_usage.orchestration.connections import usage_redis
from tests.cluster.servers import Cluster, running_cluster, wait_until
from tests.dags.support import Dag
from tests.support import PROJECT, Usage, key, raw
from tests.tls import tls_in_front_of
from tests.webhooks import make_certificate

# Not yesterday: the tests may run in the hours in which that still settles.
DAY = clock.now().date() - dt.timedelta(days=3)
CONF = {"from_date": str(DAY), "to_date": str(DAY)}
COUNTERS = {key(f"m{n}", DAY, metric): n for n in range(300) for metric in ("queries", "bytes")}

USER, PASSWORD = "reader", "a-word"
RIGHTS = ("+scan", "+mget", "+get", "+type")
RIGHTS_ON_A_CLUSTER = ("+command", "+cluster|slots", "+cluster|nodes")


@dataclass(frozen=True)
class SecureRedis:
    """Where it is, in the words of Airflow and in those of the command line."""

    port: int
    certificate: Path
    is_cluster: bool

    @property
    def connection(self) -> str:
        extra = {"ssl": True, "ssl_ca_certs": str(self.certificate)} | ({"cluster": True} if self.is_cluster else {})
        server = {"conn_type": "redis", "host": "127.0.0.1", "port": self.port}
        return json.dumps({**server, "login": USER, "password": PASSWORD, "extra": extra})

    @property
    def url(self) -> str:
        options = "&cluster=true" if self.is_cluster else ""
        return f"rediss://{USER}:{PASSWORD}@127.0.0.1:{self.port}?ssl_ca_certs={self.certificate}{options}"


def let_in(client: redis.Redis, *rights: str) -> None:
    client.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", "~usage:*", *rights)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("tls") / "redis.pem")


@pytest.fixture
def one_server(valkey: Valkey, usage: Usage, certificate: Path) -> Iterator[SecureRedis]:
    """The Redis of the other tests."""
    usage.write(COUNTERS)
    let_in(usage.client, *RIGHTS)
    with tls_in_front_of([valkey.port], certificate) as (port,):
        yield SecureRedis(port, certificate, is_cluster=False)
    usage.client.execute_command("ACL", "DELUSER", USER)


@pytest.fixture
def a_cluster(server_folder: Path, certificate: Path, tmp_path: Path) -> Iterator[SecureRedis]:
    """Three primaries, which tell their clients of the ports in front of them."""
    with running_cluster(server_folder / f"secure-cluster-{tmp_path.name}") as cluster:
        with redis.RedisCluster.from_url(cluster.primaries[0].url) as client:
            for counter, value in COUNTERS.items():
                client.set(raw(counter), value)
        for primary in cluster.primaries:
            let_in(primary.client, *RIGHTS, *RIGHTS_ON_A_CLUSTER)
        with tls_in_front_of([primary.port for primary in cluster.primaries], certificate) as ports:
            for primary, port in zip(cluster.primaries, ports, strict=True):
                primary.client.config_set("cluster-announce-port", port)
            wait_until(lambda: all(told_ports(cluster, number) == set(ports) for number in range(len(ports))))
            assert all(primary.client.dbsize() > len(COUNTERS) / 6 for primary in cluster.primaries)
            yield SecureRedis(ports[0], certificate, is_cluster=True)


def told_ports(cluster: Cluster, number: int) -> set[int]:
    """Where a primary sends clients."""
    addresses = (line.split()[1] for line in cluster.primaries[number].ask("NODES").splitlines())
    return {int(address.split("@")[0].rpartition(":")[2]) for address in addresses}


@pytest.mark.parametrize("kind", ["one_server", "a_cluster"])
def test_the_dag_and_the_command_line_by_tls_as_a_user_of_few_rights(
    dag: Dag, usage: Usage, database_url: str, request: pytest.FixtureRequest, kind: str
) -> None:
    secure: SecureRedis = request.getfixturevalue(kind)
    ended = dag.run(
        CONF, AIRFLOW_CONN_USAGE_REDIS=secure.connection, USAGE_MAX_MAPPED_TASKS="4", USAGE_BATCH_COUNTERS="1"
    )
    assert ended.state == "success"
    assert usage.ledger(ended.run_id) == {DAY: ("verified", None)}
    assert usage.rows() == COUNTERS
    assert PASSWORD not in ended.log

    compared = subprocess.run(
        [sys.executable, "-m", "merchant_usage", "verify", "--date", str(DAY), "--json"],
        cwd=PROJECT,
        env={**os.environ, "USAGE_REDIS_URL": secure.url, "USAGE_POSTGRES_URL": database_url},
        capture_output=True,
        check=False,
    )
    assert compared.returncode == 0, compared.stderr
    assert json.loads(compared.stdout)["dates"][0]["keys"] == {"match": len(COUNTERS)}


def test_a_silent_node_is_waited_for_as_the_connection_says(
    a_cluster: SecureRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.loads(a_cluster.connection)
    connection["extra"]["socket_timeout"] = 7
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_REDIS", json.dumps(connection))
    for opened in (usage_redis(), redis_from_url({"USAGE_REDIS_URL": f"{a_cluster.url}&socket_timeout=7"})):
        with opened as client:
            assert isinstance(client, redis.RedisCluster)
            for node in client.get_nodes():
                made: Any = client.get_redis_connection(node).connection_pool.make_connection()
                assert (made.socket_timeout, made.socket_connect_timeout, made.socket_keepalive) == (7, 5, True)


def test_a_certificate_that_nobody_vouches_for_is_refused(dag: Dag, one_server: SecureRedis, usage: Usage) -> None:
    trusting_others = json.loads(one_server.connection)
    del trusting_others["extra"]["ssl_ca_certs"]
    ended = dag.run(CONF, AIRFLOW_CONN_USAGE_REDIS=json.dumps(trusting_others))  # at once, for it is not tried again
    assert ended.state == "failed"
    assert ended.states["scan_usage"] == ["failed"]
    assert "The TLS connection to Redis fails: [SSL: CERTIFICATE_VERIFY_FAILED]" in ended.log
    assert usage.rows() == {}
