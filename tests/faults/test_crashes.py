"""The process that runs the engine is killed by SIGKILL at a certain moment; then the run is tried again.

Each time the rows end exact, the run is verified, and nothing of the dead process is left in PostgreSQL.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from local.servers import Valkey
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.run import Run
from tests.faults.engine import Job, crash, run_decide, run_tasks, run_whole
from tests.faults.leftovers import assert_nothing_left
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw, settings

STALE = TODAY - dt.timedelta(days=9)
DATES = (STALE, YESTERDAY, TODAY)
# Two batches of 1800 keys: two pages of values each, two pieces of COPY, and of the stale ones two pages to delete.
MERCHANTS = 1200
FELL = key("m0007", TODAY)
POISONED = key("m0003", YESTERDAY)
HEALED = key("m0005", YESTERDAY)
GONE = key("m0009", YESTERDAY)

DURING_SCAN = {
    "before the scan": ["sql:start_run"],
    "in the SCAN": ["page", "page"],
    "before bad keys are written down": ["page", "sql:open_dead_letters"],
    "between the ledger's notes of two dates": ["did:note_scan", "sql:note_scan"],
}
DURING_UPSERT = {
    "before the first reading": ["did:create_staging"],
    "before the first page is read": ["mget"],
    "between reading and writing": ["mget", "mget"],
    "in the middle of COPY": ["copied"],
    "in a later piece of COPY": ["copied", "copied"],
    "before the upsert": ["sql:upsert_staged"],
    "after the upsert": ["did:upsert_staged"],
    "after the readings": ["kept"],
    "before the commit": ["commit:upsert_staged"],
    "after the commit": ["committed:upsert_staged"],
    "in the second batch": ["committed:upsert_staged", "commit:upsert_staged"],
    "with the suspects locked": ["did:lock_rows"],
    "with the suspects judged": ["did:lock_rows", "did:open_dead_letters"],
    "before the suspects' commit": ["commit:lock_rows"],
    "after the suspects' commit": ["committed:lock_rows"],
}
DURING_VERIFY = {
    "before the snapshot": ["sql:set_snapshot"],
    "in the second reading": ["did:set_snapshot", "did:select_day_totals", "mget", "mget"],
    "before what was read is looked for": ["sql:select_readings"],
    "before rows without a key are looked for": ["did:set_snapshot", "did:select_day_totals", "sql:create_staging"],
    "while rows without a key are looked for": ["did:set_snapshot", "did:select_day_totals", "copied"],
    "after the comparison": ["committed:set_snapshot"],
    "before the ledger": ["sql:finish_run"],
    "in the ledger": ["did:finish_run", "sql:finish_run"],
    "before the ledger's commit": ["commit:finish_run"],
    "after the ledger": ["sql:delete_readings"],
    "after the readings' deletion": ["did:delete_readings"],
}
DURING_CLEANUP = {
    "before the clean-up": ["delete"],
    "between two pages of the clean-up": ["delete", "delete"],
}


@pytest.fixture
def expected(usage: Usage) -> dict[CounterKey, int]:
    """Counters stored once, then grown; one fell back, broke, healed, expired. What must be stored."""
    counters = {key(f"m{n:04}", day): 100 + n for n in range(MERCHANTS) for day in DATES}
    usage.write({**counters, HEALED: "poison"})
    usage.client.set("usage:malformed", 1)
    usage.aggregate(*DATES, run_id="the run before")
    grown = {counter: value + n % 7 for n, (counter, value) in enumerate(counters.items())}
    new = {key("new", day): 1 for day in DATES}
    usage.write({**grown, **new, FELL: 5, POISONED: "poison"})
    usage.client.delete(raw(GONE))
    usage.client.set("usage:malformed too", 1)
    return {**grown, **new, FELL: counters[FELL], POISONED: counters[POISONED], GONE: counters[GONE]}


@pytest.fixture
def job(valkey: Valkey, database_url: str, tmp_path: Path) -> Job:
    run = Run("the run", "scheduled", DATES, NOW)
    return Job(valkey.url, database_url, run, settings(max_mapped_tasks=2, delete_stale_keys=True), tmp_path)


def assert_exact(usage: Usage, expected: dict[CounterKey, int]) -> None:
    """What every attempt must come to in the end."""
    assert usage.rows() == expected
    assert {(letter.redis_key, letter.reason) for letter in usage.letters() if not letter.resolved} == {
        (raw(FELL), Reason.COUNTER_REGRESSED),
        (raw(POISONED), Reason.NOT_AN_INTEGER),
        (b"usage:malformed", Reason.MALFORMED_KEY),
        (b"usage:malformed too", Reason.MALFORMED_KEY),
    }
    assert [letter.redis_key for letter in usage.letters() if letter.resolved] == [raw(HEALED)]
    verdicts = {date: verdict for date, (verdict, _) in usage.ledger("the run").items()}
    # The counter that fell back waits for a decision, so its date is not verified, and says so.
    # One of yesterday's stored counters holds no number any more, and one of today's has fallen.
    assert verdicts == {STALE: "verified", YESTERDAY: "mismatch", TODAY: "mismatch"}
    assert_nothing_left(usage.conn)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(words, id=name)
        for name, words in (DURING_SCAN | DURING_UPSERT | DURING_VERIFY | DURING_CLEANUP).items()
    ],
)
def test_task_is_killed_and_tried_again(
    usage: Usage, job: Job, expected: dict[CounterKey, int], moment: list[str]
) -> None:
    crash(run_tasks, job, moment)
    reports = run_tasks(job)
    assert {report["date"]: report["keys"] for report in reports}[str(TODAY)] == {"match": MERCHANTS, "regressed": 1}
    assert_exact(usage, expected)
    left = {name for name in usage.client.scan_iter() if str(STALE).encode() in name}
    assert left == set(), "clean-up deletes what was proven, whatever its first attempt had done"


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param((DURING_SCAN | DURING_UPSERT | DURING_VERIFY)[name], id=name)
        for name in (
            "in the SCAN",
            "between reading and writing",
            "in the middle of COPY",
            "before the commit",
            "after the commit",
            "in the second batch",
            "before the suspects' commit",
            "in the second reading",
            "before the ledger's commit",
            "after the ledger",
        )
    ],
)
def test_whole_run_is_killed_and_tried_again(
    usage: Usage, job: Job, expected: dict[CounterKey, int], moment: list[str]
) -> None:
    crash(run_whole, job, moment)
    run_whole(job)
    assert_exact(usage, expected)
    assert usage.client.exists(raw(key("m0000", STALE)))


def test_one_attempt_after_another_is_killed(usage: Usage, job: Job, expected: dict[CounterKey, int]) -> None:
    for moment in (
        ["page", "page"],
        ["sql:note_scan"],
        ["copied"],
        ["commit:upsert_staged"],
        ["committed:upsert_staged"],
        ["commit:lock_rows"],
        ["committed:lock_rows"],
        ["committed:upsert_staged", "commit:upsert_staged"],
        ["did:set_snapshot", "did:select_day_totals", "copied", "copied"],
        ["commit:finish_run"],
        ["sql:delete_readings"],
        ["delete", "delete"],
    ):
        crash(run_tasks, job, moment)
    run_tasks(job)
    assert_exact(usage, expected)


@pytest.mark.parametrize(
    ("moment", "done_by_the_first"),
    [
        pytest.param(["did:lock_rows"], False, id="with the row locked"),
        pytest.param(["did:decide_regression"], False, id="before the row is written"),
        pytest.param(["did:set_rows"], False, id="between the row and the commit"),
        pytest.param(["commit:set_rows"], False, id="before the commit"),
        pytest.param(["committed:set_rows"], True, id="after the commit"),
    ],
)
def test_decision_is_killed_and_made_again(
    usage: Usage, job: Job, expected: dict[CounterKey, int], moment: list[str], done_by_the_first: bool
) -> None:
    run_tasks(job)
    deciding = Job(job.redis_url, job.postgres_url, Run("", "cli", (TODAY,), NOW), job.settings, job.folder)
    stored = expected[FELL]
    crash(run_decide, deciding, moment)
    assert usage.rows()[FELL] == (stored + 5 if done_by_the_first else stored)
    assert [letter.resolved for letter in usage.letters() if letter.redis_key == raw(FELL)] == [done_by_the_first]
    if not done_by_the_first:
        run_decide(deciding)
    assert (usage.rows()[FELL], usage.carried(FELL)) == (stored + 5, stored)
    assert_nothing_left(usage.conn)
