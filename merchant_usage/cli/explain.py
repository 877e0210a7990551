"""`explain`: why a number is what it is, for those who ask what a merchant was billed for."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Iterable
from typing import Any

from merchant_usage import clock
from merchant_usage.cli.durations import format_moment
from merchant_usage.cli.evidence import write_evidence
from merchant_usage.cli.output import say, say_json, width
from merchant_usage.cli.requests import day_of
from merchant_usage.connections import postgres_from_url
from merchant_usage.errors import SettingsError
from merchant_usage.model.audit import format_merchant
from merchant_usage.model.keys import why_no_merchant_id
from merchant_usage.settings import load_settings
from merchant_usage.sink import explained, grants, ledger, schema
from merchant_usage.sink.explained import Event, Stored, Story
from merchant_usage.sink.ledger import DateState
from merchant_usage.sink.period import snapshot
from merchant_usage.steps.audit import audit_merchant
from merchant_usage.tables import render
from merchant_usage.text import shown


def explain(options: argparse.Namespace) -> int:
    """Tell what is stored of a merchant's day, and all that happened to it; or write that down as evidence."""
    if options.evidence is not None:
        return write_evidence(options)
    if options.merchant_id is None or options.day is None:
        raise SettingsError("explain takes MERCHANT and DATE; without them only --evidence DIR, for all merchants.")
    if options.from_date or options.to_date or options.merchant:
        raise SettingsError("--from, --to and --merchant go with --evidence DIR; without it, explain takes one DATE.")
    settings, now = load_settings(), clock.now()
    if problem := why_no_merchant_id(options.merchant_id):
        raise SettingsError(f"MERCHANT={shown(options.merchant_id)!r} {problem}; it takes a merchant's id.")
    date = day_of("DATE", options.day, now, settings)
    with postgres_from_url() as conn:
        schema.check(conn, grants.EXPLAIN)
        # All of it as it is at one moment.
        with snapshot(conn):
            story = explained.explain(conn, options.merchant_id, date, options.metric)
            state = ledger.date_states(conn, [date])[date]
            audit = audit_merchant(conn, options.merchant_id, date)
    if options.json:
        whose = {"merchant_id": options.merchant_id, "date": date, "audit": audit.to_json()}
        say_json(_to_json(story, state) | whose)
        return 0
    say(_format_stored(options.merchant_id, date, story.stored))
    for event in story.events:
        say(_format_event(event))
    say(_format_state(state))
    say(format_merchant(audit))
    return 0


def _to_json(story: Story, state: DateState) -> dict[str, Any]:
    return {
        "stored": [each._asdict() for each in story.stored],
        "events": [each._asdict() for each in story.events],
        "verdict": state.verdict,
        "sealed": state.is_sealed,
        "waits_for_a_decision": state.is_undecided,
    }


def _format_stored(merchant_id: str, date: dt.date, stored: Iterable[Stored]) -> str:
    rows = [
        (shown(each.metric_type), each.metric_value, each.carried, format_moment(each.updated_at)) for each in stored
    ]
    if not rows:
        return f"Nothing is stored of {shown(merchant_id)} on {date}."
    columns = ("metric", "value", "of it carried", "last changed")
    return render(f"{shown(merchant_id)} on {date}", columns, rows, width())


def _format_event(event: Event) -> str:
    """A line: when, of what, what happened, and who did it."""
    of = "the whole day" if event.metric_type is None else shown(event.metric_type)
    values = ""
    if event.value_before is not None or event.value_after is not None:
        values = f"{_number(event.value_before)} -> {_number(event.value_after)}. "
    by = f" By {shown(event.by_whom)}." if event.by_whom else ""
    moment = event.happened_at.astimezone(dt.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC  {event.kind}, {of}: {values}{event.told}{by}"


def _number(value: int | None) -> str:
    return "nothing" if value is None else f"{value:,}"


def _format_state(state: DateState) -> str:
    """How the day stands after all of it."""
    if state.is_undecided:
        return f"{state.date} is not proven: a counter went backwards, and waits for a decision."
    if state.is_sealed:
        return f"{state.date} is sealed: it was over and settled, and every counter was proven."
    if state.verdict is None:
        return f"{state.date} is not proven yet: no run has come to a verdict about its end."
    return f"{state.date} is not sealed: the last verdict about its end is {state.verdict}."
