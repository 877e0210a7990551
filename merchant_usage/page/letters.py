"""Dead letters, a page at a time: keys hold whatever somebody wrote into Redis."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import Connection
from psycopg.rows import class_row

from merchant_usage.errors import SettingsError
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.keys import CounterKey, parse_key
from merchant_usage.settings import Settings
from merchant_usage.sink.queries import query
from merchant_usage.text import shown

#: Letters a page.
LETTERS: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """An open dead letter, as the table has it, and who proposed to accept what."""

    id: int
    redis_key: bytes
    reason: str
    detail: str
    usage_date: dt.date | None
    first_seen_at: dt.datetime
    last_seen_at: dt.datetime
    attempts: int
    redis_value: int | None
    postgres_value: int | None
    proposed_by: str | None
    value_after: int | None

    @property
    def key(self) -> str:
        """The key as a text."""
        return self.redis_key.decode(errors="backslashreplace")

    def counter(self, settings: Settings) -> CounterKey | None:
        """Whose it is, if its name says so."""
        found = parse_key(self.redis_key, settings.key_prefix)
        return found if isinstance(found, CounterKey) else None


@dataclass(frozen=True, slots=True)
class Page:
    """Some letters with whose they are, and the id after which the next page begins; None: there is none."""

    letters: Sequence[tuple[Letter, CounterKey | None]]
    next: int | None
    after: int


def of_date(conn: Connection, date: dt.date, waiting: bool, after: int, settings: Settings) -> Page:
    """Those of a date: what waits for a decision, or what does not."""
    return _read(conn, "date_letters", {"usage_date": date, "waiting": waiting}, after, settings)


def of_reason(conn: Connection, reason: str | None, after: int, settings: Settings) -> Page:
    """Those of a reason; None: of all.

    Raises:
        SettingsError: there is no such reason.
    """
    if reason is not None and reason not in set(Reason):
        raise SettingsError(f"reason={shown(reason)!r} is none; it takes one of {', '.join(Reason)}.")
    return _read(conn, "overview_open_letters", {"reason": reason}, after, settings)


def _read(conn: Connection, name: str, parameters: dict[str, Any], after: int, settings: Settings) -> Page:
    with conn.cursor(row_factory=class_row(Letter)) as cursor:
        rows = cursor.execute(query(name), {**parameters, "after": after, "limit": LETTERS + 1}).fetchall()
    found = [(letter, letter.counter(settings)) for letter in rows[:LETTERS]]
    return Page(found, found[-1][0].id if len(rows) > LETTERS else None, after)
