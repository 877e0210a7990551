"""Counters that are back on dates of which Redis had nothing left: they began anew, unless Redis was restored."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from psycopg import Connection

from merchant_usage.log import Log
from merchant_usage.model.batches import Census
from merchant_usage.model.dead_letter import DeadLetter
from merchant_usage.model.keys import CounterKey, parse_key
from merchant_usage.model.pages import key_pages
from merchant_usage.sink import dead_letters, ledger
from merchant_usage.sink.merchant_usage import lock_rows
from merchant_usage.sink.transactions import transaction
from merchant_usage.source.counters import read_page
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.regressions import LIMITS

log = Log(__name__)


def flag_returned(client: RedisClient, conn: Connection, census: Census, dates: Iterable[dt.date], prefix: str) -> None:
    """Open a `counter_regressed` for each that has overtaken its row, which would otherwise hide that it began anew.

    One below its row is seen to have fallen anyway, and one that is what is stored came back with a backup of Redis.
    """
    for date in ledger.emptied_dates(conn, dates):
        flagged = 0
        for page in key_pages(census.groups(date), prefix):
            keys = {key: raw for raw in page.raw_keys if isinstance(key := parse_key(raw, prefix), CounterKey)}
            with transaction(conn, LIMITS):
                rows = lock_rows(conn, list(keys))
                known = dead_letters.lock_regressions(conn, keys.values())
                values = read_page(client, [keys[key] for key, _, _ in rows])
                letters = [
                    DeadLetter.regression(keys[key], date, redis=value, postgres=stored, carried=carried)
                    for (key, stored, carried), value in zip(rows, values, strict=True)
                    if isinstance(value, int) and value > stored - carried > 0 and keys[key] not in known
                ]
                dead_letters.open_letters(conn, letters)
            flagged += len(letters)
        if flagged:
            log.warning(
                f"Redis had nothing left of {date}, and has {flagged:,} of its counters again, with more than is "
                "stored: they began anew, or Redis was restored. A person has to decide.",
                date=str(date),
                flagged=flagged,
            )
