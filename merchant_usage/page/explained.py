"""One number explained: what is stored, and what happened to it, as the command `explain` tells it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final, NamedTuple

from psycopg import Connection

from merchant_usage.model.audit import MerchantState, format_merchant
from merchant_usage.model.curve import Step, by_hours
from merchant_usage.page import curve
from merchant_usage.page.answers import NotThere
from merchant_usage.page.curve import Curve
from merchant_usage.page.marks import Mark
from merchant_usage.page.merchant import Days, around, steps_of
from merchant_usage.settings import Settings
from merchant_usage.sink.explained import Event, Stored
from merchant_usage.steps import story
from merchant_usage.steps.story import Asked, format_absence, format_event, format_state, format_subject

#: Events of a page; and counters of a merchant's day that it names.
PAGE: Final = 200
MOST_STORED: Final = 200
_MARKS: Final = {
    MerchantState.INTACT: Mark("✓", "as it was sealed", "good"),
    MerchantState.CHANGED: Mark("✗", "not what was sealed", "bad"),
    MerchantState.NOT_SEALED: Mark("○", "not sealed", "none"),
    MerchantState.NOT_KNOWN: Mark("?", "not known", "bad"),
}
_KINDS: Final = {
    "counted": Mark("+", "counted", "none"),
    "correction": Mark("✎", "correction", "wait"),
    "run": Mark("▷", "run", "none"),
    "dead letter": Mark("!", "dead letter", "bad"),
    "resolved": Mark("✓", "resolved", "good"),
    "proposal": Mark("?", "proposal", "wait"),
    "decision": Mark("✎", "decision", "wait"),
    "seal": Mark("■", "seal", "good"),
}


class Told(NamedTuple):
    """An event as it is shown."""

    at: dt.datetime
    mark: Mark
    subject: str
    told: str


@dataclass(frozen=True, slots=True)
class Page:
    """What the page shows.

    Attributes:
        stored_count: how many counters there are; `stored` names the first.
        absence: that there is none, in a sentence.
        first: how many events stand on the pages before; `next`: where the next page begins; None: there is none.
        around: days of the merchant, this one among them.
        curve_of: the metric that `curve` and `hours` are of.
    """

    asked: Asked
    stored: list[Stored]
    stored_count: int
    total: int
    absence: str
    events: list[Told]
    first: int
    next: int | None
    state: str
    is_sealed: bool
    is_undecided: bool
    audit: str
    audit_mark: Mark
    around: Days
    curve_of: str | None
    hours: list[Step]
    curve: Curve | None
    timezone: str


def read(conn: Connection, asked: Asked, today: dt.date, settings: Settings) -> Page:
    """Tell the story of a merchant's day.

    Args:
        asked: `first` says where the page begins; `limit` is that of the page.

    Raises:
        NotThere: nothing is stored of it, and nothing happened.
    """
    found = story.explain(conn, asked._replace(limit=PAGE + 1))
    absence = format_absence(asked.merchant_id, asked.date)
    if not found.stored and not found.events and not asked.first:
        raise NotThere(absence)
    metrics = [each.metric_type for each in found.stored]
    curve_of = asked.metric_type or (metrics[0] if len(metrics) == 1 else None)
    steps = steps_of(conn, asked.merchant_id, asked.date, curve_of)
    return Page(
        asked,
        found.stored[:MOST_STORED],
        len(found.stored),
        sum(each.metric_value for each in found.stored),
        absence,
        [_told(event) for event in found.events[:PAGE]],
        asked.first,
        asked.first + PAGE if len(found.events) > PAGE else None,
        format_state(found.state),
        found.state.is_sealed,
        found.state.is_undecided,
        format_merchant(found.audit),
        _MARKS[found.audit.state],
        around(asked.date, today),
        curve_of,
        by_hours(steps, settings.timezone),
        curve.draw(steps, settings.timezone),
        settings.timezone.key,
    )


def _told(event: Event) -> Told:
    return Told(event.happened_at, _KINDS[event.kind], format_subject(event), format_event(event))
