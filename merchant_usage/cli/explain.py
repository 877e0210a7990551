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
from merchant_usage.sink import grants, schema
from merchant_usage.sink.explained import Event, Stored
from merchant_usage.sink.period import snapshot
from merchant_usage.steps import story
from merchant_usage.steps.story import Asked, Explained, format_absence, format_event, format_state, format_subject
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
            found = story.explain(conn, Asked(options.merchant_id, date, options.metric))
    if options.json:
        say_json(_to_json(found) | {"merchant_id": options.merchant_id, "date": date})
        return 0
    say(_format_stored(options.merchant_id, date, found.stored))
    for event in found.events:
        say(_format_event(event))
    say(format_state(found.state))
    say(format_merchant(found.audit))
    return 0


def _to_json(found: Explained) -> dict[str, Any]:
    return {
        "stored": [each._asdict() for each in found.stored],
        "events": [each._asdict() for each in found.events],
        "verdict": found.state.verdict,
        "sealed": found.state.is_sealed,
        "waits_for_a_decision": found.state.is_undecided,
        "audit": found.audit.to_json(),
    }


def _format_stored(merchant_id: str, date: dt.date, stored: Iterable[Stored]) -> str:
    rows = [
        (shown(each.metric_type), each.metric_value, each.carried, format_moment(each.updated_at)) for each in stored
    ]
    if not rows:
        return format_absence(merchant_id, date)
    columns = ("metric", "value", "of it carried", "last changed")
    return render(f"{shown(merchant_id)} on {date}", columns, rows, width())


def _format_event(event: Event) -> str:
    """A line: when, of what, what happened, and who did it."""
    moment = event.happened_at.astimezone(dt.UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC  {event.kind}, {format_subject(event)}: {format_event(event)}"
