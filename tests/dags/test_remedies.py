"""For each red sentence: who does exactly what it says sees green. The tasks are the engine's, run as Airflow would."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from local.servers import Valkey
from merchant_usage import pipeline
from merchant_usage.errors import (
    BatchesNotStored,
    DatesNotStored,
    PartitionMissing,
    ReadingsGone,
    UpsertFailed,
    UsageError,
    UsageMismatch,
    UsageVanished,
)
from merchant_usage.model.run import Run
from merchant_usage.orchestration.names import SCAN_TASK_ID, UPSERT_TASK_ID
from merchant_usage.orchestration.remedies import REMEDIES
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.faults.engine import At, Job, run_tasks
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw, settings

COUNTERS = {key(merchant, date): 5 for merchant in ("acme", "beta") for date in (YESTERDAY, TODAY)}
#: What is cleared with its downstream tasks, by the sentence's words.
DOWNSTREAM = {
    SCAN_TASK_ID: ("scan", "upsert", "verify"),
    UPSERT_TASK_ID: ("upsert", "verify"),
    # The red one: it has returned nothing.
    "task": ("verify",),
    "them": ("verify",),
}

Hurt = Callable[[Usage], object]


@pytest.fixture
def job(usage: Usage, valkey: Valkey, database_url: str, tmp_path: Path) -> Job:
    usage.write(COUNTERS)
    return Job(valkey.url, database_url, Run("the run", "scheduled", (YESTERDAY, TODAY), NOW), settings(), tmp_path)


def do_what_it_says(error: UsageError, job: Job) -> None:
    """Clear what the remedy names."""
    sentence = next(REMEDIES[kind] for kind in type(error).__mro__ if kind in REMEDIES)
    named = re.search(rf"[Cc]lear (?:th\w+ )?({'|'.join(DOWNSTREAM)})", sentence)
    assert named, sentence
    job.clear(*DOWNSTREAM[named[1]])


def erase_settled(usage: Usage) -> None:
    usage.client.delete(raw(key("acme", YESTERDAY)))


def erase_with_row(usage: Usage) -> None:
    for date in (YESTERDAY, TODAY):
        usage.client.delete(raw(key("acme", date)))
    usage.conn.execute("DELETE FROM merchant_usage WHERE merchant_id = 'acme'")


def lower_rows(usage: Usage) -> None:
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 1 WHERE merchant_id = 'acme'")


def delete_rows(usage: Usage) -> None:
    usage.conn.execute("DELETE FROM merchant_usage WHERE merchant_id = 'acme'")


def crash_postgres(usage: Usage) -> None:
    """A crash empties an UNLOGGED table."""
    usage.conn.execute("TRUNCATE usage_reading")


def count_late(usage: Usage) -> None:
    usage.client.incrby(raw(key("acme", YESTERDAY)), 2)


def lower_and_accept(usage: Usage) -> None:
    """A row of another counter is damaged while a person accepts."""
    usage.write({key("beta", TODAY): 1})
    usage.aggregate(TODAY)
    decide(usage.client, usage.conn, Ruling(Decision.ACCEPT, "a person"), "usage", key=raw(key("beta", TODAY)))
    lower_rows(usage)


@pytest.mark.parametrize(
    ("moment", "hurt", "kind"),
    [
        pytest.param("mget", erase_settled, UsageVanished, id="vanished between scan and store"),
        pytest.param("sql:set_snapshot", erase_with_row, UsageVanished, id="erased with their rows"),
        pytest.param("sql:set_snapshot", lower_rows, UsageMismatch, id="rows lowered"),
        pytest.param("sql:set_snapshot", delete_rows, UsageMismatch, id="rows deleted"),
        pytest.param("sql:set_snapshot", count_late, UsageMismatch, id="counted late"),
        pytest.param("sql:set_snapshot", lower_and_accept, UsageMismatch, id="lowered while another was accepted"),
        pytest.param("sql:set_snapshot", crash_postgres, ReadingsGone, id="PostgreSQL crashed"),
    ],
)
def test_the_sentence_of_a_refuted_run(usage: Usage, job: Job, moment: str, hurt: Hurt, kind: type[UsageError]) -> None:
    hurts = At(moment, do=lambda: hurt(usage))
    with pytest.raises(kind) as raised:
        run_tasks(job, hurts)
    assert hurts.happened
    do_what_it_says(raised.value, job)
    assert_green(usage, job)


def assert_green(usage: Usage, job: Job) -> None:
    """And what is stored is what Redis has, or had."""
    assert {report["date"]: report["verdict"] for report in run_tasks(job)} == {
        str(YESTERDAY): "verified",
        str(TODAY): "verified",
    }
    values = {counter: usage.client.get(raw(counter)) for counter in COUNTERS}
    assert usage.rows() == {counter: int(value) for counter, value in values.items() if value is not None}


def test_the_sentence_of_a_merchant_that_postgresql_refuses(usage: Usage, job: Job) -> None:
    usage.conn.execute("ALTER TABLE merchant_usage ADD CONSTRAINT no_acme CHECK (merchant_id <> 'acme')")
    with pytest.raises(UpsertFailed) as raised:
        run_tasks(job)
    usage.conn.execute("ALTER TABLE merchant_usage DROP CONSTRAINT no_acme")
    do_what_it_says(raised.value, job)
    assert_green(usage, job)


def test_the_sentence_of_a_missing_partition(usage: Usage, job: Job) -> None:
    usage.conn.execute("ALTER TABLE merchant_usage RENAME TO unparted")
    usage.conn.execute(
        "CREATE TABLE merchant_usage (LIKE unparted INCLUDING DEFAULTS, PRIMARY KEY (merchant_id, date, metric_type))"
        " PARTITION BY RANGE (date)"
    )
    place = "CREATE TABLE {} PARTITION OF merchant_usage FOR VALUES FROM ('{}') TO ('{}')"
    usage.conn.execute(place.format("late", TODAY, "2026-12-01").encode())
    with pytest.raises(DatesNotStored) as raised:
        run_tasks(job)
    assert {counter for counter in usage.rows() if counter.date == TODAY} == {k for k in COUNTERS if k.date == TODAY}
    usage.conn.execute(place.format("early", "2026-11-01", TODAY).encode())
    do_what_it_says(raised.value, job)
    assert_green(usage, job)


def test_the_sentence_of_batches_that_were_not_stored(usage: Usage) -> None:
    usage.write(COUNTERS)
    stored = usage.store_only(YESTERDAY, TODAY)
    with pytest.raises(BatchesNotStored):
        usage.prove(stored._replace(results=stored.results[:1]))
    assert "clear them with their downstream tasks" in REMEDIES[BatchesNotStored]
    again = [
        pipeline.store(usage.client, usage.conn, batch, stored.plan.run_id, settings()) for batch in stored.batches[1:]
    ]
    proof = usage.prove(stored._replace(results=[stored.results[0], *again]))
    assert usage.verdicts(proof) == {YESTERDAY: "verified", TODAY: "verified"}


def test_every_sentence_has_its_test() -> None:
    tested = {BatchesNotStored, PartitionMissing, ReadingsGone, UpsertFailed, UsageMismatch, UsageVanished}
    assert REMEDIES.keys() == tested
