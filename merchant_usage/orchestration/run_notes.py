"""The note of a run in the UI: its verdicts and totals at a glance, without opening a log.

verify_usage leaves the text, also when it fails; the scheduler, which alone may write notes, makes it the
run's note when the run ends. Of a run that did not come so far the note is its first error.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy.orm import Session, object_session

from merchant_usage.model.dates import format_dates, summarise_dates
from merchant_usage.model.report import DateReport, DateVerdict, format_kinds, together
from merchant_usage.model.seal import Seal
from merchant_usage.orchestration.alerts.failure_notes import FAILURE_KEY_OF_NOTE
from merchant_usage.orchestration.compat import push_for_scheduler, pushed
from merchant_usage.orchestration.names import TASK_IDS, VERIFY_TASK_ID
from merchant_usage.text import Place, safe

log = logging.getLogger(__name__)

NOTE_KEY: Final = "note"
MARKED: Final = {"success": "successful"}
#: What Airflow keeps of a note.
LONGEST: Final = 1000
#: What the page of a run shows of it without a click, in a window of a small screen: of its first line so much.
SHOWN: Final = 120
#: The worst first.
_ORDER: Final = (
    DateVerdict.MISMATCH,
    DateVerdict.INCOMPLETE,
    DateVerdict.NOT_PROVEN,
    DateVerdict.VERIFIED,
    DateVerdict.SOURCE_EXPIRED,
    DateVerdict.EMPTY,
)
#: Characters of an error. Made safe for Markdown they may be twice as many, and Airflow takes 1000 in all.
ERROR_SHOWN: Final = 450


def format_verdict(report: DateReport, oldest: dt.date) -> str:
    """The verdict of a date. Of one older than what Redis keeps nobody knows any more whether it was empty."""
    if report.verdict is DateVerdict.EMPTY and report.date < oldest:
        return f"{report.verdict} (older than what Redis keeps: its usage, if any, expired before it was stored)"
    return str(report.verdict)


def describe_dates(reports: Sequence[DateReport], oldest: dt.date) -> str:
    """All dates, those of one verdict together, the worst verdict first.

    One line that the UI shows whole. If that leaves no room for all of it, the rest follows, in a line a verdict.

    Args:
        oldest: whose keys Redis may still have.
    """
    # The totals of a day that still grows may differ; in one sum with them those of a day that is over would seem to.
    alike: dict[tuple[str, bool], list[DateReport]] = defaultdict(list)
    for report in sorted(reports, key=lambda report: _ORDER.index(report.verdict)):
        alike[format_verdict(report, oldest), report.settled].append(report)
    lines = [_describe_alike(verdict, group) for (verdict, _), group in alike.items()]
    told = "; ".join(lines)
    if len(told) > SHOWN:
        brief = [_describe_alike(verdict, group, briefly=True) for (verdict, _), group in alike.items()]
        # To Markdown a line ends where an empty one follows.
        told = "\n\n".join([_first_line(brief, [*alike.values()]), *lines])
    return told if len(told) <= LONGEST else f"{told[: LONGEST - 1]}…"


def _first_line(brief: Sequence[str], groups: Sequence[Sequence[DateReport]]) -> str:
    """As much of all dates as can be shown: with totals, with those of the worst, or how many have which verdict."""
    named = [
        f"{summarise_dates(report.date for report in group)}{_of_whom(group[0])}: {group[0].verdict}"
        for group in groups
    ]
    others = Counter(str(report.verdict) for group in groups[1:] for report in group)
    lines = ["; ".join(brief), "; ".join([brief[0], *named[1:]]), "; ".join(named)]
    return next((line for line in lines if len(line) <= SHOWN), f"{named[0]}; {format_kinds(others)}")


def _of_whom(report: DateReport) -> str:
    """Of how many merchants, if not of all."""
    return report.name.removeprefix(str(report.date))


def _describe_alike(verdict: str, reports: Sequence[DateReport], *, briefly: bool = False) -> str:
    """Dates of one verdict, with their totals taken together; in brief without what was written."""
    all_of_them = together(reports)
    named = format_dates(report.date for report in reports) + _of_whom(all_of_them)
    if all_of_them.verdict is DateVerdict.EMPTY:
        return f"{named}: {verdict}"
    if briefly:
        return f"{named}: {verdict}, {all_of_them.totals_in_brief}"
    counts = all_of_them.counts
    changes = {"new": counts.inserted, "raised": counts.updated, "dead letters": counts.dead_letters}
    changed = format_kinds({what: number for what, number in changes.items() if number})
    return f"{named}: {verdict}, {all_of_them.totals}" + (f" ({changed})" if changed else "")


def with_seals(note: str, seals: Sequence[Seal]) -> str:
    """A note with the seals that the run has made, as far as there is room: it shows if one is made anew later."""
    for seal in seals:
        line = f"\n\nSeal {seal.number}: {seal.date} version {seal.version}, chain {seal.chain.hex()}"
        if len(note) + len(line) <= LONGEST:
            note += line
    return note


def note_of(session: Session, dag_run: Any) -> str:
    """What verify_usage left; else the error of the first task that left one. A process that was killed leaves none."""
    if said := pushed(session, dag_run, VERIFY_TASK_ID, NOTE_KEY):
        return str(said)
    for task_id in TASK_IDS:
        if error := pushed(session, dag_run, task_id, FAILURE_KEY_OF_NOTE):
            return f"Not verified, {task_id} failed: {safe(str(error)[:ERROR_SHOWN], Place.NOTE)}"
    return f"Not verified: {VERIFY_TASK_ID} came to no verdict."


def push_note(ti: Any, text: str) -> None:
    """Leave the note of the run for the scheduler."""
    push_for_scheduler(ti, NOTE_KEY, text)


def leave_note(dag_run: Any, *, by_hand: bool = False) -> None:
    """Write what verify_usage left as the note of its run, in the scheduler's transaction. Never raises.

    What a person has written there stays.

    Args:
        by_hand: a person has marked the run successful or failed: that is no verdict.
    """
    try:
        session = object_session(dag_run)
        # `airflow dags backfill` on 2.11 ends runs that it has detached; those get no note.
        if session is None or (dag_run.dag_run_note is not None and dag_run.dag_run_note.user_id is not None):
            return
        marked = f"Marked {MARKED.get(str(dag_run.state), dag_run.state)} by hand, which proves nothing. "
        dag_run.note = (marked if by_hand else "") + note_of(session, dag_run)
    except Exception:
        # In the scheduler: a note is not worth one of its loops.
        log.exception("The run %s has no note", dag_run.run_id)
