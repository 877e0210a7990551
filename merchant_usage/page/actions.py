"""What is done from the page: start a run, decide, compare now. Asked by POST in JSON, answered in JSON.

Each answer is a sentence in `said`, more of them in `lines`, and in `address` where Airflow shows what was started.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final

from fastapi import Depends, FastAPI, Request
from fastapi.responses import Response

from merchant_usage import clock
from merchant_usage.errors import SettingsError
from merchant_usage.model.dates import dates_of_range, format_dates, local_date
from merchant_usage.model.run import Run
from merchant_usage.model.verdict import Proof, preview_counts
from merchant_usage.page import answers, asked, decisions
from merchant_usage.page.access import Doors, NotTaken, Visitor, Work
from merchant_usage.page.bodies import (
    Body,
    date_in,
    decision_in,
    json_body,
    merchants_in,
    reason_in,
    require_fields,
    require_same_site,
    whole_in,
)
from merchant_usage.sink import grants, schema
from merchant_usage.source.server import require_whole_source
from merchant_usage.steps import preview
from merchant_usage.steps.clocks import require_right_clock
from merchant_usage.steps.resolve import Decided, Outcome, Proposed, Ruling, decide, decide_letters
from merchant_usage.text import capitalized, escape, shown

#: Seconds that comparing may take: proxies give up after 60.
COMPARE_LIMIT: Final = 50
#: Lines of an answer.
LINES: Final = 50
#: Of a run that is none of the ledger's: it only looks.
PAGE_RUN: Final = "page"

Answer = dict[str, Any]


def add_routes(app: FastAPI, doors: Doors) -> None:
    """Let the application answer them: the list of what waits, and where something may be done the doing."""
    looks = Depends(doors.visitor)

    @app.get("/decisions")
    def show_decisions(request: Request, visitor: Visitor = looks) -> Response:
        given, settings = request.query_params, doors.settings()
        date = asked.optional_date("date", given.get("date"))
        after = asked.identity("after", given.get("after"))
        with doors.snapshot() as conn:
            found = decisions.read(conn, date, after, settings)
        return answers.html("decisions.html", visitor, found=found)

    if doors.actor is not None and doors.work is not None:
        _add_doing(app, doors, doors.work)


def _add_doing(app: FastAPI, doors: Doors, work: Work) -> None:
    acts, holds = Depends(doors.actor), Depends(json_body)
    # In this order: whoever may not act is told that, whatever was sent.
    guards = [acts, Depends(require_same_site)]
    comparing = Lock()

    @app.post("/do/aggregate", dependencies=guards)
    def aggregate(actor: Visitor = acts, body: Body = holds) -> Answer:
        require_fields(body, "from_date", "to_date", "merchant_ids")
        dates, merchants = _dates(body, doors), merchants_in(body)
        conf = {"from_date": str(dates[0]), "to_date": str(dates[-1]), "merchant_ids": list(merchants or ())}
        run_id = work.aggregate(conf, actor.name)
        said = f"A run was started for {_of(dates, merchants)}: {run_id}."
        return {"said": said, "run_id": run_id, "address": doors.address_of_run(run_id)}

    @app.post("/do/decide", dependencies=guards)
    def decide_counters(actor: Visitor = acts, body: Body = holds) -> Answer:
        settings = doors.settings()
        ruling = Ruling(decision_in(body), actor.name, reason_in(body), settings.approvals)
        letter, date, seen = _which(body)
        with work.servers() as (client, conn):
            schema.check(conn, grants.DECIDE)
            require_whole_source(client, settings.key_prefix)
            if date is None:
                outcome = decide_letters(client, conn, ruling, settings.key_prefix, (letter, letter))
            else:
                _require_as_seen(date, seen, decisions.count(conn, date))
                with _refused_is_conflict():
                    outcome = decide(client, conn, ruling, settings.key_prefix, date=date)
        return _decided(ruling, outcome)

    @app.post("/do/verify", dependencies=guards)
    def verify(actor: Visitor = acts, body: Body = holds) -> Answer:
        return _told(_compared(body, actor, doors, work, comparing))

    @app.post("/do/preview", dependencies=guards)
    def dry_run(actor: Visitor = acts, body: Body = holds) -> Answer:
        return _previewed(_compared(body, actor, doors, work, comparing, as_dry_run=True))


def _dates(body: Body, doors: Doors) -> Sequence[dt.date]:
    """The days of `from_date` and `to_date`, by the rules of the DAG's Params; the second may be left out."""
    first = date_in(body, "from_date")
    last = date_in(body, "to_date") if body.get("to_date") else first
    return dates_of_range(str(first), str(last), clock.now(), doors.settings())


def _of(dates: Sequence[dt.date], merchants: Sequence[str] | None) -> str:
    if merchants is None:
        return format_dates(dates)
    return f"{format_dates(dates)}, {shown(merchants[0]) if len(merchants) == 1 else f'{len(merchants):,} merchants'}"


def _compared(
    body: Body, actor: Visitor, doors: Doors, work: Work, comparing: Lock, *, as_dry_run: bool = False
) -> Proof:
    """Redis and PostgreSQL of a date, compared now. One at a time: it reads all keys of Redis."""
    require_fields(body, "date", "merchant_ids")
    date, merchants, settings, now = date_in(body, "date"), merchants_in(body), doors.settings(), clock.now()
    if date > local_date(now, settings):
        raise NotTaken(f"{date} is still to come.")
    run = Run(f"{PAGE_RUN}__{now.isoformat()}", PAGE_RUN, (date,), now, merchants, requested_by=actor.name)
    if not comparing.acquire(blocking=False):
        raise NotTaken("Somebody compares already, and that reads all keys. Try again in a minute.", 409)
    try:
        with work.servers(COMPARE_LIMIT) as (client, conn):
            require_right_clock(client, conn)
            return (preview.preview if as_dry_run else preview.compare)(client, conn, run, settings)
    finally:
        comparing.release()


def _which(body: Body) -> tuple[int, dt.date | None, int]:
    """What is decided: one dead letter, or all that waits of a date, and how many of those somebody has seen."""
    if "letter" in body:
        require_fields(body, "letter", "decision", "reason")
        return whole_in(body, "letter"), None, 0
    require_fields(body, "date", "waiting", "decision", "reason")
    return 0, date_in(body, "date"), whole_in(body, "waiting")


def _require_as_seen(date: dt.date, seen: int, now: int) -> None:
    if seen != now:
        raise NotTaken(f"{now:,} counters of {date} wait now, and not {seen:,}: look at them again.", 409)


@contextmanager
def _refused_is_conflict() -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        raise NotTaken(str(error), 409) from None


def _decided(ruling: Ruling, outcome: Outcome) -> Answer:
    """What was decided, what waits, and what could not be.

    Raises:
        NotTaken: nothing of it is new.
    """
    new = [each for each in outcome.waiting if each.is_new]
    lines = [
        *(_line_decided(each) for each in outcome.decided),
        *(_line_waiting(each) for each in outcome.waiting),
        *map(escape, outcome.refused),
    ]
    if not outcome.decided and not new:
        raise NotTaken(_nothing_new(outcome), 409)
    parts = []
    if number := len(outcome.decided):
        parts.append(f"{ruling.decision}: {_counters(number)} decided. Their date is proven by its next run.")
    if number := len(new):
        parts.append(f"{_counters(number)} for a second person: nothing is lowered until somebody else says the same.")
    if number := len(outcome.refused):
        parts.append(f"{number:,} cannot be decided.")
    return {"said": " ".join(map(capitalized, parts)), **_bounded(lines)}


def _counters(number: int) -> str:
    return f"{number:,} counter{' was' if number == 1 else 's were'}"


def _nothing_new(outcome: Outcome) -> str:
    if outcome.refused:
        return " ".join(map(escape, outcome.refused))
    if outcome.waiting:
        return "You have proposed this already: nobody lowers a bill alone, so another person has to say the same."
    return "It does not wait any more: somebody has decided it. Load the page again."


def _line_decided(decided: Decided) -> str:
    first = f", as {shown(decided.proposed_by)} had proposed" if decided.proposed_by else ""
    return f"{decided.subject}: stored {decided.before:,} → {decided.after:,}{first}"


def _line_waiting(proposed: Proposed) -> str:
    return f"{proposed.key}: {proposed.before:,} → {proposed.after:,}, proposed by {shown(proposed.proposed_by)}"


def _told(proof: Proof) -> Answer:
    said = "; ".join(f"{report.name}: {report.verdict}, {report.totals}" for report in proof.reports)
    found = [*proof.failing, *proof.regressed]
    return {"said": f"Compared now: {said}.", **_bounded(list(map(str, found)), _number(proof))}


def _previewed(proof: Proof) -> Answer:
    kinds = {"would_store": "would be stored", "unchanged": "stay", "regressed": "went backwards", "expired": "expired"}
    said = []
    for report in proof.reports:
        told = ", ".join(f"{number:,} {kinds[kind]}" for kind, number in preview_counts(report).items())
        said.append(f"{report.name}: {told}; Redis {report.redis_total:,}, PostgreSQL {report.postgres_total:,}")
    found = [*proof.failing, *proof.regressed]
    return {"said": f"Nothing was written. {'; '.join(said)}.", **_bounded(list(map(str, found)), _number(proof))}


def _number(proof: Proof) -> int:
    return proof.failing_count + proof.regressed_count


def _bounded(lines: Sequence[str], number: int | None = None) -> Answer:
    """The first lines, and how many more there are."""
    more = (len(lines) if number is None else number) - len(lines[:LINES])
    return {"lines": [*lines[:LINES], *([f"and {more:,} more"] if more > 0 else [])]}
