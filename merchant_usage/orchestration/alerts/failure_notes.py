"""What a task that fails leaves for the message about its run: XCom holds it even when PostgreSQL is down."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from airflow.providers.common.compat.sdk import AirflowSkipException, Context

from merchant_usage.alerts.alert import Damage

TASK_IDS: Final = ("scan_usage", "upsert_merchant_usage", "verify_usage", "delete_stale_keys")
VERIFY_TASK_ID: Final = "verify_usage"
FAILURE_KEY: Final = "failure"
DAMAGE_KEY: Final = "damage"
DATES: Final = "dates"
MAX_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that failed, why, and where its log is."""

    task_id: str
    error: str
    log_url: str


@contextmanager
def failure_noted(context: Context) -> Iterator[None]:
    """Leave a note of an error on its way out."""
    try:
        yield
    except AirflowSkipException:
        raise
    except Exception as error:
        ti: Any = context["ti"]
        note = {"error": in_one_line(error), "log_url": ti.log_url}
        # The error itself is the one to raise.
        with suppress(Exception):
            ti.xcom_push(key=FAILURE_KEY, value=note)
        raise


def leave_damage(context: Context, damage: Damage, dates: Iterable[dt.date]) -> None:
    """Leave the numbers of a verification that fails, and the dates that make it fail."""
    with suppress(Exception):
        context["ti"].xcom_push(key=DAMAGE_KEY, value={**damage.to_json(), DATES: [*map(str, dates)]})


def failures_of(ti: Any) -> list[Failure]:
    """All notes of a run, in the order of its tasks: the cause comes before its consequences."""
    return [
        Failure(task_id, note["error"], note["log_url"])
        for task_id in TASK_IDS
        for note in _pulled(ti, task_id, FAILURE_KEY)
    ]


def damage_of(ti: Any) -> tuple[Damage, tuple[dt.date, ...]]:
    """The numbers that the verification of a run left, and the dates that made it fail, if it came so far."""
    found = _pulled(ti, VERIFY_TASK_ID, DAMAGE_KEY)
    return (Damage.from_json(found[0]), tuple(map(dt.date.fromisoformat, found[0][DATES]))) if found else (Damage(), ())


def in_one_line(error: BaseException) -> str:
    """The first line that says something."""
    said = (str(error).strip() or type(error).__name__).splitlines()
    # "2 counter(s) do not match ...:" is followed by the counters.
    return " ".join(line.strip() for line in said[:2])[:MAX_ERROR]


def _pulled(ti: Any, task_id: str, key: str) -> list[Any]:
    # A list of task ids asks for all mapped instances, on both versions.
    return [value for value in ti.xcom_pull(task_ids=[task_id], key=key) or () if value is not None]
