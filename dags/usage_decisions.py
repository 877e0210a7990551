"""
### Counters that went backwards: what shall be stored?

A counter in Redis that is lower than what is stored lost data, and only a person knows how. This DAG asks, under
*Required Actions*: one question a cause, however many counters it concerns, and carries the answer out once.

| task | what it does |
|---|---|
| `find_causes` | what waits for a decision; nothing is asked while nothing does |
| `ask` | a question a cause: keep, accept or carry, and why. Without an answer in four hours it is asked anew |
| `apply_answer` | decides the counters of that question, in the name of who has answered |
| `find_second_question` | with `USAGE_APPROVALS=2`: what somebody has accepted, which changes nothing yet |
| `ask_second_person` | asks whether that is right |
| `apply_second_answer` | decides, unless the second person is the first one |

Only `accept` lowers what a merchant is billed for. The next run of `usage_aggregation` takes the dates that were
decided. The same can be said with `merchant-usage resolve`; what was decided there is not asked here.

**Needs** Airflow 3.1 or newer; on an older one this file has no DAG. Connections: `usage_redis`, `usage_postgres`.

**When it is red.** Open the red task: its last line says what was wrong and what to do. Every task may be cleared and
run again at any time. `apply_second_answer` red: the second person was the first one; the next run asks again.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from merchant_usage.errors import SettingsError
from merchant_usage.orchestration.compat import ASKS_PEOPLE, RETRY_BACKOFF, question
from merchant_usage.orchestration.sdk import Param, dag, task, task_group
from merchant_usage.settings import DECISIONS_DAG_ID, load_settings

# The tasks import their work when they run: the scheduler parses this file over and over.

try:
    SETTINGS, IS_THERE = load_settings(), ASKS_PEOPLE
except SettingsError:
    # usage_aggregation.py says what is wrong: once is enough.
    SETTINGS, IS_THERE = load_settings({}), False
DEFAULT_ARGS = {
    "owner": "usage",
    "retries": 3,
    "retry_delay": dt.timedelta(seconds=30),
    "retry_exponential_backoff": RETRY_BACKOFF,
    "max_retry_delay": dt.timedelta(minutes=5),
    "execution_timeout": SETTINGS.task_timeout,
}
# Whoever does not answer by then is asked anew, with the numbers of then; meanwhile nobody is asked of what is new.
ANSWER_WITHIN = dt.timedelta(hours=4)
# As OPTIONS of merchant_usage.orchestration.decisions, which takes long to import. A test says so.
OPTIONS = ["keep", "accept", "carry", "not now"]
REASON = Param(
    "",
    type="string",
    maxLength=2000,
    title="Why",
    description="What happened, or where that is written. It is kept with the decision.",
)


@task
def find_causes() -> list[dict[str, Any]]:
    """Find what waits for a decision."""
    from merchant_usage.orchestration import decisions

    return decisions.find_causes(SETTINGS)


@task(multiple_outputs=False)
def apply_answer(first: int, last: int, answer: Any) -> dict[str, int]:
    """Do what was answered."""
    from merchant_usage.orchestration import decisions

    return decisions.apply_answer(first, last, answer, SETTINGS)


# Several values, because its parts are handed over one by one.
@task(multiple_outputs=True)
def find_second_question(first: int, last: int) -> dict[str, Any]:
    """Find what waits for a second person."""
    from merchant_usage.orchestration import decisions

    return decisions.find_second_question(first, last, SETTINGS)


@task(multiple_outputs=False)
def apply_second_answer(first: int, last: int, answer: Any) -> dict[str, int]:
    """Do what the second person answered."""
    from merchant_usage.orchestration import decisions

    return decisions.apply_answer(first, last, answer, SETTINGS, of_second_person=True)


def ask(task_id: str, subject: Any, body: Any) -> Any:
    """Ask a person, and wait."""
    return question(
        task_id,
        answer_within=ANSWER_WITHIN,
        subject=subject,
        body=body,
        options=OPTIONS,
        defaults=OPTIONS[-1],
        params={"reason": REASON},
    )


@task_group
def decide(subject: str, body: str, first: int, last: int) -> None:
    """Decide one cause."""
    asked = ask("ask", subject, body)
    applied = apply_answer(first, last, asked.output)
    if SETTINGS.approvals > 1:
        second: Any = find_second_question(first, last)
        applied >> second
        asked_again = ask("ask_second_person", second["subject"], second["body"])
        apply_second_answer(first, last, asked_again.output)


@dag(
    dag_id=DECISIONS_DAG_ID,
    description="Asks people what to do about usage counters that went backwards.",
    doc_md=__doc__,
    # When the hourly run is over, usually.
    schedule="10 * * * *" if SETTINGS.enabled else None,
    start_date=SETTINGS.start_date,
    catchup=False,
    # A second run would ask the same.
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    tags=["billing", "usage"],
)
def usage_decisions() -> None:
    """Wire the tasks."""
    decide.expand_kwargs(find_causes())


if IS_THERE:
    usage_decisions()
