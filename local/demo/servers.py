"""The demo's servers: those that the environment names, or else its own."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from local.servers import Postgres, Valkey
from merchant_usage.connections import POSTGRES_URL, REDIS_URL


@dataclass(frozen=True, slots=True)
class Servers:
    """Where Redis and PostgreSQL are, with passwords, and whether the demo started them."""

    redis_url: str
    postgres_url: str
    own_redis: bool
    own_postgres: bool

    @property
    def places(self) -> str:
        """Which servers these are, without passwords."""
        redis = f"{'Started Valkey' if self.own_redis else 'Redis'} at {_place(self.redis_url)}"
        postgres = f"{'started PostgreSQL' if self.own_postgres else 'PostgreSQL'} at {_place(self.postgres_url)}"
        return f"{redis}, {postgres}"


def open_servers(stack: ExitStack, folder: Path, environ: MutableMapping[str, str]) -> Servers:
    """Start what the environment does not name; `stack` will end it."""
    redis_url, postgres_url = environ.get(REDIS_URL, "").strip(), environ.get(POSTGRES_URL, "").strip()
    if not postgres_url:
        # A PGSSLMODE or PGSERVICE that is meant for another server would keep us out of our own.
        for name in [name for name in environ if name.startswith("PG")]:
            del environ[name]
    return Servers(
        redis_url=redis_url or stack.enter_context(Valkey(folder / "redis")).url,
        postgres_url=postgres_url or stack.enter_context(Postgres(folder / "postgres")).url,
        own_redis=not redis_url,
        own_postgres=not postgres_url,
    )


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname or 'localhost'}:{parts.port or 'its usual port'}"
