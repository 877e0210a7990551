"""Who looks at the page, and by which doors it reaches the servers: made by whoever serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import BoundedSemaphore
from typing import Any, Final, Protocol
from urllib.parse import quote

import psycopg
from psycopg import Connection

from merchant_usage.errors import PROGRAM, SettingsError, UsageError
from merchant_usage.model.run import CLI_IDS
from merchant_usage.settings import Settings, load_settings
from merchant_usage.sink import grants, schema
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import set_limits
from merchant_usage.source.shards import RedisClient

#: No query of the page runs longer: whoever waits has left by then, and the pipeline needs the server too.
QUERY_LIMIT: Final = "5s"
#: So many look at once, and so many more wait for that long (seconds): each holds a thread of the server, which in
#: Airflow has other work for them.
AT_ONCE: Final = 4
WAITING: Final = 8
PATIENCE: Final = 2.0

# What PostgreSQL says of a table, a view or a right that is not there.
_LACKING: Final = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedTable,
)


class NotServed(UsageError):
    """The page cannot be shown at the moment, whatever was asked of it."""

    heals = True


class NotTaken(UsageError):
    """A request is not carried out, for a reason of its own. `status` is that of HTTP."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


class TooSlow(NotTaken):
    """Comparing was given up."""

    def __init__(self, seconds: int) -> None:
        super().__init__(
            f"This takes more than {seconds} seconds here, and was given up; nothing was changed. Where there is so "
            f"much usage, compare on the command line: {PROGRAM} verify.",
            504,
        )


def served_settings() -> Settings:
    """The settings of the process that serves the page.

    Raises:
        NotServed: one of them is wrong, which is no fault of whoever looks.
    """
    try:
        return load_settings()
    except SettingsError as error:
        raise NotServed(str(error)) from None


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

    def servers(self, seconds: int | None = None) -> AbstractContextManager[tuple[RedisClient, Connection]]:
        """Redis and PostgreSQL, by the connections that runs use.

        Args:
            seconds: after these neither is asked anything more, and `TooSlow` is raised; None: they may take any time.
        """

    def aggregate(self, conf: dict[str, Any], by: str) -> str:
        """Start a run with Params `from_date`, `to_date`, `merchant_ids`. Returns its id.

        Args:
            by: who asks for it, which is written down.
        """


class Gate:
    """Lets in only so many at once; a few more wait a little."""

    def __init__(self, at_once: int = AT_ONCE, waiting: int = WAITING, patience: float = PATIENCE) -> None:
        self._inside = BoundedSemaphore(at_once)
        self._here = BoundedSemaphore(at_once + waiting)
        self._patience = patience

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be let in.

        Raises:
            NotServed: too many are there already.
        """
        with ExitStack() as stack:
            for room, patience in ((self._here, 0.0), (self._inside, self._patience)):
                if not room.acquire(timeout=patience):
                    raise NotServed("Too many look at this page at the moment. Try again in a few seconds.")
                stack.callback(room.release)
            yield


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
        reads_by: what `reading` is called by those who set it up.
        gate: bounds how many read at once.
    """

    settings: Callable[[], Settings]
    reading: Callable[[], AbstractContextManager[Connection]]
    visitor: Callable[..., Visitor]
    actor: Callable[..., Visitor] | None = None
    work: Work | None = None
    run_address: str = ""
    reads_by: str = "the connection of the page"
    gate: Gate = field(default_factory=Gate)

    def address_of_run(self, run_id: str) -> str:
        """Where Airflow shows a run, as seen from the page; empty where there is no Airflow, or none that knows it."""
        if run_id.startswith(CLI_IDS):
            return ""
        return self.run_address.format(run_id=quote(run_id, safe=""))

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection in a transaction that writes nothing, sees one moment, and waits for nothing without end.

        Raises:
            NotServed: too many read already, or PostgreSQL cannot be read by this connection.
            SchemaError: the tables are not there, or not as they must be.
            PostgresRefused: the role lacks a right.
        """
        with self.gate.entered(), self._opened() as conn:
            try:
                with _read_only(conn):
                    yield conn
            except _LACKING:
                # Says which, and what gives it.
                with _read_only(conn):
                    schema.check(conn, grants.PAGE)
                raise

    @contextmanager
    def _opened(self) -> Iterator[Connection]:
        with ExitStack() as stack:
            try:
                conn = stack.enter_context(self.reading())
            except UsageError as error:
                raise NotServed(f"{error} The page reads by {self.reads_by}.") from None
            yield conn


@contextmanager
def _read_only(conn: Connection) -> Iterator[None]:
    with conn.transaction():
        conn.execute(query("set_snapshot"))
        conn.execute(query("set_read_only"))
        set_limits(conn, {"lock_timeout": QUERY_LIMIT, "statement_timeout": QUERY_LIMIT})
        yield
