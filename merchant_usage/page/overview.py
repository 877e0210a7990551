"""The overview: how the dates stand, the worst first."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from psycopg import Connection

from merchant_usage.settings import Settings
from merchant_usage.sink import ledger


@dataclass(frozen=True, slots=True)
class Overview:
    """What the overview shows."""

    now: dt.datetime
    rows: list[dict[str, object]]


def read(conn: Connection, now: dt.datetime, settings: Settings) -> Overview:
    """From the ledger."""
    del settings
    return Overview(now, ledger.newest_runs(conn, now.date() - dt.timedelta(days=28), now.date()))
