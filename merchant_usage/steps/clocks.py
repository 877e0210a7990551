"""Compares the clock of this machine with those of the two servers: the dates of a run hang on it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Final

from psycopg import Connection

from merchant_usage import clock
from merchant_usage.driver_errors import REDIS_ERRORS
from merchant_usage.errors import ClocksDisagree
from merchant_usage.log import Log
from merchant_usage.sink.queries import query
from merchant_usage.source.server import tell_time
from merchant_usage.source.shards import RedisClient

log = Log(__name__)

#: Clocks that are kept right are milliseconds apart; a minute is a clock that nobody keeps.
WARN_FROM: Final = dt.timedelta(minutes=1)
#: From here on a run might take a date for over that is not, and close it.
REFUSE_FROM: Final = dt.timedelta(minutes=10)


def require_right_clock(client: RedisClient, conn: Connection) -> None:
    """Warn of a clock that is off, and refuse to go by one that is far off, whose-ever it is.

    For whoever begins a run by the time of this machine. A Redis that does not tell the time, because the user may not
    ask it or because it does not answer, is passed over: whoever scans it hears of that.

    Raises:
        ClocksDisagree: two clocks are more than ten minutes apart. It heals: another worker may have the right time.
    """
    readings = {
        "Redis": _difference(lambda: _time_of_redis(client)),
        "PostgreSQL": _difference(lambda: _time_of_postgres(conn)),
    }
    known = {name: difference for name, difference in readings.items() if difference is not None}
    furthest = max(map(abs, known.values()), default=dt.timedelta())
    if furthest <= WARN_FROM:
        return
    now = clock.now()
    others = [f"{name} has {_format(now + difference)} ({_apart(difference)})" for name, difference in known.items()]
    sentence = f"The clocks do not agree: this machine has {_format(now)}, {' and '.join(others)}."
    if furthest > REFUSE_FROM:
        raise ClocksDisagree(sentence)
    log.warning(sentence, seconds=round(furthest.total_seconds()))


def _difference(ask: Callable[[], float | None]) -> dt.timedelta | None:
    """How far another clock is ahead of ours, as little as the answer's time on the way allows for."""
    before = clock.now()
    seconds = ask()
    after = clock.now()
    if seconds is None:
        return None
    theirs = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return theirs - min(max(theirs, before), after)


def _time_of_redis(client: RedisClient) -> float | None:
    try:
        return tell_time(client)
    except REDIS_ERRORS:
        return None


def _time_of_postgres(conn: Connection) -> float | None:
    row = conn.execute(query("select_time")).fetchone()
    return None if row is None else float(row[0])


def _format(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _apart(difference: dt.timedelta) -> str:
    seconds = round(difference.total_seconds())
    return f"{abs(seconds):,} s {'ahead' if seconds >= 0 else 'behind'}"
