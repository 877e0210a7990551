"""Decides what is told and what is left out, so that bad news comes once and never in a storm. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from merchant_usage.alerts.alert import Alert, AlertKind

#: Messages of a kind within this time at most: a backfill of a week that fails is told three times, not 168.
WINDOW: Final = dt.timedelta(hours=6)
AT_MOST: Final = 3
DAY: Final = dt.timedelta(days=1)
#: There are four dangers that a source may be in, each told by itself.
AT_MOST_OF: Final = {AlertKind.STILL_FAILING: 1, AlertKind.SOURCE_AT_RISK: 4}
#: What is news once and stands for nothing that goes on: nothing has to put it right.
PASSING: Final = frozenset(
    {AlertKind.RECOVERED, AlertKind.REFUSED, AlertKind.COUNTER_REGRESSED, AlertKind.DEAD_LETTERS}
)
#: From this failed run in a row on it is no accident any more.
STILL_FAILING_FROM: Final = 3
INCIDENT_KEY: Final = "incident"


@dataclass(frozen=True, slots=True)
class Entry:
    """An alert that was raised. `sent`: a message went out. `resolved_at`: a later run put it right."""

    key: str
    kind: AlertKind
    raised_at: dt.datetime
    run_id: str | None = None
    sent: bool = False
    resolved_at: dt.datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether nothing has put it right yet."""
        return self.resolved_at is None


@dataclass(frozen=True, slots=True)
class Notification:
    """An alert to send, and how many of its kind were left out since the last one."""

    alert: Alert
    left_out: int = 0
    in_a_row: int = 1


@dataclass(frozen=True, slots=True)
class FailedDelivery:
    """A message that was not told. `perhaps`: it went out whole and got no answer, so it may have arrived."""

    key: str
    perhaps: bool = False


class Register:
    """What was raised so far, as far as it matters. `changed` holds what has to be kept."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self.entries = {entry.key: entry for entry in entries}
        self.changed: dict[str, Entry] = {}

    def raise_alert(self, alert: Alert, now: dt.datetime) -> Notification | None:
        """Enter an alert; returns what to send, or None if it was told before or would be one too many."""
        if self.is_told(alert.key):
            return None
        failures = self._open_failures() - {alert.key}
        in_a_row = len(failures) + 1
        kind = AlertKind.STILL_FAILING if alert.kind.is_failure and in_a_row >= STILL_FAILING_FROM else alert.kind
        send = self.has_room(kind, now)
        left_out = self._left_out(kind, alert.key) if send else 0
        self._keep(Entry(alert.key, kind, now, alert.run_id, send, now if kind in PASSING else None))
        return Notification(replace(alert, kind=kind), left_out, in_a_row) if send else None

    def is_told(self, key: str) -> bool:
        """Whether an alert was told, and nothing has put it right since."""
        entry = self.entries.get(key)
        return entry is not None and entry.is_open and entry.sent

    def has_room(self, kind: AlertKind, now: dt.datetime) -> bool:
        """Whether one more message of this kind may go out now."""
        recent = [e for e in self.entries.values() if e.kind is kind and e.sent and e.raised_at > now - WINDOW]
        return len(recent) < AT_MOST_OF.get(kind, AT_MOST)

    def recover(self, now: dt.datetime) -> list[Entry]:
        """Close all that a verified run puts right; returns it, with what an earlier one did and nobody was told of."""
        unheard = {
            entry.raised_at for entry in self.entries.values() if entry.kind is AlertKind.RECOVERED and not entry.sent
        }
        closed = [
            entry
            for entry in self.entries.values()
            if entry.kind.ends_with_recovery and (entry.is_open or entry.resolved_at in unheard)
        ]
        for entry in closed:
            self._keep(replace(entry, resolved_at=now))
        return closed

    def end_others(self, kind: AlertKind, going_on: Iterable[str], now: dt.datetime) -> None:
        """Close what is open of a kind but does not go on, so that it is told again when it comes back.

        A day after it was told at the earliest: what comes and goes is told once a day.
        """
        kept = set(going_on)
        for entry in list(self.entries.values()):
            if entry.kind is kind and entry.is_open and entry.key not in kept and entry.raised_at <= now - DAY:
                self._keep(replace(entry, resolved_at=now))

    def take_over(self, entries: Iterable[Entry]) -> None:
        """Enter what another register has raised, taken back or put right meanwhile."""
        for entry in entries:
            mine = self.entries.get(entry.key)
            if mine is None or mine.raised_at < entry.raised_at:
                self._keep(entry)
            elif mine.raised_at == entry.raised_at and mine != (both := _merged(mine, entry)):
                self._keep(both)

    def unsent(self, messages: Iterable[FailedDelivery], now: dt.datetime) -> list[str]:
        """Note that these were not told after all; returns the keys of those that are news still.

        What may have arrived counts as told, but for one of each kind within the window: Slack that takes messages and
        answers too late must not get the same one from every run, nor keep news from people by one bad moment.
        """
        again = []
        for message in messages:
            entry = self.entries.get(message.key)
            if entry is not None and not (message.perhaps and self._was_repeated(entry.kind, now)):
                self._keep(replace(entry, sent=False))
                again.append(message.key)
        return again

    def is_failing(self) -> bool:
        """Whether so many runs in a row have failed that somebody has to be called."""
        return len(self._open_failures()) >= STILL_FAILING_FROM

    def has_incident(self) -> bool:
        """Whether an incident is open."""
        incident = self.entries.get(INCIDENT_KEY)
        return incident is not None and incident.is_open

    def set_incident(self, now: dt.datetime, *, is_open: bool) -> None:
        """Note that an incident was opened or closed."""
        self._keep(Entry(INCIDENT_KEY, AlertKind.INCIDENT, now, sent=True, resolved_at=None if is_open else now))

    def _was_repeated(self, kind: AlertKind, now: dt.datetime) -> bool:
        key = f"{AlertKind.UNANSWERED} {kind}"
        before = self.entries.get(key)
        if before is not None and before.raised_at > now - WINDOW:
            return True
        self._keep(Entry(key, AlertKind.UNANSWERED, now, sent=True, resolved_at=now))
        return False

    def _open_failures(self) -> set[str]:
        return {entry.key for entry in self.entries.values() if entry.is_open and entry.kind.is_failure}

    def _left_out(self, kind: AlertKind, besides: str) -> int:
        alike = [entry for entry in self.entries.values() if entry.kind is kind and entry.key != besides]
        last = max((entry.raised_at for entry in alike if entry.sent), default=None)
        return sum(not entry.sent and (last is None or entry.raised_at >= last) for entry in alike)

    def _keep(self, entry: Entry) -> None:
        self.entries[entry.key] = self.changed[entry.key] = entry


def _merged(one: Entry, other: Entry) -> Entry:
    """What is known of an alert by two registers: once it is taken back or put right, that is so."""
    ends = [end for end in (one.resolved_at, other.resolved_at) if end is not None]
    return replace(one, sent=one.sent and other.sent, resolved_at=max(ends, default=None))
