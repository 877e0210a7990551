"""Opens Redis and PostgreSQL by URL, for everything that runs without Airflow."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import psycopg
import redis
from psycopg import Connection, IsolationLevel
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from merchant_usage.driver_errors import explained
from merchant_usage.errors import SettingsError
from merchant_usage.settings import load_settings
from merchant_usage.sink.queries import query
from merchant_usage.source.options import REDIS_OPTIONS, BadOption, RedisAddress, parse_redis_urls
from merchant_usage.source.shards import RedisClient, Shards

REDIS_URL = "USAGE_REDIS_URL"
POSTGRES_URL = "USAGE_POSTGRES_URL"
#: What the usage page reads by, where it is set.
PAGE_POSTGRES_URL = "USAGE_PAGE_POSTGRES_URL"

_REDIS_FORM = "redis://user:password@host:6379/0"
_POSTGRES_FORM = "postgresql://user:password@host:5432/database"

# libpq's words, of a URL.
_UNKNOWN_OPTION = re.compile('invalid URI query parameter: "([a-z_]+)"')

#: What libpq is told where the URL or the connection does not say otherwise, in its names and units. A server that does
#: not even accept is down; of a machine that is gone, nobody else would say so for hours, or for ever.
POSTGRES_OPTIONS: Final[Mapping[str, int]] = {
    "connect_timeout": 10,
    # Asked after half a minute of silence, three times: noticed within 60 s.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    # Milliseconds, for what was sent and nobody took: no keepalive is sent then.
    "tcp_user_timeout": 60_000,
}

#: The same where somebody looks at a page, and how many seconds an answer is waited for: nobody waits as long as a run.
PAGE_OPTIONS: Final[Mapping[str, int]] = {**POSTGRES_OPTIONS, "connect_timeout": 3}
PAGE_PATIENCE: Final = 10.0


@contextmanager
def redis_from_url(environ: Mapping[str, str] | None = None) -> Iterator[RedisClient]:
    """A client for `USAGE_REDIS_URL` (`redis://`, `rediss://` for TLS, `unix://`; `?cluster=true` for a cluster).

    Several servers that are no cluster are separated by commas.

    Raises:
        SettingsError: the variable is missing, is no URL, or its parts contradict each other. Its value is never
            repeated: it holds a password.
    """
    url = _variable(REDIS_URL, _REDIS_FORM, environ)
    try:
        addresses = parse_redis_urls(url)
    except ValueError as error:
        why = str(error) if isinstance(error, BadOption) else ""
        raise SettingsError(_no_url(REDIS_URL, _REDIS_FORM, why)) from None
    with explained():
        # This connects, if it is a cluster.
        servers = list(map(_client, addresses))
        client: RedisClient = servers[0] if len(servers) == 1 else Shards(servers)
        try:
            yield client
        finally:
            client.close()


def _client(address: RedisAddress) -> Any:
    """What waits for no silent server without end. What the URL says counts."""
    patience: dict[str, Any] = dict(REDIS_OPTIONS)
    if address.url.startswith("unix:"):
        del patience["socket_keepalive"]  # which redis-py does not take there
    return (redis.RedisCluster if address.cluster else redis.Redis).from_url(address.url, **patience)


@contextmanager
def postgres_from_url(environ: Mapping[str, str] | None = None) -> Iterator[Connection]:
    """A connection to `USAGE_POSTGRES_URL`, made ready by `prepare`.

    Raises:
        SettingsError: the variable is missing or no URL. Its value is never repeated: it holds a password.
    """
    patience = load_settings(environ).task_timeout_seconds
    options: Any = {**POSTGRES_OPTIONS, **_postgres_parameters(POSTGRES_URL, environ)}
    with explained(), psycopg.connect(**options, autocommit=True) as conn:
        yield prepare(conn, patience)


@contextmanager
def page_from_url(environ: Mapping[str, str] | None = None) -> Iterator[Connection]:
    """A connection to `USAGE_PAGE_POSTGRES_URL`, or to `USAGE_POSTGRES_URL` where that is not set, for the usage page.

    Raises:
        SettingsError: neither is set, or it is no URL.
        UsageError: it cannot be opened. What is raised while it is used is left as it is.
    """
    options: Any = {**PAGE_OPTIONS, **_postgres_parameters(page_variable(environ), environ)}
    with explained():
        conn = psycopg.connect(**options, autocommit=True)
    with conn:
        with explained():
            prepare(conn, PAGE_PATIENCE)
        yield conn


def page_variable(environ: Mapping[str, str] | None = None) -> str:
    """The variable that the usage page is read by."""
    given = (os.environ if environ is None else environ).get(PAGE_POSTGRES_URL, "").strip()
    return PAGE_POSTGRES_URL if given else POSTGRES_URL


def check_page_url(environ: Mapping[str, str] | None = None) -> None:
    """Make sure that there is an address which the usage page can be read by, whoever answers there.

    Raises:
        SettingsError: neither variable is set, or it is no URL.
    """
    _postgres_parameters(page_variable(environ), environ)


def _postgres_parameters(variable: str, environ: Mapping[str, str] | None) -> dict[str, Any]:
    url = _variable(variable, _POSTGRES_FORM, environ)
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.Error as error:
        # Whatever follows a ? may be part of a password, if an @ follows that.
        unknown = None if "@" in url.partition("?")[2] else _UNKNOWN_OPTION.search(str(error))
        why = f"there is no option {unknown[1]}" if unknown else ""
        raise SettingsError(_no_url(variable, _POSTGRES_FORM, why)) from None
    # libpq ends the password at the first @ or /, takes the rest for host and port, and tells them in its errors.
    host, ports = str(parameters.get("host", "")), str(parameters.get("port", ""))
    if "@" in host or not re.fullmatch("[0-9,]*", ports) or "@" in str(parameters.get("dbname", "")):
        raise SettingsError(_no_url(variable, _POSTGRES_FORM))
    return parameters


class ServerSilent(psycopg.OperationalError):
    """PostgreSQL said nothing for longer than anything may take."""


def prepare(conn: Connection, patience: float = math.inf) -> Connection:
    """Put a connection into the state that the work expects, whatever its makers, the role or the database set.

    Args:
        patience: the seconds that one answer is waited for. In Airflow the task's timeout says when it is enough.
    """
    _give_up_for_good(conn, patience)
    conn.autocommit = True
    conn.row_factory = tuple_row
    # A pooler in transaction mode hands the next transaction to another server, which knows nothing of our statements.
    conn.prepare_threshold = None
    # Said with each BEGIN, so that it ends with the transaction.
    conn.isolation_level = IsolationLevel.READ_COMMITTED
    conn.execute(query("set_session"))
    return conn


def _give_up_for_good(conn: Connection, patience: float) -> None:
    """Close a connection whose server was given up: what cleans up, a COPY say, would wait for it again."""
    wait = conn.wait

    def wait_or_close(gen: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return wait(_until_silent(gen, patience), *args, **kwargs)
        except BaseException as error:
            # What ends a task is no Exception. After Ctrl-C psycopg has cancelled the query, and the ledger is told.
            if isinstance(error, ServerSilent) or not isinstance(error, Exception | KeyboardInterrupt):
                conn.pgconn.finish()
            raise

    conn.wait = wait_or_close  # type: ignore[method-assign]  # the connection's class is not ours to choose in Airflow


def _until_silent(gen: Any, patience: float) -> Any:
    """A generator of psycopg's, which is told several times a second that there is nothing yet."""
    heard_at = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > patience:
                raise ServerSilent(f"nothing was heard of it for {patience} s")
            wanted = gen.send(ready)
    except StopIteration as done:
        return done.value


def _variable(name: str, form: str, environ: Mapping[str, str] | None) -> str:
    value = (os.environ if environ is None else environ).get(name, "").strip()
    if not value:
        raise SettingsError(f"{name} is not set; it takes {form}")
    return value


def _no_url(name: str, form: str, why: str = "") -> str:
    reason = f": {why}" if why else ""
    return f"{name} is not a URL that can be used; it takes {form} (special characters in a password as %XX){reason}"
