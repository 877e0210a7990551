"""Airflow connections that say one thing and would do another, or that Airflow cannot read: refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from local.servers import Postgres, Valkey
from local.servers.processes import free_port
from merchant_usage.errors import RedisRefused, SettingsError
from merchant_usage.orchestration.connections import (
    airflow_errors,
    has_connection,
    usage_postgres,
    usage_redis,
)
from merchant_usage.source.counters import scan_pages
from tests.support import WATCHED, tcp_options
from tests.tls import tls_in_front_of
from tests.webhooks import make_certificate

KEY = b"usage:acme:2026-11-23:queries"
SECRET = "s3cret-Pa55word"


class Connections:
    """The connections in the environment, and what is found by them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, valkey: Valkey) -> None:
        self._monkeypatch, self._valkey = monkeypatch, valkey

    def set(self, value: str, name: str = "USAGE_REDIS") -> None:
        self._monkeypatch.setenv(f"AIRFLOW_CONN_{name}", value)

    def set_redis(self, extra: dict[str, Any] | str | None = None, **fields: Any) -> None:
        server = {"conn_type": "redis", "host": "127.0.0.1", "port": self._valkey.port}
        self.set(json.dumps({**server, "password": self._valkey.password, "extra": extra, **fields}))

    def set_uri(self, rest: str, scheme: str = "redis") -> None:
        self.set(f"{scheme}://:{self._valkey.password}@127.0.0.1:{self._valkey.port}{rest}")

    def read(self) -> list[bytes]:
        """The keys that are found."""
        with usage_redis() as client:
            return [name for page in scan_pages(client, "usage", 100) for name in page]

    def why_refused(self) -> str:
        with pytest.raises(SettingsError) as raised:
            self.read()
        assert SECRET not in str(raised.value)
        assert self._valkey.password not in str(raised.value)
        return str(raised.value).removeprefix("The Airflow connection usage_redis cannot be used: ")


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch, valkey: Valkey, redis_client: redis.Redis) -> Connections:
    """A counter lies in database 0, another one in database 3."""
    redis_client.set(KEY, 1)
    with redis.Redis.from_url(valkey.url.removesuffix("0") + "3") as client:
        client.set(KEY + b" of 3", 1)
    return Connections(monkeypatch, valkey)


IN_SCHEMA = (
    'its schema (the path of its URI) names database 3, and its extra {}, which alone counts: write "db": 3 into the '
    "extra (?db=3 in a URI)"
)


def as_this_airflow_has_it(why: str, conn_id: str) -> str:
    """2.11 and 3.1 refuse an extra that is no JSON by themselves."""
    if "its extra is no JSON" not in why:
        return why
    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return f"The Airflow connection {conn_id} cannot be read"
    return why


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("/3", IN_SCHEMA.format("no database")),
        ("/3?db=0", IN_SCHEMA.format("database 0")),
        ("/3?db=4", IN_SCHEMA.format("database 4")),
        ("/usage", "its schema is 'usage', and the databases of Redis are numbers"),
        ("/?db=three", "db is 'three', and the databases of Redis are numbers"),
        (
            "/?ssl=false",
            "ssl is 'false', a text, which the hook takes for true: write false without quotes, or leave it out",
        ),
        (
            "/?cluster=no",
            "cluster is 'no', a text, which the hook takes for true: write false without quotes, or leave it out",
        ),
        ("/?ssl=perhaps", "ssl is 'perhaps', and takes true or false"),
        ("/?cluster=true&db=3", "it says that it is a cluster, and names database 3: a cluster has only database 0"),
        ("/?ssl_ca_certs=/etc/hosts", "it gives ssl_ca_certs, but does not ask for TLS"),
        ("/?ssl=true&ssl_ca_certs=/nowhere", "there is no file /nowhere (ssl_ca_certs)"),
    ],
)
def test_parts_of_a_redis_uri_must_agree(connections: Connections, uri: str, why: str) -> None:
    connections.set_uri(uri)
    if BaseHook.get_connection("usage_redis").extra_dejson.get("ssl") is False:
        return  # 3.1 reads a false in a URI as what it means
    assert connections.why_refused() == why


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"schema": "3"}, IN_SCHEMA.format("no database")),
        ({"extra": {"ssl": "false"}}, "ssl is 'false', a text, which the hook takes for true"),
        ({"extra": {"cluster": "off"}}, "cluster is 'off', a text, which the hook takes for true"),
        ({"extra": "{'db': 3}"}, "its extra is no JSON (Expecting property name enclosed in double quotes"),
        ({"extra": "[3]"}, "its extra is no JSON object"),
        ({"host": f"rediss://:{SECRET}@host"}, "its host holds a /, and it takes a name or an address"),
        ({"host": None}, "it names no host"),
        ({"port": None}, "it names no port (that of Redis is 6379)"),
        ({"conn_type": "rediss"}, 'it begins with rediss:// and does not say "ssl": true in its extra'),
        ({"conn_type": "rediss", "extra": {"ssl": False}}, 'it begins with rediss:// and does not say "ssl": true'),
    ],
)
def test_parts_of_a_redis_connection_must_agree(connections: Connections, fields: dict[str, Any], why: str) -> None:
    connections.set_redis(**fields)
    assert connections.why_refused().startswith(as_this_airflow_has_it(why, "usage_redis"))


def test_redis_uri_with_tls_is_no_plain_text(connections: Connections) -> None:
    connections.set_uri("/0", scheme="rediss")
    assert connections.why_refused().startswith("it begins with rediss:// and does not say")


@pytest.mark.parametrize("uri", ["", "/", "/0", "/?db=0", "/0?db=0", "/?cluster=", "/?ssl_check_hostname=true"])
def test_uri_whose_parts_agree(connections: Connections, uri: str) -> None:
    connections.set_uri(uri)
    assert connections.read() == [KEY]


@pytest.mark.parametrize(
    "fields",
    [
        {"extra": {"db": 3}},
        {"extra": {"db": "3"}, "schema": "3"},
        {"extra": {"db": 3, "ssl": False, "cluster": False, "ssl_cert_reqs": "required", "ssl_check_hostname": False}},
    ],
)
def test_database_of_the_extra_is_read(connections: Connections, fields: dict[str, Any]) -> None:
    connections.set_redis(**fields)
    assert connections.read() == [KEY + b" of 3"]


@pytest.mark.parametrize(
    ("extra", "patience"),
    [
        (None, (5, 5, True)),
        ({"socket_timeout": 30, "socket_keepalive": False}, (30, 5, False)),
        ({"socket_connect_timeout": "1.5"}, (5, 1.5, True)),
    ],
)
def test_silent_redis_is_waited_for_as_the_extra_says(
    connections: Connections, extra: dict[str, Any] | None, patience: tuple[float, float, bool]
) -> None:
    connections.set_redis(extra)
    with usage_redis() as client:
        assert isinstance(client, redis.Redis)
        assert client.ping()
        made = client.connection_pool.get_connection()
        assert (made.socket_timeout, made.socket_connect_timeout, made.socket_keepalive) == patience
        client.connection_pool.release(made)


@pytest.mark.parametrize("seconds", ["soon", 0, -1, None, "nan", "inf"])
def test_seconds_that_are_none_are_refused(connections: Connections, seconds: object) -> None:
    connections.set_redis({"socket_timeout": seconds})
    assert connections.why_refused() == f"socket_timeout is {seconds!r}, and takes seconds"


def test_tls_that_is_asked_for_twice(
    connections: Connections, valkey: Valkey, tmp_path: Path, logged: list[str]
) -> None:
    certificate = make_certificate(tmp_path / "redis.pem")
    with tls_in_front_of([valkey.port], certificate) as (port,):
        for truth in (True, "true"):
            extra = {"ssl": truth, "ssl_ca_certs": str(certificate), "tls": 1}
            connections.set_redis(extra, conn_type="rediss", port=port)
            assert connections.read() == [KEY]
    assert "The extra of usage_redis names what the hook does not know: tls" in logged


def test_server_that_is_no_cluster(connections: Connections) -> None:
    connections.set_redis({"cluster": True})
    sentence = "says `cluster`, but the server is no node of a Redis Cluster"
    with pytest.raises(Exception, match=sentence) as raised, airflow_errors():
        connections.read()
    assert type(raised.value).__name__ == "AirflowFailException"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (f'{{"conn_type": "redis", "password": "{SECRET}"', " (Expecting ',' delimiter: line 1 column 53 (char 52))"),
        (f'{{"conn_type": "redis", "password": "{SECRET}", "port": "six"}}', ""),
        (f"redis://:{SECRET}/x@127.0.0.1:6379", ""),
    ],
    ids=["JSON without an end", "port in words", "slash in the password"],
)
def test_connection_that_cannot_be_read_is_not_missing(connections: Connections, value: str, why: str) -> None:
    connections.set(value)
    assert connections.why_refused() == (
        "The Airflow connection usage_redis cannot be read: the environment variable AIRFLOW_CONN_USAGE_REDIS is "
        f"neither a URI nor JSON that Airflow understands{why}. In a URI special characters are written as %XX."
    )


def test_connection_for_alerts_that_cannot_be_read(connections: Connections, logged: list[str]) -> None:
    connections.set("{", "USAGE_SLACK")
    assert not has_connection("usage_slack")
    assert logged[0].startswith("The Airflow connection usage_slack cannot be read: ")


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"sslmod": "require"}, 'invalid connection option "sslmod"'),
        ("{sslmode: require}", "its extra is no JSON"),
    ],
    ids=["unknown option", "no JSON"],
)
def test_option_of_postgresql_that_is_not_one(
    connections: Connections, postgres: Postgres, database_url: str, extra: Any, why: str
) -> None:
    server = {"conn_type": "postgres", "host": "127.0.0.1", "port": postgres.port, "login": "usage"}
    database = database_url.rpartition("/")[2]
    document = {**server, "schema": database, "password": postgres.password, "extra": extra}
    connections.set(json.dumps(document), "USAGE_POSTGRES")
    with pytest.raises(SettingsError) as raised, usage_postgres():
        pass
    expected = as_this_airflow_has_it(f"The Airflow connection usage_postgres cannot be used: {why}", "usage_postgres")
    assert str(raised.value).startswith(expected)


def test_sslmode_of_postgresql_that_is_not_one(connections: Connections, database_url: str) -> None:
    connections.set(f"{database_url}?sslmode=requires", "USAGE_POSTGRES")
    sentence = 'connection cannot be used: invalid sslmode value: "requires"'
    with pytest.raises(Exception, match=sentence) as raised, airflow_errors(), usage_postgres():
        pass
    assert type(raised.value).__name__ == "AirflowFailException"


def test_part_of_a_cluster_is_refused(connections: Connections, tmp_path: Path) -> None:
    cluster = ["cluster-enabled yes", f"cluster-port {free_port()}"]
    with Valkey(tmp_path / "node", extra_config=cluster) as node:
        connections.set_redis(port=node.port, password=node.password)
        with pytest.raises(RedisRefused, match="points to one node of a Redis Cluster"):
            connections.read()


def test_a_postgresql_whose_machine_is_gone_is_noticed(connections: Connections, database_url: str) -> None:
    connections.set(database_url, "USAGE_POSTGRES")
    with usage_postgres() as conn:
        assert tcp_options(conn) == WATCHED
        assert conn.info.get_parameters()["connect_timeout"] == "10"


def test_what_the_connection_says_of_it_stands(connections: Connections, database_url: str) -> None:
    connections.set(f"{database_url}?keepalives_idle=7&connect_timeout=3", "USAGE_POSTGRES")
    with usage_postgres() as conn:
        assert tcp_options(conn) == WATCHED | {"keepalives_idle": 7}
        assert conn.info.get_parameters()["connect_timeout"] == "3"
