"""Why a number is what it is, as the command `explain` and the page tell it: the same facts in the same words."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

from psycopg import Connection

from merchant_usage.model.audit import MerchantAudit
from merchant_usage.sink import explained, ledger
from merchant_usage.sink.explained import Event, Stored
from merchant_usage.sink.ledger import DateState
from merchant_usage.steps.audit import audit_merchant
from merchant_usage.text import shown


class Asked(NamedTuple):
    """Whose number: of all metrics, or of one; and which of its events."""

    merchant_id: str
    date: dt.date
    metric_type: str | None = None
    first: int = 0
    limit: int | None = None


class Explained(NamedTuple):
    """What is stored, what happened to it, how the date stands, and whether it still is what was sealed."""

    stored: list[Stored]
    events: list[Event]
    state: DateState
    audit: MerchantAudit


def explain(conn: Connection, asked: Asked) -> Explained:
    """All there is to tell. Needs a transaction that is one snapshot."""
    story = explained.explain(conn, asked.merchant_id, asked.date, asked.metric_type, (asked.first, asked.limit))
    state = ledger.date_states(conn, [asked.date])[asked.date]
    return Explained(*story, state, audit_merchant(conn, asked.merchant_id, asked.date))


def format_absence(merchant_id: str, date: dt.date) -> str:
    """That there is no counter."""
    return f"Nothing is stored of {shown(merchant_id)} on {date}."


def format_subject(event: Event) -> str:
    """What an event happened to."""
    return "the whole day" if event.metric_type is None else shown(event.metric_type)


def format_event(event: Event) -> str:
    """What happened, and who did it."""
    values = ""
    if event.value_before is not None or event.value_after is not None:
        values = f"{_number(event.value_before)} -> {_number(event.value_after)}. "
    if not event.by_whom:
        return f"{values}{event.told}"
    # What ends with somebody's reason may end without a full stop.
    told = event.told if event.told.endswith((".", "!", "?")) else f"{event.told}."
    return f"{values}{told} By {shown(event.by_whom)}."


def _number(value: int | None) -> str:
    return "nothing" if value is None else f"{value:,}"


def format_state(state: DateState) -> str:
    """How the day stands after all of it."""
    if state.is_undecided:
        return f"{state.date} is not proven: a counter went backwards, and waits for a decision."
    if state.is_sealed:
        return f"{state.date} is sealed: it was over and settled, and every counter was proven."
    if state.verdict is None:
        return f"{state.date} is not proven yet: no run has come to a verdict about its end."
    return f"{state.date} is not sealed: the last verdict about its end is {state.verdict}."
