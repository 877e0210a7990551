from __future__ import annotations

import json

import pytest

from local.connections import postgres_connection, redis_connection, with_database
from merchant_usage.errors import SettingsError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(
            "redis://:p%40ss@10.0.0.1:6380/2",
            {"host": "10.0.0.1", "port": 6380, "login": None, "password": "p@ss", "extra": {"db": 2}},
            id="password and database",
        ),
        pytest.param(
            "rediss://app:pw@redis.internal?ssl_ca_certs=/ca.pem",
            {
                "host": "redis.internal",
                "port": 6379,
                "login": "app",
                "password": "pw",
                "extra": {"ssl": True, "ssl_ca_certs": "/ca.pem"},
            },
            id="TLS and an ACL user",
        ),
        pytest.param(
            "redis://node-1:7000?cluster=true",
            {"host": "node-1", "port": 7000, "login": None, "password": None, "extra": {"cluster": True}},
            id="cluster",
        ),
    ],
)
def test_redis_connection(url: str, expected: dict[str, object]) -> None:
    assert json.loads(redis_connection(url)) == {"conn_type": "redis", **expected}


@pytest.mark.parametrize("url", ["http://:secret@host", "unix:///secret.sock", "secret"])
def test_an_address_that_airflow_cannot_use_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError) as raised:
        redis_connection(url)
    assert "secret" not in str(raised.value)


def test_postgres_connection() -> None:
    assert json.loads(postgres_connection("postgresql://app:p%25ss@pg:5433/billing?sslmode=require")) == {
        "conn_type": "postgres",
        "host": "pg",
        "port": 5433,
        "login": "app",
        "password": "p%ss",
        "schema": "billing",
        "extra": {"sslmode": "require"},
    }


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(
            "postgresql://app:p%40%2F%24s@pg:5433/billing?sslmode=require",
            "postgresql://app:p%40%2F%24s@pg:5433/other%20one?sslmode=require",
            id="special characters",
        ),
        pytest.param("postgresql://pg/billing", "postgresql://pg:5432/other%20one", id="no login"),
        pytest.param(
            "postgresql:///billing?host=/run/postgresql",
            "postgresql://:5432/other%20one?host=%2Frun%2Fpostgresql",
            id="unix socket",
        ),
    ],
)
def test_with_database(url: str, expected: str) -> None:
    assert with_database(url, "other one") == expected
