"""Airflow connections become a Redis client and a PostgreSQL connection, through the providers' hooks."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowTaskTimeout,
    BaseHook,
)
from airflow.providers.redis.hooks.redis import RedisHook
from redis.cluster import RedisCluster

from merchant_usage.connections import PAGE_OPTIONS, PAGE_PATIENCE, POSTGRES_OPTIONS, prepare
from merchant_usage.driver_errors import explained
from merchant_usage.errors import SettingsError, TaskTimedOut, UsageError
from merchant_usage.log import Log
from merchant_usage.orchestration import metrics
from merchant_usage.orchestration.compat import postgres_hook
from merchant_usage.orchestration.remedies import REMEDIES
from merchant_usage.source.options import (
    REDIS_OPTIONS,
    BadOption,
    check_cluster,
    check_tls,
    read_database,
    read_flag,
    read_patience,
)
from merchant_usage.source.shards import RedisClient, Shards, named_twice

log = Log(__name__)

REDIS_CONN_ID: Final = "usage_redis"
POSTGRES_CONN_ID: Final = "usage_postgres"
#: What the usage page reads by, where it is defined.
PAGE_CONN_ID: Final = "usage_page"
SLACK_CONN_ID: Final = "usage_slack"
PAGERDUTY_CONN_ID: Final = "usage_pagerduty"

# What Airflow takes for an id.
_CONN_ID: Final = re.compile(r"[\w.-]+")

#: What is read of the extra of a Redis connection: by the hook, and by us patience and the ids of further servers.
_REDIS_EXTRA: Final = {
    "db",
    "cluster",
    "startup_nodes",
    "shards",
    "ssl",
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_keyfile",
    "ssl_certfile",
    "ssl_check_hostname",
    *REDIS_OPTIONS,
}


@contextmanager
def airflow_errors() -> Iterator[None]:
    """Let Airflow retry what can heal, and fail at once what cannot: with its one sentence, and what to do in Airflow.

    Raises:
        UsageError: an error that may pass; the task is retried.
        AirflowFailException: an error that retrying cannot mend.
    """
    try:
        with explained():
            yield
    except AirflowTaskTimeout:  # no Exception, which is why nothing on its way has noted it
        raise TaskTimedOut from None
    except UsageError as error:
        if error.heals:
            raise
        raise AirflowFailException(error.with_remedy(REMEDIES)) from None


@contextmanager
def usage_redis() -> Iterator[RedisClient]:
    """The client of the connection `usage_redis`: one server, a cluster (extra `{"cluster": true}`), or several.

    Of several servers each has a connection of its own: `{"shards": "usage_redis_2,usage_redis_3"}` names the others.
    """
    client, further_ids = _redis_client(REDIS_CONN_ID)
    if further_ids:
        client = _shards([client, *map(_further_client, further_ids)])
    try:
        with metrics.requests(client):
            yield client
    finally:
        client.close()


def _redis_client(conn_id: str) -> tuple[Any, Sequence[str]]:
    """The client of a connection, and the ids of the further servers that it names."""
    with _connection_named(conn_id, "redis"):
        hook = _CheckedRedisHook(redis_conn_id=conn_id)
        client = hook.get_conn()
    return client, hook.further_ids


def _further_client(conn_id: str) -> Any:
    client, further_ids = _redis_client(conn_id)
    if further_ids or isinstance(client, RedisCluster):
        raise SettingsError(
            f"The Airflow connection {conn_id} is one of several servers that {REDIS_CONN_ID} names as shards, so it "
            "can neither be a cluster nor name shards itself."
        )
    return client


def _shards(servers: Sequence[Any]) -> Shards:
    if twice := named_twice(servers):
        raise SettingsError(f"The Airflow connection {REDIS_CONN_ID} and its shards name {twice} twice.")
    return Shards(servers)


def _shard_ids(extra: Mapping[str, Any]) -> list[str]:
    """The ids of further connections: a list, or as a URI has it a text with commas."""
    value = extra.get("shards") or []
    ids = [each.strip() for each in value.split(",")] if isinstance(value, str) else value
    if not isinstance(ids, list) or not all(isinstance(each, str) and _CONN_ID.fullmatch(each) for each in ids):
        raise BadOption("its shards are no list of ids of Airflow connections, as in usage_redis_2,usage_redis_3")
    if ids and _flag(extra, "cluster"):
        raise BadOption("it says that it is a cluster, and names shards: a cluster knows its servers by itself")
    return ids


@contextmanager
def usage_postgres() -> Iterator[Any]:
    """The psycopg connection of `usage_postgres`, made ready for the work."""
    with _connection_named(POSTGRES_CONN_ID, "postgres"):
        conn: Any = usage_postgres_hook().get_conn()
    try:
        with metrics.statements(conn):
            yield prepare(conn)
    finally:
        conn.close()


@contextmanager
def usage_page() -> Iterator[Any]:
    """The psycopg connection that the usage page reads by: `usage_page`, or `usage_postgres` where that is not defined.

    Raises:
        UsageError: it cannot be opened. What is raised while it is used is left as it is.
    """
    conn_id = _page_conn_id()
    with explained(), _connection_named(conn_id, "postgres"):
        conn: Any = usage_postgres_hook(conn_id, PAGE_OPTIONS).get_conn()
    try:
        with explained():
            prepare(conn, PAGE_PATIENCE)
        yield conn
    finally:
        conn.close()


def _page_conn_id() -> str:
    try:
        BaseHook.get_connection(PAGE_CONN_ID)
    except AirflowNotFoundException:
        # One that is there and cannot be read is an error, and not the same as none.
        return PAGE_CONN_ID if _why_unreadable(PAGE_CONN_ID) else POSTGRES_CONN_ID
    return PAGE_CONN_ID


def usage_postgres_hook(conn_id: str = POSTGRES_CONN_ID, options: Mapping[str, int] = POSTGRES_OPTIONS) -> Any:
    """The hook of a PostgreSQL connection, which has libpq notice a server that is gone.

    Args:
        options: what libpq is told, unless the connection says otherwise.

    Raises:
        BadOption: the connection's extra is no JSON object.
    """
    hook = postgres_hook(conn_id)
    connection = hook.connection  # which the hook keeps
    connection.extra = json.dumps({**options, **read_extra(connection)})
    return hook


class _CheckedRedisHook(RedisHook):
    """The provider's hook, but for connections that say one thing and would do another."""

    #: Of further servers, once there is a client.
    further_ids: Sequence[str] = ()

    @classmethod
    def get_connection(cls, conn_id: str) -> Any:
        """The connection.

        Raises:
            BadOption: its parts contradict each other.
        """
        connection = super().get_connection(conn_id)
        check_redis_connection(connection)
        return connection

    def get_conn(self) -> Any:
        """The client, which waits for no silent server without end; of a cluster also where the provider knows none."""
        hook: Any = super()
        connection = hook.get_connection(self.redis_conn_id)
        extra = read_extra(connection)
        if not _flag(extra, "cluster"):
            client = hook.get_conn()  # which has not connected yet
            client.connection_pool.connection_kwargs.update(read_patience(extra))
            self.further_ids = _shard_ids(extra)
            return client
        check_redis_connection(connection)
        self.further_ids = _shard_ids(extra)
        self.startup_nodes = extra.get("startup_nodes")
        # The provider of the time of Airflow 3.1 and 3.2 has no such thing.
        find_nodes: Any = getattr(self, "_build_startup_nodes", list)
        cluster: Any = RedisCluster(
            host=connection.host,
            port=connection.port,
            startup_nodes=find_nodes(),
            username=connection.login,
            password=connection.password or None,
            **{name: value for name, value in extra.items() if name.startswith("ssl")},
            **read_patience(extra),
        )
        return cluster


def read_extra(connection: Any) -> dict[str, Any]:
    """The extra of an Airflow connection. Airflow itself takes one that it cannot read for an empty one.

    Raises:
        BadOption: it is no JSON object.
    """
    try:
        extra = json.loads(connection.extra) if connection.extra else {}
    except ValueError as error:  # its text is a place, and nothing that stands there
        raise BadOption(f"its extra is no JSON ({error})") from None
    if not isinstance(extra, dict):
        raise BadOption("its extra is no JSON object")
    return extra


def check_redis_connection(connection: Any) -> None:
    """Refuse what the hook would pass over in silence, and what it would take for its opposite.

    Raises:
        BadOption: two parts of the connection contradict each other, or one cannot be used.
    """
    host, extra = connection.host or "", read_extra(connection)
    if not host or "/" in host:  # it may hold a whole URL, with a password
        raise BadOption("its host holds a /, and it takes a name or an address" if host else "it names no host")
    if not connection.port:
        raise BadOption("it names no port (that of Redis is 6379)")
    # The hook takes any text for true, "false" as well.
    cluster, tls, _ = (_flag(extra, name) for name in ("cluster", "ssl", "ssl_check_hostname"))
    if connection.conn_type == "rediss" and not tls:
        raise BadOption(
            'it begins with rediss:// and does not say "ssl": true in its extra, so it would be without TLS'
        )
    database, in_schema = read_database("db", extra.get("db")), read_database("its schema", connection.schema)
    if in_schema is not None and in_schema != (database or 0):
        named = "no database" if database is None else f"database {database}"
        raise BadOption(
            f"its schema (the path of its URI) names database {in_schema}, and its extra {named}, which alone counts: "
            f'write "db": {in_schema} into the extra (?db={in_schema} in a URI)'
        )
    check_cluster(database, cluster=cluster)
    _shard_ids(extra)
    check_tls(extra, tls=tls)
    if passed_over := sorted(extra.keys() - _REDIS_EXTRA):
        log.warning(f"The extra of {REDIS_CONN_ID} names what the hook does not know: {', '.join(passed_over)}")


def _flag(extra: Mapping[str, Any], name: str) -> bool:
    value = extra.get(name)
    flag = read_flag(name, value)
    if bool(value) != flag:
        raise BadOption(
            f"{name} is {value!r}, a text, which the hook takes for true: write false without quotes, or leave it out"
        )
    return flag


def has_connection(conn_id: str) -> bool:
    """Whether Airflow knows a connection of this id; says so if it is there and cannot be read."""
    try:
        BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        if unreadable := _why_unreadable(conn_id):
            log.warning(unreadable)
        return False
    return True


@contextmanager
def _connection_named(conn_id: str, conn_type: str) -> Iterator[None]:
    try:
        yield
    except AirflowNotFoundException:
        raise SettingsError(
            _why_unreadable(conn_id)
            or f"The Airflow connection {conn_id} does not exist. Create it in the UI (Admin, Connections), by "
            f"`airflow connections add {conn_id} --conn-type {conn_type} --conn-host ...`, or as the environment "
            f"variable {_variable(conn_id)}. (A secrets backend that cannot read it says so in its log at level DEBUG.)"
        ) from None
    # The hooks' word for an extra they cannot use, ours, and that of psycopg before it connects.
    except (ValueError, psycopg.ProgrammingError) as error:
        said = str(error).strip()
        raise SettingsError(f"The Airflow connection {conn_id} cannot be used: {said}") from None


def _variable(conn_id: str) -> str:
    return f"AIRFLOW_CONN_{conn_id.upper()}"


def _why_unreadable(conn_id: str) -> str | None:
    """Why a connection in the environment cannot be read; None if there is none. To Airflow both are "not defined"."""
    value = os.environ.get(_variable(conn_id), "")
    if not value:
        return None
    why = ""
    if value.lstrip().startswith("{"):
        try:
            json.loads(value)
        except ValueError as error:  # its text is a place, and nothing that stands there
            why = f" ({error})"
    return (
        f"The Airflow connection {conn_id} cannot be read: the environment variable {_variable(conn_id)} is neither a "
        f"URI nor JSON that Airflow understands{why}. In a URI special characters are written as %XX."
    )
