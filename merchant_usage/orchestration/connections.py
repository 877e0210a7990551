"""Airflow connections become a Redis client and a PostgreSQL connection, through the providers' hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException, BaseHook
from airflow.providers.redis.hooks.redis import RedisHook

from merchant_usage.connections import prepare
from merchant_usage.driver_errors import explained
from merchant_usage.errors import SettingsError, UsageError
from merchant_usage.orchestration import metrics
from merchant_usage.orchestration.compat import postgres_hook
from merchant_usage.source.counters import RedisClient

REDIS_CONN_ID: Final = "usage_redis"
POSTGRES_CONN_ID: Final = "usage_postgres"
SLACK_CONN_ID: Final = "usage_slack"
PAGERDUTY_CONN_ID: Final = "usage_pagerduty"


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Let Airflow retry what can heal, and fail at once what cannot, each with its one sentence.

    Raises:
        UsageError: an error that may pass; the task is retried.
        AirflowFailException: an error that retrying cannot mend.
    """
    try:
        with explained():
            yield
    except UsageError as error:
        if error.heals:
            raise
        raise AirflowFailException(str(error)) from None


@contextmanager
def usage_redis() -> Iterator[RedisClient]:
    """The client of the connection `usage_redis`: one server, or a cluster (extra `{"cluster": true}`)."""
    with _connection_named(REDIS_CONN_ID, "redis"):
        hook = RedisHook(redis_conn_id=REDIS_CONN_ID)
        client: RedisClient = hook.get_conn()
    try:
        with metrics.requests(client):
            yield client
    finally:
        client.close()


@contextmanager
def usage_postgres() -> Iterator[Any]:
    """The psycopg connection of `usage_postgres`, made ready for the work."""
    with _connection_named(POSTGRES_CONN_ID, "postgres"):
        conn: Any = postgres_hook(POSTGRES_CONN_ID).get_conn()
    try:
        with metrics.statements(conn):
            yield prepare(conn)
    finally:
        conn.close()


def has_connection(conn_id: str) -> bool:
    """Whether Airflow knows a connection of this id."""
    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        return False
    return True


@contextmanager
def _connection_named(conn_id: str, conn_type: str) -> Iterator[None]:
    try:
        yield
    except AirflowNotFoundException:
        raise SettingsError(
            f"The Airflow connection {conn_id} does not exist. Create it in the UI (Admin, Connections), by "
            f"`airflow connections add {conn_id} --conn-type {conn_type} --conn-host ...`, or as the environment "
            f"variable AIRFLOW_CONN_{conn_id.upper()}."
        ) from None
    except ValueError as error:  # the hooks' word for an extra they cannot use
        raise SettingsError(f"The Airflow connection {conn_id} cannot be used: {error}") from None
