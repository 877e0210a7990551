"""Counters that were gone from Redis and are back: they began anew, unless Redis was restored."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from psycopg import Connection

from merchant_usage.log import Log
from merchant_usage.model.batches import Census
from merchant_usage.model.dead_letter import DeadLetter
from merchant_usage.model.keys import CounterKey, build_key, parse_key
from merchant_usage.model.pages import key_pages, pages
from merchant_usage.sink import absences, dead_letters, ledger
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
    flagged: Counter[dt.date] = Counter()
    for keys in _were_gone(conn, census, sorted(dates), prefix):
        flagged.update(_flag(client, conn, keys, prefix))
    for date, number in flagged.items():
        log.warning(
            f"{number:,} counters of {date} were gone from Redis, and are back with more than is stored: they began "
            "anew, or Redis was restored. A person has to decide.",
            date=str(date),
            flagged=number,
        )


def _were_gone(
    conn: Connection, census: Census, dates: Sequence[dt.date], prefix: str
) -> Iterator[Sequence[CounterKey]]:
    """Keys that were gone when a run last looked: all of a date, or those that are noted."""
    for date in ledger.emptied_dates(conn, [date for date in dates if census.merchant_count(date)]):
        for page in key_pages(census.groups(date), prefix):
            yield [key for raw in page.raw_keys if isinstance(key := parse_key(raw, prefix), CounterKey)]
    yield from pages(absences.noted(conn, dates))


def _flag(client: RedisClient, conn: Connection, keys: Sequence[CounterKey], prefix: str) -> list[dt.date]:
    """Open the letters; returns the date of each. What is back is gone no more."""
    with transaction(conn, LIMITS):
        rows = lock_rows(conn, keys)
        raw_keys = [build_key(prefix, key) for key, _, _ in rows]
        known = dead_letters.lock_regressions(conn, raw_keys)
        values = read_page(client, raw_keys)
        letters = [
            DeadLetter.regression(raw_key, key.date, redis=value, postgres=stored, carried=carried)
            for (key, stored, carried), raw_key, value in zip(rows, raw_keys, values, strict=True)
            if isinstance(value, int) and value > stored - carried > 0 and raw_key not in known
        ]
        dead_letters.open_letters(conn, letters)
        absences.forget(conn, [key for (key, *_), value in zip(rows, values, strict=True) if isinstance(value, int)])
    return [letter.usage_date for letter in letters if letter.usage_date is not None]
