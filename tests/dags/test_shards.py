"""Several Redis servers that are no cluster, as Airflow knows them: a connection each, of which the first names all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from local.servers import Valkey, free_port
from merchant_usage.errors import SettingsError
from merchant_usage.orchestration.connections import airflow_errors, usage_redis
from tests.dags.support import Dag
from tests.shards import ThreeServers, three_servers
from tests.support import YESTERDAY, Usage, key

COUNTERS = {key(f"m{n}"): n for n in range(90)}
CONF = {"from_date": str(YESTERDAY), "to_date": str(YESTERDAY)}


@pytest.fixture(scope="module")
def three(server_folder: Path) -> Iterator[ThreeServers]:
    """Three servers with counters."""
    with three_servers(server_folder / "shards-of-the-dag") as servers:
        servers.write(COUNTERS)
        yield servers


def connection(server: Valkey, **fields: Any) -> str:
    to_redis = {"conn_type": "redis", "host": "127.0.0.1", "port": server.port, "password": server.password}
    return json.dumps({**to_redis, **fields})


def connections(three: ThreeServers, shards: object = "usage_redis_2, usage_redis_3") -> dict[str, Any]:
    first, second, third = three.servers
    return {
        "AIRFLOW_CONN_USAGE_REDIS": connection(first, extra={"shards": shards}),
        "AIRFLOW_CONN_USAGE_REDIS_2": connection(second),
        "AIRFLOW_CONN_USAGE_REDIS_3": connection(third),
    }


def test_the_dag_reads_every_server(dag: Dag, usage: Usage, three: ThreeServers) -> None:
    ended = dag.run(CONF, **connections(three))
    assert ended.state == "success"
    assert usage.ledger(ended.run_id) == {YESTERDAY: ("verified", None)}
    assert usage.rows() == COUNTERS


def test_one_that_does_not_answer_fails_the_run(dag: Dag, usage: Usage, three: ThreeServers) -> None:
    port = free_port()
    gone = {"AIRFLOW_CONN_USAGE_REDIS_3": connection(three.servers[2], port=port)}
    ended = dag.run(CONF, no_retries=True, **{**connections(three), **gone})
    assert ended.state == "failed"
    assert ended.states["scan_usage"] == ["failed"]
    assert f"127.0.0.1:{port}" in ended.log
    assert usage.rows() == {}


def why_refused(monkeypatch: pytest.MonkeyPatch, told: dict[str, Any]) -> str:
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises((SettingsError, AirflowFailException)) as raised, airflow_errors(), usage_redis():
        pass
    assert not any(json.loads(value)["password"] in str(raised.value) for value in told.values())
    return str(raised.value)


@pytest.mark.parametrize("shards", [["usage_redis_2", "usage_redis_3"], "usage_redis_2,usage_redis_3"])
def test_a_list_and_a_text_are_the_same(monkeypatch: pytest.MonkeyPatch, three: ThreeServers, shards: object) -> None:
    for name, value in connections(three, shards).items():
        monkeypatch.setenv(name, value)
    with usage_redis() as client:
        assert len(client.servers) == 3  # type: ignore[union-attr]  # or it is none of several


@pytest.mark.parametrize(
    ("shards", "why"),
    [
        ("redis-2:6379", "its shards are no list of ids of Airflow connections, as in usage_redis_2,usage_redis_3"),
        ([2, 3], "its shards are no list of ids"),
        (True, "its shards are no list of ids"),
        ("usage_redis_4", "The Airflow connection usage_redis_4 does not exist"),
        ("usage_redis", "The Airflow connection usage_redis is one of several servers"),
        ("usage_redis_2,usage_redis_2", "usage_redis and its shards name 127.0.0.1:{port} twice"),
    ],
)
def test_what_shards_may_be(monkeypatch: pytest.MonkeyPatch, three: ThreeServers, shards: object, why: str) -> None:
    assert why.format(port=three.servers[1].port) in why_refused(monkeypatch, connections(three, shards))


def test_a_cluster_names_no_shards(monkeypatch: pytest.MonkeyPatch, three: ThreeServers) -> None:
    extra = {"cluster": True, "shards": "usage_redis_2"}
    told = {**connections(three), "AIRFLOW_CONN_USAGE_REDIS": connection(three.servers[0], extra=extra)}
    assert "it says that it is a cluster, and names shards" in why_refused(monkeypatch, told)
