"""Judges keys by all that is known of each: its row, what this run read, what Redis holds now, what people decided."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from psycopg import Connection

from merchant_usage.model.dead_letter import DeadLetter
from merchant_usage.model.keys import CounterKey, as_columns
from merchant_usage.model.verdict import Difference, Verdict, judge
from merchant_usage.settings import Settings
from merchant_usage.sink import absences, dead_letters
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import again_on_conflict
from merchant_usage.source.counters import MAX_VALUE, with_date
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.past import Past
from merchant_usage.steps.regressions import settle
from merchant_usage.steps.tally import MAX_ABSENCES_KEPT, Tally


class Observation(NamedTuple):
    """All that is known of a key."""

    key: CounterKey
    raw_key: bytes
    stored: int | None
    carried: int
    read: int | None
    now: int | DeadLetter | None

    @property
    def counted(self) -> int:
        """What the row says of the counter."""
        return (self.stored or 0) - self.carried


@dataclass(frozen=True, slots=True)
class Context:
    """What it takes to judge a key."""

    client: RedisClient
    conn: Connection
    settled: dict[dt.date, bool]
    prefix: str
    past: Past
    #: Keys with an open dead letter: their values may be large.
    suspects: frozenset[bytes]
    #: Dates on which keys went between the scan and storing: nobody has read these to their end.
    unread: frozenset[dt.date]
    #: Whether what is found is written down.
    writes: bool
    #: What this run read, of those keys whose row may hold less or is not there. None, unless rows were lowered.
    unsaved: dict[bytes, int] = field(default_factory=dict)
    #: Keys that went backwards and wait for a decision, and their dates.
    undecided: dict[bytes, dt.date] = field(default_factory=dict)

    def was_read_to_its_end(self, date: dt.date) -> bool:
        """Whether what the scan found of a date was read, and is all there is to come: that of a live one may grow."""
        return self.settled[date] and date not in self.unread

    def is_lost(self, seen: Observation, *, was_scanned: bool) -> bool:
        """Whether a counter that was stored is gone before its time, so that it may begin anew and be counted short.

        A row that neither this run nor one before it has read may never have been a counter.
        """
        date = seen.key.date
        if was_scanned and self.was_read_to_its_end(date):
            return False
        return (
            seen.now is None
            and seen.counted > 0
            and (seen.read is not None or was_scanned or self.past.was_read(date))
            and self.past.is_kept_still(date)
        )

    def note_unsaved(self, raw_key: bytes, least: int) -> None:
        """Take note of what was read of a key whose row may hold less."""
        self.unsaved[raw_key] = max(least, self.unsaved.get(raw_key, 0))

    def names_any(self, raw_keys: Iterable[bytes]) -> bool:
        """Whether a page has keys that are judged even if their rows hold what Redis has."""
        return bool(self.unsaved or self.undecided) and not (
            self.unsaved.keys().isdisjoint(raw_keys) and self.undecided.keys().isdisjoint(raw_keys)
        )


def judge_keys(context: Context, seen: Sequence[Observation], tally: Tally, *, was_scanned: bool = False) -> None:
    """Judge keys, and tally what is not as it should be.

    Args:
        was_scanned: the scan of this run has found them.
    """
    seen = [each._replace(now=_fitting(each)) for each in seen]
    lower = {
        each.raw_key: each.stored
        for each in seen
        if each.stored is not None and (each.now is None or (isinstance(each.now, int) and each.counted > each.now))
    }
    kept = dead_letters.kept(context.conn, lower)
    absent: list[CounterKey] = []
    for each in seen:
        if isinstance(each.now, DeadLetter):
            was_good = each.stored is not None or each.read is not None
            tally.add_bad(each.key, each.counted, with_date(each.now, each.key.date), was_good=was_good)
            continue
        is_known = each.raw_key in context.undecided
        verdict = judge(
            stored=each.stored,
            carried=each.carried,
            read=each.read,
            now=each.now,
            settled=context.settled[each.key.date],
            accepted_from=kept.get(each.raw_key),
        )
        is_excused = kept.get(each.raw_key, 0) is None  # gone, and a person said that what is stored is right
        is_lost = verdict is Verdict.EXPIRED and not is_excused and context.is_lost(each, was_scanned=was_scanned)
        if not verdict.fails and (is_known or is_lost):
            verdict = Verdict.REGRESSED
        if verdict is Verdict.EXPIRED and each.counted > 0 and context.past.is_within_retention(each.key.date):
            absent.append(each.key)
        tally.by_date[each.key.date].kept += verdict is Verdict.MATCH and each.counted > (each.now or 0)
        tally.add(
            Difference(each.key, verdict, each.stored, each.carried, each.read, each.now),
            is_known=is_known,
            was_read=was_scanned and context.was_read_to_its_end(each.key.date),
        )
    if context.writes and absent and len(tally.absent) < MAX_ABSENCES_KEPT:
        tally.absent += absences.unnoted(context.conn, absent)


def _fitting(seen: Observation) -> int | DeadLetter | None:
    """The counter, if it can be stored on top of what is carried."""
    if isinstance(seen.now, int) and seen.now > MAX_VALUE - seen.carried:
        return DeadLetter.overflow(seen.raw_key, seen.key.date, counter=seen.now, carried=seen.carried)
    return seen.now


def state_regressions(context: Context, tally: Tally, settings: Settings) -> None:
    """Look once more, with rows locked, at what verification was the first to see. What is still so gets a letter."""
    keys = [found.key for found in tally.regressed] + tally.vanished
    vanishing = {date for date in context.settled if context.past.is_kept_still(date)} if keys else set()
    settled = again_on_conflict(partial(settle, context.client, context.conn, keys, settings, vanishing))
    for found in tally.regressed:
        if found.key not in settled.regressed:
            tally.withdraw(found)
    tally.regressed = [found for found in tally.regressed if found.key in settled.regressed]
    if tally.letters:
        # What storing has told already is no second attempt.
        known = dead_letters.open_keys(context.conn, context.settled)
        dead_letters.open_letters(context.conn, (each for each in tally.letters if each.redis_key not in known))


def stored_rows(conn: Connection, keys: Sequence[CounterKey]) -> dict[CounterKey, tuple[int | None, int]]:
    """What is stored for these keys: metric_value and carried."""
    rows = conn.execute(query("select_rows"), as_columns(keys))
    return {CounterKey(*row[:3]): (row[3], row[4]) for row in rows}
