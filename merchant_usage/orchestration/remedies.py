"""What to do in Airflow about an error or an alert. The engine says what is wrong, and does not know where it runs."""

from __future__ import annotations

import datetime as dt
import json
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Final

from merchant_usage.errors import (
    BatchesNotStored,
    PartitionMissing,
    ReadingsGone,
    UpsertFailed,
    UsageError,
    UsageMismatch,
    UsageVanished,
)
from merchant_usage.model.dates import date_ranges
from merchant_usage.orchestration.names import SCAN_TASK_ID, UPSERT_TASK_ID
from merchant_usage.settings import DAG_ID

#: A longer command would not fit into a message in one piece. Without merchants it is for all: more, and no harm.
MAX_COMMAND: Final = 500

#: Ends the sentence of an error that fails a task.
REMEDIES: Final[Mapping[type[UsageError], str]] = {
    BatchesNotStored: f"See the red {UPSERT_TASK_ID} tasks; once their cause is mended, clear them with their "
    "downstream tasks.",
    PartitionMissing: "Make it, then clear the task.",
    ReadingsGone: f"Clear {UPSERT_TASK_ID} with its downstream tasks.",
    UpsertFailed: "Mend the cause, then clear this task with its downstream tasks.",
    UsageMismatch: f"To mend: clear {UPSERT_TASK_ID} with its downstream tasks.",
    UsageVanished: f"To mend: clear {SCAN_TASK_ID} with its downstream tasks.",
}


def rerun_command(dates: Iterable[dt.date], **params: Any) -> str | None:
    """What to type into a shell to aggregate dates again, with these Params besides."""
    days = sorted(dates)
    if not days:
        return None
    ranges = [_range(each[0], each[-1]) for each in date_ranges(days)]
    whole = _range(days[0], days[-1])
    # More than was asked for is no harm: what is left out would be.
    for command in (" &&\n".join(_trigger(each | params) for each in ranges), _trigger(whole | params)):
        if len(command) <= MAX_COMMAND:
            return command
    return _trigger(whole)


def _range(first: dt.date, last: dt.date) -> dict[str, Any]:
    return {"from_date": str(first), "to_date": str(last)}


def _trigger(conf: Mapping[str, Any]) -> str:
    # In ASCII nothing has to be spelt out for a reader, but for one character, and what is pasted is what was meant.
    written = json.dumps(conf).replace("\x7f", "\\u007f")
    return f"airflow dags trigger {DAG_ID} -c {shlex.quote(written)}"
