"""An error says what and which; what to do next is said by Airflow's side and by the command line, in their words."""

from __future__ import annotations

import datetime as dt

import pytest

from merchant_usage.cli.remedies import aggregate_command, remedies
from merchant_usage.errors import (
    PROGRAM,
    BatchesNotStored,
    PartitionMissing,
    ReadingsGone,
    SchemaError,
    SettingsError,
    UpsertFailed,
    UsageError,
    UsageMismatch,
)
from merchant_usage.orchestration.remedies import MAX_COMMAND, REMEDIES, rerun_command

FIRST, LAST = dt.date(2026, 11, 20), dt.date(2026, 11, 23)
MISMATCH = UsageMismatch(["acme queries of 2026-11-20: Redis has 2, PostgreSQL has 1 (behind)"], 1)


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (MISMATCH, "(behind)\n  To mend: clear upsert_merchant_usage with its downstream tasks."),
        (PartitionMissing("A partition is missing: x (y)"), "(y) Make it, then clear the task."),
        (
            UpsertFailed({"acme": "refused"}),
            "acme: refused. Mend the cause, then clear this task with its downstream tasks.",
        ),
        (
            BatchesNotStored(1, 3),
            "1 of 3 batches were not stored, so this run is not proven. See the red upsert_merchant_usage tasks; once "
            "their cause is mended, clear them with their downstream tasks.",
        ),
        (ReadingsGone(3, 0), "ended long ago. Clear upsert_merchant_usage with its downstream tasks."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_in_airflow(error: UsageError, ending: str) -> None:
    assert error.with_remedy(REMEDIES).endswith(ending)


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (MISMATCH, "(behind)\n  To mend: run it again"),
        (PartitionMissing("A partition is missing: x (y)"), "(y) Make it, then run it again"),
        (UpsertFailed({"acme": "refused"}), "acme: refused. Mend the cause, then run it again"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_on_the_command_line(error: UsageError, ending: str) -> None:
    assert error.with_remedy(remedies()).endswith(f"{ending}.")
    assert error.with_remedy(remedies([FIRST])).endswith(f"{ending}: {PROGRAM} aggregate --date {FIRST}")
    named = error.with_remedy(remedies([FIRST + dt.timedelta(days=n) for n in range(4)]))
    assert named.endswith(f"{ending}: {PROGRAM} aggregate --from {FIRST} --to {LAST}")


def test_dates_with_gaps_are_no_range() -> None:
    dates = [FIRST, LAST, FIRST + dt.timedelta(days=1)]
    assert aggregate_command(dates) == (
        f"{PROGRAM} aggregate --from 2026-11-20 --to 2026-11-21 && {PROGRAM} aggregate --date {LAST}"
    )
    trigger = "airflow dags trigger usage_aggregation -c "
    assert rerun_command(dates) == (
        trigger
        + """'{"from_date": "2026-11-20", "to_date": "2026-11-21"}' &&\n"""
        + trigger
        + """'{"from_date": "2026-11-23", "to_date": "2026-11-23"}'"""
    )


def test_many_gaps_are_one_command_that_fits() -> None:
    dates = [FIRST + dt.timedelta(days=2 * n) for n in range(30)]
    command = rerun_command(dates)
    assert command is not None
    assert len(command) <= MAX_COMMAND
    assert command.count("airflow dags trigger") == 1


@pytest.mark.parametrize("error", [SettingsError("x=1 is wrong."), SchemaError("Run: migrate")], ids=str)
def test_what_says_all_by_itself_stays_as_it_is(error: UsageError) -> None:
    assert error.with_remedy(REMEDIES) == error.with_remedy(remedies([FIRST])) == str(error)


@pytest.mark.parametrize(
    "error", [MISMATCH, BatchesNotStored(1, 3), ReadingsGone(3, 0), UpsertFailed({"a": "b"})], ids=str
)
def test_the_engine_does_not_know_where_it_runs(error: UsageError) -> None:
    assert not {"clear", "Airflow", "task", "tasks", PROGRAM} & set(str(error).split())
