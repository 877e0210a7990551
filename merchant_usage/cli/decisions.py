"""`resolve` and `decisions`: what people say of counters that went backwards."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Iterable, Iterator
from typing import Any

from merchant_usage import clock
from merchant_usage.cli.durations import format_moment
from merchant_usage.cli.output import complain, say, say_json, width
from merchant_usage.cli.requests import day_of, user_name
from merchant_usage.connections import postgres_from_url, redis_from_url
from merchant_usage.errors import SettingsError
from merchant_usage.settings import Settings, load_settings
from merchant_usage.sink import decisions, grants, schema
from merchant_usage.source.server import require_whole_source
from merchant_usage.steps.resolve import Decided, Decision, Outcome, Proposed, Ruling, decide
from merchant_usage.tables import render
from merchant_usage.text import shown, storable


def resolve(options: argparse.Namespace) -> int:
    """Decide counters that went backwards."""
    settings = load_settings()
    date = day_of("--date", options.date, clock.now(), settings) if options.date else None
    ruling = _ruling(options, settings)
    with redis_from_url() as client, postgres_from_url() as conn:
        schema.check(conn, grants.DECIDE)
        require_whole_source(client, settings.key_prefix)
        outcome = decide(client, conn, ruling, settings.key_prefix, key=options.key, date=date)
    problems = [*outcome.refused, *_waiting(outcome)]
    if options.json:
        say_json(_to_json(outcome) | {"error": " ".join(problems) or None})
    else:
        _say(ruling, outcome)
        for problem in problems:
            complain(problem)
    return int(bool(problems))


def _waiting(outcome: Outcome) -> Iterator[str]:
    """That not all is done yet, in one sentence."""
    if waiting := outcome.waiting:
        these = "This waits" if len(waiting) == 1 else f"{len(waiting):,} counters wait"
        first = waiting[0].proposed_by
        yield f"{these} for a second person: nothing is lowered until somebody else than {first} says the same."


def _ruling(options: argparse.Namespace, settings: Settings) -> Ruling:
    by = user_name() if options.by is None else options.by
    if by is None:
        raise SettingsError("The user of the operating system has no name: say who decides, with --by NAME.")
    if not by.strip():
        raise SettingsError(f"--by={by!r} is no name; it takes that of the person who decides.")
    because = None if options.because is None else storable(options.because)
    return Ruling(Decision(options.decision), storable(by), because, settings.approvals)


def _say(ruling: Ruling, outcome: Outcome) -> None:
    for decided in outcome.decided:
        first = f", as {decided.proposed_by} had proposed" if decided.proposed_by else ""
        say(f"{ruling.decision}: {decided.subject}: stored {decided.before:,} -> {decided.after:,}{first}")
    for each in outcome.waiting:
        say(f"{ruling.decision}: {each.key}: stored {each.before:,} -> {each.after:,} {_why_it_waits(each)}")


def _why_it_waits(proposed: Proposed) -> str:
    """That it takes another person, and what became of an earlier proposal."""
    if not proposed.is_new:
        return f"was proposed by {proposed.proposed_by} already, and waits for another person"
    if (earlier := proposed.instead_of) is None:
        return "waits for a second person"
    return (
        f"waits for another person than {proposed.proposed_by}: what {earlier.proposed_by} had proposed, "
        f"{earlier.before:,} -> {earlier.after:,}, does not hold any more"
    )


def _to_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "decided": [*map(_decided_to_json, outcome.decided)],
        "waiting": [*map(_proposed_to_json, outcome.waiting)],
        "refused": outcome.refused,
    }


def _decided_to_json(decided: Decided) -> dict[str, Any]:
    subject = decided.subject
    of = {"date": subject} if isinstance(subject, dt.date) else subject._asdict()
    return {**of, "before": decided.before, "after": decided.after, "proposed_by": decided.proposed_by}


def _proposed_to_json(proposed: Proposed) -> dict[str, Any]:
    return {
        **proposed.key._asdict(),
        "before": proposed.before,
        "after": proposed.after,
        "proposed_by": proposed.proposed_by,
        "is_new": proposed.is_new,
    }


def list_decisions(options: argparse.Namespace) -> int:
    """List what waits for a decision, and what was decided, by whom and why."""
    settings = load_settings()
    date = day_of("DATE", options.day, clock.now(), settings) if options.day else None
    with postgres_from_url() as conn:
        schema.check(conn, grants.STATUS)
        waiting = decisions.waiting(conn, date, options.most)
        decided = decisions.decided(conn, date, options.most)
    if options.json:
        say_json({"waiting": [*map(_with_key, waiting)], "decided": [*map(_with_key, decided)]})
        return 0
    of_date = f" of {date}" if date else ""
    say(_format_waiting(waiting) if waiting else f"Nothing{of_date} waits for a decision.")
    if decided:
        say(_format_decided(decided))
    return 0


def _with_key(row: dict[str, Any]) -> dict[str, Any]:
    """A row for a program: its key as text, None where a whole date was decided."""
    raw = row.pop("redis_key")
    return {"key": None if raw is None else _text(raw), **row}


def _format_waiting(rows: Iterable[dict[str, Any]]) -> str:
    return render(
        "These wait for a decision",
        ("date", "key", "Redis", "stored when it fell", "accept proposed by", "detail"),
        (
            (
                row["usage_date"] or "-",
                shown(_text(row["redis_key"])),
                "gone" if row["redis_value"] is None else row["redis_value"],
                "-" if row["postgres_value"] is None else row["postgres_value"],
                shown(row["proposed_by"] or "-"),
                _proposal(row),
            )
            for row in rows
        ),
        width(),
    )


def _proposal(row: dict[str, Any]) -> str:
    if row["proposed_by"] is None:
        return "-"
    why = f": {row['reason']}" if row["reason"] else ""
    return shown(f"{row['value_before']:,} -> {row['value_after']:,}{why}")


def _format_decided(rows: Iterable[dict[str, Any]]) -> str:
    return render(
        "Decided, newest first",
        ("decided", "date", "key", "decision", "by", "approved by", "before", "after", "detail"),
        (
            (
                format_moment(row["decided_at"]),
                row["usage_date"] or "-",
                "all of the date" if row["redis_key"] is None else shown(_text(row["redis_key"])),
                row["decision"],
                shown(row["decided_by"]),
                shown(row["approved_by"] or "-"),
                row["value_before"],
                row["value_after"],
                shown(row["reason"] or "-"),
            )
            for row in rows
        ),
        width(),
    )


def _text(raw: Any) -> str:
    return bytes(raw).decode(errors="backslashreplace")
