"""What a task that fails leaves for the message about its run: XCom holds it even when PostgreSQL is down."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, Context

from merchant_usage.alerts.alert import Discrepancy
from merchant_usage.errors import RequestRefused, UsageError
from merchant_usage.log import Log
from merchant_usage.orchestration.compat import push_for_scheduler
from merchant_usage.orchestration.names import TASK_IDS, VERIFY_TASK_ID
from merchant_usage.text import escape

log = Log(__name__)

FAILURE_KEY: Final = "failure"
#: The same for the note of the run, which is written where no XCom backend is at hand.
FAILURE_KEY_OF_NOTE: Final = "failure_note"
DISCREPANCY_KEY: Final = "discrepancy"
DATES: Final = "dates"
MAX_ERROR: Final = 500


Given = ParamSpec("Given")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that failed, why, and where its log is."""

    task_id: str
    error: str
    log_url: str
    #: Nothing was wrong but what the run was asked for.
    refused: bool = False


@dataclass(slots=True)
class FailureNotes:
    """What the tasks of a run left: `failures` in the order of the tasks, so that the cause comes first."""

    failures: list[Failure] = field(default_factory=list)
    discrepancy: Discrepancy = field(default_factory=Discrepancy)
    #: Those that made the verification fail, if it came so far.
    dates: tuple[dt.date, ...] = ()

    @property
    def cause(self) -> Failure | None:
        """The failure that the others follow from."""
        return self.failures[0] if self.failures else None

    @property
    def is_mismatch(self) -> bool:
        """Whether all went well until Redis and PostgreSQL were compared."""
        return self.cause is not None and self.cause.task_id == VERIFY_TASK_ID and self.discrepancy.counters > 0


@contextmanager
def failure_noted(context: Context) -> Iterator[None]:
    """Leave a note of an error on its way out."""
    try:
        yield
    except AirflowSkipException:
        raise
    except Exception as error:
        ti: Any = context["ti"]
        said = in_one_line(error)
        # What Airflow says of it begins with frames of its own.
        again = _whether_again(ti) if isinstance(error, UsageError) and error.heals else ""
        log.error(f"{str(error).strip() or type(error).__name__}{again}")  # noqa: TRY400 - without frames, on purpose
        # The error itself is the one to raise.
        with suppress(Exception):
            push_for_scheduler(ti, FAILURE_KEY_OF_NOTE, said)
        with suppress(Exception):
            refused = any(isinstance(each, RequestRefused) for each in _with_contexts(error))
            ti.xcom_push(key=FAILURE_KEY, value={"error": said, "log_url": ti.log_url, "refused": refused})
        raise


def without_frames(body: Callable[Given, Result]) -> Callable[Given, Result]:
    """Let an error that ends a task for good come without the frames that it passed: its sentence says all.

    Those of Airflow, which it has still to pass, cannot be left out. Decorates the body of a task.
    """

    @wraps(body)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return body(*args, **kwargs)
        except AirflowFailException as error:
            raise error.with_traceback(None) from None

    return called


def _whether_again(ti: Any) -> str:
    """What becomes of a task whose error may pass."""
    attempt, attempts = ti.try_number, ti.max_tries + 1
    if attempt < attempts:
        return f" This may pass: Airflow tries again by itself (this was attempt {attempt} of {attempts})."
    return f" That was attempt {attempt} of {attempts}: when it has passed, clear this task with its downstream tasks."


def leave_discrepancy(context: Context, discrepancy: Discrepancy, dates: Iterable[dt.date]) -> None:
    """Leave the numbers of a verification that fails, and the dates that make it fail."""
    with suppress(Exception):
        context["ti"].xcom_push(key=DISCREPANCY_KEY, value={**discrepancy.to_json(), DATES: [*map(str, dates)]})


def notes_of(ti: Any) -> FailureNotes:
    """All that the tasks of a run left, as far as it can be read: without it a message is poorer, but a message.

    Args:
        ti: a task instance of the run; None if Airflow names none.
    """
    notes = FailureNotes()
    if ti is None:
        return notes
    with suppress(Exception):
        notes.failures = [
            Failure(task_id, note["error"], note["log_url"], note.get("refused", False))
            for task_id in TASK_IDS
            for note in _pulled(ti, task_id, FAILURE_KEY)
        ]
        for left in _pulled(ti, VERIFY_TASK_ID, DISCREPANCY_KEY):
            notes.discrepancy = Discrepancy.from_json(left)
            notes.dates = tuple(map(dt.date.fromisoformat, left[DATES]))
    return notes


def _with_contexts(error: BaseException) -> Iterator[BaseException]:
    """An error, and what was being handled when it was raised: what Airflow is told has ours in its context."""
    while error is not None:
        yield error
        if error.__context__ is None:
            return
        error = error.__context__


def in_one_line(error: BaseException) -> str:
    """The first line that says something."""
    said = (str(error).strip() or type(error).__name__).splitlines()
    # "2 counter(s) do not match ...:" is followed by the counters.
    return escape(" ".join(line.strip() for line in said[:2]))[:MAX_ERROR]


def _pulled(ti: Any, task_id: str, key: str) -> list[Any]:
    # A list of task ids asks for all mapped instances, on both versions.
    return [value for value in ti.xcom_pull(task_ids=[task_id], key=key) or () if value is not None]
