"""Bad news under a real scheduler: what must be told is, once, and what is no news is not told."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from local.airflow_api import DagRun
from merchant_usage.model.keys import CounterKey, build_key
from merchant_usage.settings import DAG_ID
from tests.scheduler.tested import Again
from tests.scheduler.versions import AIRFLOW_3
from tests.scheduler.world import DEADLINE_SECONDS, RUN_SECONDS, World, wait_until

pytestmark = pytest.mark.usefixtures("between_runs")

# What Slack would make of these, were they not escaped: a shout to all, a link, bold, code.
HOSTILE = ("<!channel> & *pay* `now`", "<https://evil.example|acme>")
QUIET = "quiet shop"
METRIC = "queries"
FAILED, MISMATCH, STILL = "Usage run failed", "PostgreSQL does not hold", "Still failing"
LATE, RECOVERED = "Usage run is late", "Usage runs are verified again"
# A run that takes long on a busy machine is told, and its end.
OF_A_SLOW_MACHINE = (LATE, RECOVERED)
REGRESSED, LETTERS, NO_DATA = "Usage counters went backwards", "1 new usage key(s) cannot be counted", "No usage for"
EXPIRES = "is about to be lost"
TOLD_BEFORE = "Slack was told before, or often enough"


@pytest.fixture(scope="module")
def day(world: World, scheduled_runs: list[DagRun]) -> Iterator[dt.date]:
    """A date with merchants of its own; the day after has nothing. Both are gone when these tests are over."""
    assert scheduled_runs
    date = world.today - dt.timedelta(days=6)
    for number, merchant in enumerate((*HOSTILE, QUIET), start=1):
        world.count(CounterKey(merchant, date, METRIC), 1000 * number)
    yield date
    for key in world.redis.scan_iter(f"usage:*:{date}:*"):
        world.redis.delete(key)
    world.conn.execute("DELETE FROM merchant_usage WHERE date = %s", [date])
    world.conn.execute("DELETE FROM usage_dead_letter WHERE usage_date = %s", [date])
    world.forget_alerts()


@contextmanager
def refused(world: World, *merchants: str, how: str) -> Iterator[None]:
    """PostgreSQL does this with rows of some merchants, by a trigger."""
    world.conn.execute(
        f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {how}; END';"
        "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON merchant_usage FOR EACH ROW EXECUTE FUNCTION refuse();"
        "CREATE TABLE refused (merchant_id text)"
    )
    for merchant in merchants:
        world.conn.execute("INSERT INTO refused VALUES (%s)", [merchant])
    try:
        yield
    finally:
        world.conn.execute("DROP FUNCTION refuse CASCADE; DROP TABLE refused")


REFUSE = """IF NEW.merchant_id IN (SELECT merchant_id FROM refused) THEN
RAISE EXCEPTION ''refused by <!here>'' USING ERRCODE = ''insufficient_privilege''; END IF; RETURN NEW"""
LOSE = "IF NEW.merchant_id IN (SELECT merchant_id FROM refused) THEN RETURN NULL; END IF; RETURN NEW"


@contextmanager
def held(world: World) -> Iterator[None]:
    """No run gets on: somebody has locked the ledger."""
    with psycopg.connect(world.conn.info.dsn, password=world.conn.info.password) as other:
        other.execute("LOCK TABLE usage_run IN ACCESS EXCLUSIVE MODE")
        yield


def of_day(day: dt.date) -> dict[str, str]:
    return {"from_date": str(day), "to_date": str(day)}


# First, because a manual run keeps 2.11 from looking at SLAs of intervals before it.
@pytest.mark.skipif(AIRFLOW_3, reason="2.11 has SLAs, 3.3 deadlines")
def test_a_missed_sla_is_told_once_for_the_newest_run_and_not_for_the_one_that_catches_up(
    world: World,
) -> None:
    caught_up, *later = sorted(world.airflow.api.runs(DAG_ID), key=lambda run: str(run.interval_end))
    newest = later[-1]
    with held(world):
        world.airflow.api.clear(DAG_ID, newest.run_id, ["scan_usage"])
        told = wait_until(lambda: world.slack.about(newest.run_id, LATE), "Slack was told", RUN_SECONDS)
    assert world.ended(newest.run_id).state == "success"
    assert len(told) == 1
    # Each was the newest once: where a run came on the hour, the one before it may have been late too.
    assert all(len(world.slack.about(run.run_id, LATE)) <= 1 for run in later)
    assert world.slack.about(caught_up.run_id, LATE) == []


@pytest.mark.skipif(not AIRFLOW_3, reason="2.11 has SLAs, 3.3 deadlines")
def test_a_passed_deadline_is_told_once_and_its_end_too_but_not_for_a_backfill_of_old_dates(
    world: World, day: dt.date
) -> None:
    world.forget_alerts()
    noon = dt.datetime.combine(day, dt.time(12), dt.UTC)
    with held(world):
        run = world.airflow.api.trigger(DAG_ID, of_day(day))
        world.airflow.backfill(DAG_ID, noon, noon, again=Again.NONE, conf={})
        seconds = DEADLINE_SECONDS + RUN_SECONDS
        told = wait_until(lambda: world.slack.about(run.run_id, LATE), "Slack was told", seconds)
        wait_until(lambda: world.logged("is late, but nobody waits for it: backfill"), "the backfill was late", seconds)
    assert world.ended(run.run_id).state == "success"
    assert len(told) == 1
    assert world.logged(f"Run {run.run_id} is late: running"), "what Airflow was asked in the triggerer it answered"
    (end,) = wait_until(lambda: world.slack.texts(RECOVERED), "the end was told")
    assert "1 late" in end
    backfilled = [run for run in world.airflow.api.runs(DAG_ID) if run.run_type == "backfill"]
    assert [world.ended(run.run_id).state for run in backfilled] == ["success"]
    assert world.slack.about(backfilled[0].run_id, LATE) == []
    assert len(world.slack.texts(LATE)) == 1


def test_a_failed_run_is_told_once_however_many_tasks_are_red_and_not_again_when_repeated(
    world: World, day: dt.date
) -> None:
    world.conn.execute("DELETE FROM merchant_usage WHERE date = %s", [day])
    world.forget_alerts()
    with refused(world, *HOSTILE, how=REFUSE):
        run = world.trigger(**of_day(day))
        assert run.state == "failed"
        assert world.states(run, "upsert_merchant_usage") == {"failed", "success"}
        ((_, body),) = wait_until(lambda: world.slack.about(run.run_id, FAILED), "Slack was told")
        (told,) = world.slack.texts(FAILED)
        before = world.logged(TOLD_BEFORE)
        again = world.clear(run, "upsert_merchant_usage")
        assert again.state == "failed"
        wait_until(lambda: world.logged(TOLD_BEFORE) > before, "the second failure was noted")

    assert world.slack.count_other_than(*OF_A_SLOW_MACHINE) == 1
    assert f"{HOSTILE[0]}: Redis 1,000, PostgreSQL 0, PostgreSQL is behind by 1,000" in told
    assert f"{HOSTILE[1]}: Redis 2,000, PostgreSQL 0, PostgreSQL is behind by 2,000" in told
    assert QUIET not in told
    assert "behind by 3,000" in told
    assert "upsert_merchant_usage (2 tasks)" in told
    assert "refused by <!here>" in told
    assert f'airflow dags trigger {DAG_ID} -c \'{{"from_date": "{day}", "to_date": "{day}"}}\'' in told
    (link,) = [block["text"] for block in json.loads(body)["blocks"] if block.get("text", {}).get("type") == "mrkdwn"]
    assert link["text"].startswith(f"<{world.airflow.url}/")
    assert link["text"].endswith("|Log of upsert_merchant_usage>")
    for shout in (b"<!", b"<https://evil"):
        assert shout not in body


def test_runs_that_keep_failing_are_told_a_few_times_call_somebody_and_their_end_is_told_once(
    world: World, day: dt.date
) -> None:
    world.forget_alerts()
    world.conn.execute("ALTER TABLE usage_run RENAME TO usage_run_elsewhere")
    try:
        runs = [world.airflow.api.trigger(DAG_ID, of_day(day)) for _ in range(6)]
        assert [world.ended(run.run_id).state for run in runs] == ["failed"] * 6
        noted = "SELECT true FROM usage_alert WHERE kind IN ('failed', 'still_failing') HAVING count(*) >= 6"
        wait_until(lambda: world.conn.execute(noted).fetchone(), "all failures were noted", RUN_SECONDS)
        wait_until(world.pagerduty.incidents, "PagerDuty was told")
        (still,) = wait_until(lambda: world.slack.texts(STILL), "Slack was told")
    finally:
        world.conn.execute("ALTER TABLE usage_run_elsewhere RENAME TO usage_run")
    assert len(world.slack.texts(FAILED)) == 2
    assert "Still failing, 3 runs in a row" in still
    assert world.pagerduty.incidents() == [("trigger", f"{DAG_ID} still failing")]

    mended = world.trigger(**of_day(day))
    assert mended.state == "success"
    (end,) = wait_until(lambda: world.slack.texts(RECOVERED), "the end was told")
    assert mended.run_id in end
    assert "6 failed" in end
    wait_until(lambda: len(world.pagerduty.incidents()) == 2, "PagerDuty was told of the end")
    assert world.pagerduty.incidents()[1] == ("resolve", f"{DAG_ID} still failing")


def test_what_a_green_run_found_is_told_once(world: World, day: dt.date) -> None:
    lowered = CounterKey(QUIET, day, METRIC)
    world.trigger(**of_day(day))
    assert world.rows()[lowered] == 3000
    world.forget_alerts()
    # Known since long, so no news: the bad keys of the world.
    world.redis.set(build_key("usage", lowered), 2900, keepttl=True)
    world.redis.set(build_key("usage", lowered._replace(metric_type="half")), "1.5", ex=dt.timedelta(days=7))

    after = day + dt.timedelta(days=1)
    run = world.trigger(from_date=str(day), to_date=str(after))
    again = world.trigger(from_date=str(day), to_date=str(after))

    assert [run.state, again.state] == ["success", "success"]
    (regressed,) = world.slack.texts(REGRESSED)
    assert f"{QUIET}: Redis 2,900, PostgreSQL 3,000, Redis is lower by 100" in regressed
    assert "merchant-usage dead-letters --reason counter_regressed" in regressed
    (letters,) = world.slack.texts(LETTERS)
    assert f"1 not_an_integer, such as usage:{QUIET}:{day}:half" in letters
    (no_data,) = world.slack.texts(NO_DATA)
    assert f"No usage for {after}" in no_data
    assert world.slack.count_other_than(*OF_A_SLOW_MACHINE) == 3
    world.redis.set(build_key("usage", lowered), 3000, keepttl=True)


def test_lost_writes_are_told_as_a_mismatch_and_what_expires_soon_by_itself(world: World, day: dt.date) -> None:
    keys = [CounterKey(merchant, day, METRIC) for merchant in (*HOSTILE, QUIET)]
    assert world.trigger(**of_day(day)).state == "success"
    for key in keys:
        world.count(key, 7)
    world.redis.expire(build_key("usage", keys[0]), dt.timedelta(hours=20))
    world.forget_alerts()
    with refused(world, HOSTILE[0], HOSTILE[1], how=LOSE):
        run = world.trigger(from_date=str(day - dt.timedelta(days=1)), to_date=str(day))
    assert run.state == "failed"
    (mismatch,) = wait_until(lambda: world.slack.texts(MISMATCH), "Slack was told")
    # Of the run's dates the one that is wrong.
    assert mismatch.startswith(f"PostgreSQL does not hold what Redis holds: {day}\n")
    assert f'-c \'{{"from_date": "{day}", "to_date": "{day}"}}\'' in mismatch
    assert f"{HOSTILE[1]}: Redis 2,007, PostgreSQL 2,000, PostgreSQL is behind by 7" in mismatch
    assert "behind by 14" in mismatch
    (expires,) = [text for text in world.slack.texts("Usage of") if EXPIRES in text]
    assert f"{HOSTILE[0]}: Redis 1,007, PostgreSQL 1,000, PostgreSQL is behind by 7" in expires
    assert HOSTILE[1] not in expires
    assert world.slack.count_other_than(*OF_A_SLOW_MACHINE) == 2
