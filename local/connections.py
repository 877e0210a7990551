"""Server addresses in the forms that Airflow takes. JSON, so that no character of a password needs escaping."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

from psycopg.conninfo import conninfo_to_dict
from redis.connection import SSLConnection, parse_url

from merchant_usage.errors import SettingsError


def redis_connection(url: str) -> str:
    """The Airflow connection of a Redis address (`redis://`, `rediss://`, `?cluster=true`), as JSON.

    Raises:
        SettingsError: Airflow cannot be told of this address. The address is not repeated: it holds a password.
    """
    base, _, options = url.partition("?")
    kept = [option for option in options.split("&") if option and option != "cluster=true"]
    try:
        parts: dict[str, Any] = dict(parse_url(base + ("?" + "&".join(kept) if kept else "")))
    except ValueError:
        raise SettingsError("The address of Redis is not of the form redis://user:password@host:6379/0") from None
    if "path" in parts:
        raise SettingsError("Airflow cannot reach Redis by a unix socket: give a redis:// address.")
    extra = {name: value for name, value in parts.items() if name.startswith("ssl_")}
    if parts.get("connection_class") is SSLConnection:
        extra["ssl"] = True
    if "cluster=true" in options.split("&"):
        extra["cluster"] = True
    elif "db" in parts:
        extra["db"] = parts["db"]
    return json.dumps(
        {
            "conn_type": "redis",
            "host": parts.get("host", "localhost"),
            "port": parts.get("port", 6379),
            "login": parts.get("username"),
            "password": parts.get("password"),
            "extra": extra,
        }
    )


def postgres_connection(url: str) -> str:
    """The Airflow connection of a PostgreSQL address, as JSON."""
    parts = conninfo_to_dict(url)
    known = {"host": "host", "port": "port", "user": "login", "password": "password", "dbname": "schema"}
    connection: dict[str, Any] = {"conn_type": "postgres"}
    connection.update({field: parts.pop(name) for name, field in known.items() if name in parts})
    if "port" in connection:
        connection["port"] = int(connection["port"])
    return json.dumps({**connection, "extra": parts})


def with_database(url: str, database: str) -> str:
    """The address of another database of the same PostgreSQL server, as SQLAlchemy takes it too."""
    parts = conninfo_to_dict(url)
    user, password = (quote(str(parts.pop(name, "")), safe="") for name in ("user", "password"))
    host, port = str(parts.pop("host", "localhost")), parts.pop("port", 5432)
    parts.pop("dbname", None)
    login = f"{user}:{password}@" if password else f"{user}@" if user else ""
    if host.startswith("/"):  # the folder of a unix socket cannot stand where a host does
        parts["host"], host = host, ""
    options = f"?{urlencode(parts)}" if parts else ""
    return f"postgresql://{login}{host}:{port}/{quote(database, safe='')}{options}"
