"""Opens Redis and PostgreSQL by URL, for everything that runs without Airflow."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import tuple_row

from merchant_usage.driver_errors import explained
from merchant_usage.errors import SettingsError
from merchant_usage.source.counters import RedisClient

REDIS_URL = "USAGE_REDIS_URL"
POSTGRES_URL = "USAGE_POSTGRES_URL"

# A server that does not even accept within this time is down: say so instead of hanging.
CONNECT_TIMEOUT_SECONDS = 10


@contextmanager
def redis_from_url(environ: Mapping[str, str] | None = None) -> Iterator[RedisClient]:
    """A client for `USAGE_REDIS_URL` (`redis://`, `rediss://` for TLS, `unix://`; `?cluster=true` for a cluster).

    Raises:
        SettingsError: the variable is missing or no URL. Its value is never repeated: it holds a password.
    """
    url = _variable(REDIS_URL, "redis://user:password@host:6379/0", environ)
    base, _, options = url.partition("?")
    kept = [option for option in options.split("&") if option and option != "cluster=true"]
    cluster = len(kept) < len([option for option in options.split("&") if option])
    url = base + ("?" + "&".join(kept) if kept else "")
    with explained():
        try:
            parts = urlsplit(url)
            # A / or # in a password ends the host for redis-py, which then takes localhost, and database 0.
            if parts.scheme != "unix" and (parts.fragment or not re.fullmatch("/?[0-9]*", parts.path)):
                raise ValueError
            # Makes a connection's object without connecting: redis-py looks at the options no earlier.
            redis.ConnectionPool.from_url(url).make_connection()
            # This connects, if it is a cluster.
            client: RedisClient = redis.RedisCluster.from_url(url) if cluster else redis.Redis.from_url(url)
        except (ValueError, TypeError):
            raise SettingsError(_no_url(REDIS_URL, "redis://user:password@host:6379/0")) from None
        try:
            yield client
        finally:
            client.close()


@contextmanager
def postgres_from_url(environ: Mapping[str, str] | None = None) -> Iterator[Connection]:
    """A connection to `USAGE_POSTGRES_URL`, made ready by `prepare`.

    Raises:
        SettingsError: the variable is missing or no URL. Its value is never repeated: it holds a password.
    """
    form = "postgresql://user:password@host:5432/database"
    url = _variable(POSTGRES_URL, form, environ)
    try:
        parameters = conninfo_to_dict(url)
    except psycopg.Error:
        raise SettingsError(_no_url(POSTGRES_URL, form)) from None
    # libpq ends the password at the first @ or /, takes the rest for host and port, and tells them in its errors.
    host, ports = str(parameters.get("host", "")), str(parameters.get("port", ""))
    if "@" in host or not re.fullmatch("[0-9,]*", ports) or "@" in str(parameters.get("dbname", "")):
        raise SettingsError(_no_url(POSTGRES_URL, form))
    parameters.setdefault("connect_timeout", CONNECT_TIMEOUT_SECONDS)
    with explained(), psycopg.connect(**parameters, autocommit=True) as conn:  # type: ignore[arg-type]  # as libpq takes them
        yield prepare(conn)


def prepare(conn: Connection) -> Connection:
    """Put a connection into the state that the work expects, whatever its makers set: autocommit, tuples, UTF-8."""
    conn.autocommit = True
    conn.row_factory = tuple_row
    conn.execute("SET client_encoding TO 'UTF8'")
    return conn


def _variable(name: str, form: str, environ: Mapping[str, str] | None) -> str:
    value = (os.environ if environ is None else environ).get(name, "").strip()
    if not value:
        raise SettingsError(f"{name} is not set; it takes {form}")
    return value


def _no_url(name: str, form: str) -> str:
    return f"{name} is not a URL that can be used; it takes {form} (special characters in a password as %XX)"
