"""Who looks at the page, and by which doors it reaches the servers: made by whoever serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from psycopg import Connection

from merchant_usage.settings import Settings
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import set_limits
from merchant_usage.source.shards import RedisClient

#: No query of the page runs longer: whoever waits has left by then, and the pipeline needs the server too.
QUERY_LIMIT: Final = "5s"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who looks at the page.

    Attributes:
        name: as it is written down where something is changed; empty if nobody asked for it.
        may_act: whether buttons that change something are shown. The routes behind them ask again.
    """

    name: str
    may_act: bool


class Work(Protocol):
    """What the page can set going: through the pipeline's own connections, never the page's."""

    def servers(self) -> AbstractContextManager[tuple[RedisClient, Connection]]:
        """Redis and PostgreSQL, by the connections that runs use."""

    def aggregate(self, conf: dict[str, Any], by: str) -> str:
        """Start a run with Params `from_date`, `to_date`, `merchant_ids`. Returns its id."""


@dataclass(frozen=True)
class Doors:
    """What the page is served with.

    Attributes:
        settings: read anew at each request.
        reading: a connection of a role that needs read rights only.
        visitor: a dependency of FastAPI that says who looks, and refuses whoever may not (401, 403).
        actor: the same for what changes something; None: nothing can be changed here.
        work: what the buttons set going; None where there are none.
        run_address: where Airflow shows a run, as a format string with `run_id`; empty: nowhere.
    """

    settings: Callable[[], Settings]
    reading: Callable[[], AbstractContextManager[Connection]]
    visitor: Callable[..., Visitor]
    actor: Callable[..., Visitor] | None = None
    work: Work | None = None
    run_address: str = ""

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection in a transaction that writes nothing, sees one moment, and waits for nothing without end."""
        with self.reading() as conn, conn.transaction():
            conn.execute(query("set_snapshot"))
            conn.execute(query("set_read_only"))
            set_limits(conn, {"lock_timeout": QUERY_LIMIT, "statement_timeout": QUERY_LIMIT})
            yield conn
