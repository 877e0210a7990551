"""`./run bench --page`: how long the views of the usage page take, asked over HTTP, and what they read for it."""

from __future__ import annotations

import datetime as dt
import http.client
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from psycopg import Connection

from bench.page_data import DAYS_OF_HISTORY, METRICS, UNDECIDED, WITH_HISTORY, PageData
from bench.tables import Sheet, yes_or_no
from local.servers import Postgres
from merchant_usage.connections import POSTGRES_URL

#: What a person who waits takes for at once.
TARGET_MILLISECONDS: Final = 300
PERCENTILE: Final = 0.95
#: How many ask at the same time.
CLIENTS: Final = (1, 4)
#: Some that are not counted: the server imports, and PostgreSQL reads its catalogue.
FIRST_REQUESTS: Final = 5
#: What is drawn from needs so many of each.
LEAST: Final = 10
MERCHANTS: Final = 100_000
DAYS: Final = 30
REQUESTS: Final = 200
END_SECONDS: Final = 10
#: Nothing is done besides, and nothing is kept.
POSTGRES_SETTINGS: Final = {"autovacuum": "off", "max_wal_size": "16GB", "fsync": "off"}
# What each request read of these: their partitions count, too.
READ: Final = """
    SELECT CASE WHEN relname LIKE 'usage_hourly_history%' THEN 'usage_hourly_history' ELSE relname END AS name,
           sum(coalesce(seq_tup_read, 0))::float, sum(coalesce(idx_tup_fetch, 0))::float
    FROM pg_stat_user_tables
    WHERE relname = 'merchant_usage' OR relname LIKE 'usage_hourly_history%'
    GROUP BY name
"""
IDLE: Final = """
    SELECT count(*) = 0
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@dataclass(frozen=True)
class Dice:
    """Draws what is asked for."""

    data: PageData
    random: random.Random

    def merchant(self, *, with_history: bool = False) -> str:
        """Any; or one of those that have an hourly history."""
        step = WITH_HISTORY if with_history else 1
        return f"merchant_{self.random.randrange(0, self.data.merchants, step):06d}"

    def date(self, days: int) -> dt.date:
        """One of the newest days."""
        return self.data.last - dt.timedelta(days=self.random.randrange(days))


def overview(dice: Dice) -> str:
    """How all dates stand."""
    del dice
    return "/"


def year(dice: Dice) -> str:
    """The same with as many weeks as there are."""
    del dice
    return _address("/", weeks=53)


def date(dice: Dice) -> str:
    """Any date of the month; among them those on which counters wait for a decision."""
    days = dice.random.choice((*UNDECIDED, None))
    day = dice.date(dice.data.days) if days is None else dice.data.last - dt.timedelta(days=days)
    return _address("/date", date=day)


def letters(dice: Dice) -> str:
    """Keys that could not be counted, for one reason."""
    return _address("/letters", reason=dice.random.choice(("negative", "wrong_type", "too_late", "counter_regressed")))


def merchant(dice: Dice) -> str:
    """A merchant's days."""
    return _address("/merchant", merchant=dice.merchant())


def merchant_hours(dice: Dice) -> str:
    """A merchant's days, of one that has an hourly history."""
    return _address("/merchant", merchant=dice.merchant(with_history=True))


def search(dice: Dice) -> str:
    """The beginning of an id, of which there may be many."""
    name = dice.merchant()
    return _address("/merchants", begins=name[: dice.random.randint(len("m"), len(name))])


def number_explained(dice: Dice) -> str:
    """One number of a day that is read by the hour, or of any day."""
    days = dice.random.choice((DAYS_OF_HISTORY, dice.data.days))
    asked = {"merchant": dice.merchant(with_history=True), "date": dice.date(min(days, dice.data.days))}
    return _address("/explain", **asked, metric=f"metric_{dice.random.randrange(METRICS)}")


VIEWS: Final[dict[str, Callable[[Dice], str]]] = {
    "overview": overview,
    "overview of a year": year,
    "a date": date,
    "dead letters of a reason": letters,
    "a merchant": merchant,
    "a merchant with hourly history": merchant_hours,
    "merchants by the beginning of their ids": search,
    "a number explained": number_explained,
}


def _address(path: str, **query: Any) -> str:
    return f"{path}?{urlencode({name: str(value) for name, value in query.items()})}"


def measure(postgres: Postgres, conn: Connection, data: PageData, requests: int = REQUESTS) -> dict[str, Any]:
    """Ask each view so often, by one client and by several at once; returns milliseconds and rows read."""
    views: dict[str, Any] = {}
    with _served(postgres) as url:
        for name, view in VIEWS.items():
            dice = Dice(data, random.Random(name))  # noqa: S311 - no secrets
            _ask(url, [view(dice) for _ in range(FIRST_REQUESTS)])
            before = _read(conn)
            taken = {str(clients): _timed(url, [view(dice) for _ in range(requests)], clients) for clients in CLIENTS}
            after = _read(conn)
            asked = requests * len(CLIENTS)
            views[name] = {
                "milliseconds": taken,
                "scanned": sum(after[table][0] - before[table][0] for table in after),
                "fetched": sum(after[table][1] - before[table][1] for table in after) / asked,
            }
            print(f"page: {name} measured", file=sys.stderr)
    return {"description": data.description, "requests": requests, "views": views}


@contextmanager
def _served(postgres: Postgres) -> Iterator[str]:
    """The page in a process of its own, as the command serves it."""
    with subprocess.Popen(
        [sys.executable, "-m", "merchant_usage", "page"],
        env={**os.environ, POSTGRES_URL: postgres.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        try:
            assert server.stdout
            yield server.stdout.readline().strip()
        finally:
            server.terminate()
            server.wait(END_SECONDS)


def _timed(url: str, addresses: list[str], clients: int) -> list[float]:
    """The milliseconds of each answer, from all clients."""
    with ThreadPoolExecutor(clients) as pool:
        parts = [addresses[number::clients] for number in range(clients)]
        return [taken for each in pool.map(lambda part: _ask(url, part), parts) for taken in each]


def _ask(url: str, addresses: list[str]) -> list[float]:
    server = urlsplit(url)
    assert server.hostname
    asker = http.client.HTTPConnection(server.hostname, server.port)
    taken = []
    for address in addresses:
        started = time.perf_counter()
        asker.request("GET", address)
        answer = asker.getresponse()
        text = answer.read()
        taken.append((time.perf_counter() - started) * 1000)
        if answer.status != http.client.OK:
            raise SystemExit(f"{address} answered {answer.status}: {text[:2000].decode(errors='replace')}")
    asker.close()
    return taken


def _read(conn: Connection) -> dict[str, tuple[float, float]]:
    """Rows read by scans of whole tables and by indexes, by table. A session tells them when it ends."""
    while conn.execute(IDLE).fetchone() == (False,):
        time.sleep(0.05)
    return {name: (scanned, fetched) for name, scanned, fetched in conn.execute(READ)}


def percentile(taken: list[float], share: float) -> float:
    """The smallest time that so many were no longer than."""
    return sorted(taken)[max(0, -int(-share * len(taken) // 1) - 1)]


def sheets(measured: dict[str, Any]) -> list[Sheet]:
    """The views, and whether they are fast enough."""
    rows = []
    for name, view in measured["views"].items():
        for clients, taken in view["milliseconds"].items():
            slow = percentile(taken, PERCENTILE)
            rows.append(
                (
                    name,
                    clients,
                    f"{percentile(taken, 0.5):.0f}",
                    f"{slow:.0f}",
                    f"{max(taken):.0f}",
                    yes_or_no(slow < TARGET_MILLISECONDS),
                    f"{view['fetched']:,.0f}",
                    "no" if view["scanned"] == 0 else f"{view['scanned']:,.0f} rows",
                )
            )
    headings = ("view", "clients", "p50 ms", "p95 ms", "max ms", f"p95 < {TARGET_MILLISECONDS}", "rows read", "scans")
    title = f"The usage page: {measured['description']}; each view asked {measured['requests']} times"
    return [Sheet(title, headings, rows)]
