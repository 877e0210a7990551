"""Asks the servers whether they evict keys when their memory is full."""

from __future__ import annotations

import logging
from typing import Any, Final

from redis.exceptions import ResponseError
from redis.utils import str_if_bytes

from merchant_usage.model.risk import ServerState
from merchant_usage.source.server import INFO_LINE, servers_of
from merchant_usage.source.shards import RedisClient

# The policy that evicts nothing; without a limit of memory none does.
_NO_EVICTION: Final = "noeviction"

log = logging.getLogger(__name__)


def server_states(client: RedisClient) -> list[ServerState]:
    """What each server says of its memory, on a cluster each primary. Of those that may not be asked nothing.

    Raises:
        redis.exceptions.ConnectionError: one does not answer.
    """
    states = (_state(server.connection_pool) for server in servers_of(client))
    return [state for state in states if state is not None]


def _state(pool: Any) -> ServerState | None:
    connection = pool.get_connection()
    try:
        connection.send_command("INFO", check_health=False)
        info = dict(INFO_LINE.findall(str_if_bytes(connection.read_response())))
    except ResponseError as error:  # INFO is forbidden, or renamed
        log.debug("Whether keys are evicted is not known: %s", error)
        return None
    finally:
        pool.release(connection)
    if not {"run_id", "evicted_keys"} <= info.keys():
        return None
    policy = info.get("maxmemory_policy", _NO_EVICTION)
    may_evict = policy != _NO_EVICTION and info.get("maxmemory", "0") != "0"
    return ServerState(_address(connection), info["run_id"], int(info["evicted_keys"]), policy if may_evict else None)


def _address(connection: Any) -> str:
    host = getattr(connection, "host", None)
    return f"{host}:{connection.port}" if host is not None else str(getattr(connection, "path", ""))
