"""Decides with rows locked whether counters went backwards: the one place where that is stated.

A reading below what is stored may only be an older one. With its row locked no run can raise it, so a counter that is
read then and is still lower has itself gone backwards. Used wherever such a thing is suspected.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from psycopg import Connection

from merchant_usage.log import Log
from merchant_usage.model.dead_letter import DeadLetter, Reason
from merchant_usage.model.keys import CounterKey, build_key
from merchant_usage.model.pages import pages
from merchant_usage.settings import OnRegression, Settings
from merchant_usage.sink import dead_letters
from merchant_usage.sink.dead_letters import Regression
from merchant_usage.sink.merchant_usage import RowWrite, lock_rows, set_rows
from merchant_usage.sink.transactions import transaction
from merchant_usage.source.counters import MAX_VALUE, read_page, with_date
from merchant_usage.source.shards import RedisClient

log = Log(__name__)

# A lock of somebody else is waited for this long; a statement may take this long. Then the task is retried.
LIMITS: Final = {"lock_timeout": "20s", "statement_timeout": "120s"}


@dataclass(slots=True)
class Settled:
    """What became of suspects, by date: rows that were raised, and counters found below what was stored.

    `regressed` are all that went backwards and wait for a decision, or were carried now.
    """

    raised: Counter[dt.date] = field(default_factory=Counter)
    below: Counter[dt.date] = field(default_factory=Counter)
    regressed: set[CounterKey] = field(default_factory=set)
    #: Keys whose counters do not fit on top of what is carried.
    overflowing: set[bytes] = field(default_factory=set)


class _Row(NamedTuple):
    """A locked row, its counter read again, and what is known of it."""

    key: CounterKey
    raw_key: bytes
    stored: int
    carried: int
    #: None: the key is gone.
    counter: int | None
    letter: Regression | None

    @property
    def counted(self) -> int:
        """What the row says of the counter."""
        return self.stored - self.carried


@dataclass(slots=True)
class _Outcome:
    """What a page of rows comes to."""

    letters: list[DeadLetter] = field(default_factory=list)
    writes: list[RowWrite] = field(default_factory=list)
    #: Those of them that raise a row to its counter.
    raised: set[CounterKey] = field(default_factory=set)
    carried_keys: list[bytes] = field(default_factory=list)


def settle(
    client: RedisClient,
    conn: Connection,
    keys: Iterable[CounterKey],
    settings: Settings,
    vanishing: Iterable[dt.date] = (),
) -> Settled:
    """Read suspects again with their rows locked: raise the row, or state that the counter went backwards.

    Args:
        vanishing: dates on which a key that is gone has gone before its time.
    """
    settled = Settled()
    dates = frozenset(vanishing)
    for page in pages(keys):
        with transaction(conn, LIMITS):
            outcome = _Outcome()
            for row in _read_locked(client, conn, page, settings.key_prefix, settled, outcome, dates):
                _settle_row(row, settings, settled, outcome)
            written = set_rows(conn, outcome.writes, history=settings.hourly_history)
            settled.raised.update(key.date for key in outcome.raised & written)
            dead_letters.open_letters(conn, outcome.letters)
            dead_letters.resolve(conn, outcome.carried_keys, [Reason.COUNTER_REGRESSED])
    return settled


def _read_locked(
    client: RedisClient,
    conn: Connection,
    page: Sequence[CounterKey],
    prefix: str,
    settled: Settled,
    outcome: _Outcome,
    vanishing: frozenset[dt.date],
) -> list[_Row]:
    """The rows that have to be decided; those that are as a person decided, or hold no counter, are done with."""
    rows = lock_rows(conn, page)
    raw_keys = [build_key(prefix, key) for key, _, _ in rows]
    letters = dead_letters.lock_regressions(conn, raw_keys)
    decided = dead_letters.kept(conn, {raw: stored for raw, (_, stored, _) in zip(raw_keys, rows, strict=True)})
    found = []
    for (key, stored, carried), raw_key, value in zip(rows, raw_keys, read_page(client, raw_keys), strict=True):
        letter = letters.get(raw_key)
        if isinstance(value, DeadLetter):
            outcome.letters.append(with_date(value, key.date))
        elif value is not None and value > MAX_VALUE - carried:
            outcome.letters.append(DeadLetter.overflow(raw_key, key.date, counter=value, carried=carried))
            settled.overflowing.add(raw_key)
        elif letter is None and (
            value == stored - carried
            or (value is None and key.date not in vanishing)
            or _is_excused(raw_key, value, decided)
        ):
            if value is not None and value != stored - carried and value < stored - carried:
                log.info(f"{key} stays at {stored:,}, as was decided; Redis has {value:,}")
        else:
            found.append(_Row(key, raw_key, stored, carried, value, letter))
    return found


def _is_excused(raw_key: bytes, value: int | None, decided: dict[bytes, int | None]) -> bool:
    """Whether a person decided that what is stored is right, seeing the counter no higher than it is now."""
    if raw_key not in decided:
        return False
    seen = decided[raw_key]
    return value is None if seen is None else value is not None and value >= seen


def _settle_row(row: _Row, settings: Settings, settled: Settled, outcome: _Outcome) -> None:
    if row.letter is None and row.counter is not None and row.counter > row.counted:
        outcome.writes.append(RowWrite(row.key, row.carried + row.counter, row.carried))
        outcome.raised.add(row.key)
        return
    counter = row.counter or 0
    base = row.stored
    if row.letter is not None:
        # It fell before. What it had reached when it was last seen comes on top if it has fallen once more since.
        last_seen = row.letter.last_seen or 0
        base = row.letter.base + (last_seen if counter < last_seen else 0)
    letter = DeadLetter.regression(
        row.raw_key, row.key.date, redis=row.counter, postgres=row.stored, carried=row.carried, base=base
    )
    outcome.letters.append(letter)
    carry = settings.on_regression is OnRegression.CARRY and base <= MAX_VALUE - counter
    if carry:
        outcome.writes.append(RowWrite(row.key, base + counter, base, correction=True))
        outcome.carried_keys.append(row.raw_key)
    elif counter > row.counted:
        outcome.writes.append(RowWrite(row.key, row.carried + counter, row.carried))
        outcome.raised.add(row.key)
    settled.regressed.add(row.key)
    settled.below[row.key.date] += counter < row.counted
    if row.letter is None or carry:
        log.warning(
            f"{row.key} went backwards: {letter.detail}; {'carried on from' if carry else 'kept'} {base:,}",
            merchant=row.key.merchant_id,
            metric=row.key.metric_type,
            date=str(row.key.date),
            redis=row.counter,
            postgres=row.stored,
        )
