"""What a connection to Redis says of databases, TLS and clusters: read strictly, and its parts must agree.

redis-py and Airflow's hook pass over parts that they do not know, and take nearly every text for true.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.connection import URL_QUERY_ARGUMENT_PARSERS, parse_url, to_bool

from merchant_usage.source.shards import address_of, named_twice

_WRITTEN_FLAGS: Final = {
    **dict.fromkeys(("true", "t", "yes", "y", "1", "on"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0", "off"), False),
}
#: How long a silent server is waited for where the connection does not say otherwise, in the names of redis-py and in
#: seconds. Before its version 8 that waits for ever.
REDIS_OPTIONS: Final[Mapping[str, float]] = {
    "socket_timeout": 5.0,
    "socket_connect_timeout": 5.0,
    "socket_keepalive": True,
}
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
#: Options that are true or false, as redis-py has them, and two of ours.
_FLAGS: Final = {"cluster", "ssl"} | {name for name, read in URL_QUERY_ARGUMENT_PARSERS.items() if read is to_bool}
# A comma may stand in a password, but no :// after it.
_BETWEEN_URLS: Final = re.compile(r",\s*(?=(?:rediss?|unix)://)")
# What redis-py says of an option.
_UNKNOWN_OPTION: Final = re.compile(r"unexpected keyword argument '(\w+)'")
_BAD_VALUE: Final = re.compile(r"Invalid value for '(\w+)'")


class BadOption(ValueError):
    """What is wrong with a connection, as the end of a sentence and without a secret: "there is no option sll"."""


class RedisAddress(NamedTuple):
    """A URL as redis-py takes it, and whether it is that of a cluster."""

    url: str
    cluster: bool


def read_flag(name: str, value: object) -> bool:
    """True or false, as it is or as people write it; nothing is false."""
    text = "false" if value is None or value == "" else str(value).strip().lower()
    if text not in _WRITTEN_FLAGS:
        raise BadOption(f"{name} is {value!r}, and takes true or false")
    return _WRITTEN_FLAGS[text]


def read_database(where: str, value: object) -> int | None:
    """The number of a database; None if none is named."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not re.fullmatch("[0-9]+", str(value)):
        raise BadOption(f"{where} is {value!r}, and the databases of Redis are numbers")
    return int(str(value))


def read_patience(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `REDIS_OPTIONS`, as given or else as they are there."""
    read: dict[str, Any] = dict(REDIS_OPTIONS)
    for name in REDIS_OPTIONS.keys() & options.keys():
        if name == "socket_keepalive":
            read[name] = read_flag(name, options[name])
            continue
        try:
            read[name] = float(options[name])
        except (TypeError, ValueError):
            raise BadOption(f"{name} is {options[name]!r}, and takes seconds") from None
        if not 0 < read[name] < math.inf:
            raise BadOption(f"{name} is {options[name]!r}, and takes seconds")
    return read


def check_tls(options: Mapping[str, Any], *, tls: bool) -> None:
    """Files for TLS must be there, and not be given to a connection that is without."""
    for name in _TLS_FILES:
        if path := options.get(name):
            if not tls:
                raise BadOption(f"it gives {name}, but does not ask for TLS")
            if not Path(str(path)).is_file():
                raise BadOption(f"there is no file {path} ({name})")


def check_cluster(database: int | None, *, cluster: bool) -> None:
    """A cluster has one database."""
    if cluster and database:
        raise BadOption(f"it says that it is a cluster, and names database {database}: a cluster has only database 0")


def parse_redis_url(url: str) -> RedisAddress:
    """Read `redis://`, `rediss://` or `unix://`, with `?cluster=true` for a cluster.

    Raises:
        BadOption: its parts contradict each other, or an option cannot be used.
        ValueError: it is no such URL. The text must not be told: it may hold a part of a password.
    """
    base, _, query = url.partition("?")
    parts = _split(url)
    options = dict(_pairs(query))
    flags = {name: read_flag(name, options.pop(name)) for name in _FLAGS & set(options)}
    tls = parts.scheme == "rediss"
    if flags.pop("ssl", tls) != tls:
        said = "false" if tls else "true"
        raise BadOption(
            f"it begins with {parts.scheme}:// and says ssl={said}: rediss:// is with TLS, redis:// without"
        )
    cluster = flags.pop("cluster", False)
    database = None if parts.scheme == "unix" else read_database("its path", parts.path.strip("/"))
    other = read_database("db", options.get("db"))
    if None not in (database, other) and database != other:
        raise BadOption(f"it names database {database} in its path, and database {other} in db")
    check_cluster(database or other, cluster=cluster)
    if twice := sorted(set(options) & set(parse_url(base)) - {"db"}):
        raise BadOption(f"it gives {twice[0]} twice")
    if not tls and (misplaced := sorted(name for name in options.keys() | flags.keys() if name.startswith("ssl_"))):
        raise BadOption(f"it gives {misplaced[0]}, but does not ask for TLS: that is rediss://")
    check_tls(options, tls=tls)
    kept = urlencode(options | {name: str(value).lower() for name, value in flags.items()})
    address = RedisAddress(f"{base}?{kept}" if kept else base, cluster)
    _try_out(address.url)
    return address


def parse_redis_urls(text: str) -> list[RedisAddress]:
    """Read one URL, or those of several servers that are no cluster, separated by commas.

    Raises:
        BadOption, ValueError: as `parse_redis_url`; or they do not fit together.
    """
    addresses = [parse_redis_url(url) for url in _BETWEEN_URLS.split(text)]
    servers = [redis.Redis.from_url(address.url) for address in addresses]
    names = list(map(address_of, servers))
    for name, address in zip(names, addresses, strict=True):
        if len(names) > 1 and address.cluster:
            raise BadOption(f"it names several servers, and {name} says that it is a cluster")
    if twice := named_twice(servers):
        raise BadOption(f"it names {twice} twice")
    return addresses


def _split(url: str) -> Any:
    """The parts of a URL that is one.

    A / or # or ? in a password ends the host for redis-py, which then takes the beginning of the password for the host,
    or localhost, and database 0.
    """
    parts = urlsplit(url)
    is_path = "@" not in parts.path if parts.scheme == "unix" else re.fullmatch("/?[0-9]*", parts.path)
    if parts.fragment or "@" in parts.query or not is_path:
        raise ValueError
    return parts


def _pairs(query: str) -> list[tuple[str, str]]:
    """The options; one without a value counts as not given."""
    pairs = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if value]
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise BadOption(f"it gives {name} twice")
    return pairs


def _try_out(url: str) -> None:
    """Make a connection's object without connecting: redis-py looks at the options no earlier."""
    try:
        redis.ConnectionPool.from_url(url).make_connection()
    except TypeError as error:
        unknown = _UNKNOWN_OPTION.search(str(error))
        raise (BadOption(f"there is no option {unknown[1]}") if unknown else ValueError) from None
    except ValueError as error:
        bad = _BAD_VALUE.search(str(error))
        raise (BadOption(f"{bad[1]} cannot have this value") if bad else ValueError) from None
    except redis.RedisError as error:  # it names an option and what is wrong with it
        raise BadOption(str(error)) from None
