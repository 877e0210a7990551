"""The bodies of the tasks of `usage_decisions`: what people are asked, and how their answers are carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from merchant_usage.log import Log
from merchant_usage.model.dates import format_dates, summarise_dates
from merchant_usage.orchestration.compat import set_up_logging
from merchant_usage.orchestration.connections import airflow_errors, usage_postgres, usage_redis
from merchant_usage.settings import Settings
from merchant_usage.sink import causes, grants, schema
from merchant_usage.sink.causes import Cause, Proposed
from merchant_usage.source.server import require_whole_source
from merchant_usage.steps.resolve import Decision, Outcome, Ruling, decide_letters
from merchant_usage.text import Place, safe, shown, storable

set_up_logging()
log = Log(__name__)

#: What is chosen for a person who does not answer in time: the next run asks anew, with the numbers of then.
LATER: Final = "not now"
#: What a person may choose.
OPTIONS: Final = (*map(str, Decision), LATER)
#: Of a name, a reason or a key so much is shown. Markdown may make twice as much of it.
LONGEST: Final = 200
#: Refusals that are logged one by one.
REFUSALS_LOGGED: Final = 20

Question = dict[str, Any]


def find_causes(settings: Settings) -> list[Question]:
    """A question for each cause of which counters wait; none while nothing does."""
    with airflow_errors(), usage_postgres() as conn:
        schema.check(conn, grants.DECIDE)
        found = causes.find(conn)
    for cause in found:
        log.info(f"{_title(cause)}: asking")
    return [question(cause, settings) for cause in found]


def find_second_question(first: int, last: int, settings: Settings) -> Question:
    """The question to a second person.

    Raises:
        AirflowSkipException: nothing waits for one.
    """
    with airflow_errors(), usage_postgres() as conn:
        proposed = [cause for cause in causes.find(conn, (first, last)) if cause.proposals]
    if not proposed:
        raise AirflowSkipException("Nothing of this waits for a second person.")
    # Parts of what was one cause may have been decided meanwhile: what is left of it is one question still.
    return {**question(proposed[0], settings), "first": first, "last": last}


def question(cause: Cause, settings: Settings) -> Question:
    """What a person is asked: a title, and a text in Markdown in which all that others wrote is nothing but text."""
    first, last = cause.letters
    return {
        "subject": f"{_title(cause)}: keep, accept or carry?",
        "body": _body(cause, settings),
        "first": first,
        "last": last,
    }


def _title(cause: Cause) -> str:
    these = "1 usage counter" if cause.counters == 1 else f"{cause.counters:,} usage counters"
    return f"{these} of {summarise_dates(cause.dates)} went backwards"


def _body(cause: Cause, settings: Settings) -> str:
    gone = f" {cause.gone:,} of the keys are gone." if cause.gone else ""
    text = "\n".join(
        [
            f"Redis holds less than what is stored, found at {cause.since:%Y-%m-%d %H:%M} UTC, of "
            f"{format_dates(cause.dates)}. When it fell {cause.stored:,} were stored of all of them; Redis was last "
            f"seen with {cause.redis:,}.{gone} What is stored stays until somebody decides; decide once you know what "
            "happened to Redis.",
            "",
            "| answer | when it is right | what is stored then |",
            "|---|---|---|",
            "| keep | it was right: a replica that lagged took over | stays, until the counter overtakes it |",
            "| accept | it was wrong: a correction | is lowered to the counter |",
            "| carry | Redis began again from zero | is carried, and the counter comes on top |",
            f"| {LATER} | you do not know yet | stays; the next run asks again |",
            "",
        ]
    )
    for proposed in cause.proposals:
        text += f"\n**{_proposal(proposed)}**\n"
    if settings.approvals > 1:
        text += "\nTo accept takes two persons: the first one changes nothing, the second one must be somebody else.\n"
    more = f"\n- and {cause.counters - len(cause.examples):,} more" if cause.counters > len(cause.examples) else ""
    return text + "\n" + "\n".join(f"- {_quoted(_text(raw))}" for raw in cause.examples) + more


def _proposal(proposed: Proposed) -> str:
    why = f" ({_quoted(proposed.reason)})" if proposed.reason else ""
    return (
        f"{_quoted(proposed.by)} has proposed to accept {proposed.counters:,} of them{why}: "
        f"{proposed.before:,} → {proposed.after:,}. It waits for another person."
    )


def _quoted(text: str) -> str:
    return safe(shown(text, LONGEST), Place.NOTE)


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")


def apply_answer(
    first: int, last: int, answer: Mapping[str, Any], settings: Settings, *, of_second_person: bool = False
) -> dict[str, int]:
    """Carry out what a person answered, once: what is decided already is passed over when the task is run again.

    Raises:
        AirflowSkipException: nobody answered, or not now.
        AirflowFailException: the second person is the first one.
    """
    chosen, person = _chosen(answer)
    ruling = Ruling(Decision(chosen), storable(person), _reason(answer), settings.approvals)
    with airflow_errors(), usage_redis() as client, usage_postgres() as conn:
        schema.check(conn, grants.DECIDE)
        require_whole_source(client, settings.key_prefix)
        outcome = decide_letters(client, conn, ruling, settings.key_prefix, (first, last))
    _log(ruling, outcome)
    if of_second_person and outcome.waiting and not any(each.is_new for each in outcome.waiting):
        raise AirflowFailException(
            f"{shown(person)} has proposed this, so another person has to approve it. The next run asks again."
        )
    return {
        "decided": len(outcome.decided),
        "waiting": len(outcome.waiting),
        "refused": len(outcome.refused),
    }


def _chosen(answer: Mapping[str, Any]) -> tuple[str, str]:
    """What was chosen, and by whom."""
    chosen: Sequence[str] = answer.get("chosen_options") or [LATER]
    user = answer.get("responded_by_user")
    if chosen[0] == LATER or not user:
        raise AirflowSkipException("Nobody has decided: the next run asks again.")
    return chosen[0], user.get("name") or user["id"]


def _reason(answer: Mapping[str, Any]) -> str | None:
    given = (answer.get("params_input") or {}).get("reason")
    return storable(given.strip()) or None if isinstance(given, str) else None


def _log(ruling: Ruling, outcome: Outcome) -> None:
    log.info(
        f"{ruling.decision}, by {shown(ruling.decided_by)}: {len(outcome.decided):,} decided, "
        f"{len(outcome.waiting):,} wait for a second person, {len(outcome.refused):,} cannot be decided"
    )
    for refused in outcome.refused[:REFUSALS_LOGGED]:
        log.warning(refused)
