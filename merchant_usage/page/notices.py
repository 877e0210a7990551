"""What is wrong, in sentences, the worst first. Pure: what was read decides."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from merchant_usage.clock import format_duration
from merchant_usage.model.dates import MAX_DATES_NAMED
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.report import DateVerdict
from merchant_usage.page.days import Day
from merchant_usage.settings import Settings

#: Usage whose keys may expire within so long is told of while there is time.
SOON: Final = dt.timedelta(days=2)
#: What was unusual is news for so long; the calendar shows it longer.
NEWS: Final = dt.timedelta(weeks=4)
_BY_KIND: Final = {"bad": 0, "wait": 1, "none": 2, "good": 3}


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence, and the dates it is about, of which the page shows a few as links.

    Attributes:
        kind: bad, wait, none or good.
        place: an address, if it is about no date.
    """

    kind: str
    text: str
    dates: tuple[dt.date, ...] = ()
    place: str = ""

    @property
    def named(self) -> tuple[dt.date, ...]:
        """The dates that are shown, the newest."""
        return tuple(sorted(self.dates, reverse=True)[:MAX_DATES_NAMED])

    @property
    def more(self) -> int:
        """How many are not."""
        return len(self.dates) - len(self.named)


@dataclass(frozen=True, slots=True)
class Found:
    """What notices are made from.

    Attributes:
        letters: open dead letters by reason.
        changed: dates that the daily audit found to be not what was sealed, and has not found intact since.
        is_chain_broken: it found the chain of seals broken.
    """

    days: Sequence[Day]
    letters: Mapping[str, int]
    changed: Sequence[dt.date]
    is_chain_broken: bool


def notices(found: Found, now: dt.datetime, settings: Settings) -> list[Notice]:
    """All that somebody should look at, the worst first; one that says so if there is nothing."""
    if told := _sorted([*_of_seals(found), *about(found.days, now, settings), *_of_letters(found.letters)]):
        return told
    if not any(day.newest for day in found.days):
        return [Notice("none", "No run has aggregated anything yet.")]
    return [Notice("good", "All is well: every date is proven that should be, and nothing waits for anybody.")]


def about(days: Sequence[Day], now: dt.datetime, settings: Settings) -> list[Notice]:
    """What is wrong with some dates, the worst first; nothing if all is well."""
    return _sorted([*_of_verdicts(days), *_of_runs(days, now, settings), *_of_debts(days, now), *_unusual(days)])


def _sorted(told: list[Notice]) -> list[Notice]:
    return sorted(told, key=lambda notice: _BY_KIND[notice.kind])


def _of_seals(found: Found) -> Iterator[Notice]:
    if found.changed:
        yield Notice("bad", "What is stored is not what was sealed, says the daily audit:", tuple(found.changed))
    if found.is_chain_broken:
        yield Notice("bad", "The chain of seals is broken, says the daily audit. `merchant-usage audit` says where.")


def _of_verdicts(days: Sequence[Day]) -> Iterator[Notice]:
    by_verdict = {verdict: [day for day in days if day.verdict is verdict] for verdict in DateVerdict}
    waiting = [day for day in days if day.state.is_undecided]
    if waiting:
        yield _of("bad", "Counters went backwards and wait for a decision:", waiting)
    if wrong := [day for day in by_verdict[DateVerdict.MISMATCH] if day not in waiting]:
        yield _of("bad", "PostgreSQL does not hold what Redis holds:", wrong)
    if unproven := by_verdict[DateVerdict.NOT_PROVEN]:
        yield _of("bad", "A part of the run failed, so nothing is proven:", unproven)
    if unread := [day for day in by_verdict[DateVerdict.INCOMPLETE] if not day.state.is_decided_since]:
        yield _of("wait", "Nobody read the end of it while its keys lived; it waits for a decision:", unread)


def _of_runs(days: Sequence[Day], now: dt.datetime, settings: Settings) -> Iterator[Notice]:
    if failed := [day for day in days if day.newest and day.newest.has_failed and not day.state.is_ended]:
        yield _of("bad", "The newest run failed:", failed)
    deadline = dt.timedelta(seconds=settings.deadline_seconds)
    began_at = {day.date: day.newest.started_at for day in days if day.newest and day.newest.is_open}
    if stuck := {date: moment for date, moment in began_at.items() if now - moment > deadline}:
        age = format_duration(now - min(stuck.values()))
        told = f"A run began {age} ago and has come to no end; if nothing works on it, it was killed:"
        yield Notice("bad", told, tuple(stuck))


def _of_debts(days: Sequence[Day], now: dt.datetime) -> Iterator[Notice]:
    owed = [day for day in days if day.is_owed]
    if expiring := [day for day in owed if now < day.expires_at <= now + SOON]:
        left = format_duration(min(day.expires_at for day in expiring) - now)
        yield _of("bad", f"In {left} usage begins to expire in Redis that is not proven to be stored:", expiring)
    if gone := [day for day in owed if day.expires_at <= now]:
        yield _of("bad", "No run has come to an end with it, and its keys have begun to expire in Redis:", gone)
    if rest := [day for day in owed if day.expires_at > now + SOON]:
        yield _of("bad", "Over and settled, and not proven since:", rest)
    if late := [day for day in days if day.is_stale and not day.is_owed]:
        yield _of("bad", "No run has proven lately what is counted now:", late)


def _of_letters(letters: Mapping[str, int]) -> Iterator[Notice]:
    # Those that went backwards are told by date.
    if number := sum(count for reason, count in letters.items() if reason != Reason.COUNTER_REGRESSED):
        keys = "key cannot be counted" if number == 1 else "keys cannot be counted"
        yield Notice("wait", f"{number:,} {keys}: dead letters.", place="letters")


def _unusual(days: Sequence[Day]) -> Iterator[Notice]:
    newest = max((day.date for day in days), default=dt.date.min)
    days = [day for day in days if newest - day.date < NEWS]
    for which, than in (("high", "more"), ("low", "less")):
        if some := [day for day in days if day.unusual == which]:
            yield _of("wait", f"Much {than} was used than on the same weekday of the weeks before:", some)


def _of(kind: str, text: str, days: Sequence[Day]) -> Notice:
    return Notice(kind, text, tuple(day.date for day in days))
