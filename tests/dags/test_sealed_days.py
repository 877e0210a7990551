"""The asset `merchant_usage_day`: a partition for each date that is sealed, once for each time that it is."""

from __future__ import annotations

import pytest

from merchant_usage import clock
from merchant_usage.orchestration.compat import HAS_PARTITIONS
from merchant_usage.steps.due import ONE_DAY
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.dags.support import Dag
from tests.support import Usage, key, raw

pytestmark = pytest.mark.skipif(not HAS_PARTITIONS, reason="this Airflow has no partitions that a task adds")

TODAY = clock.now().date()
# Not yesterday: the tests may run in the hours in which that still settles.
DAY = TODAY - 3 * ONE_DAY
BEFORE = DAY - ONE_DAY
CONF = {"from_date": str(DAY), "to_date": str(DAY)}
BOTH = {"from_date": str(BEFORE), "to_date": str(DAY)}
WITH_TODAY = {"from_date": str(DAY), "to_date": str(TODAY)}


def test_a_sealed_date_is_a_partition_and_a_live_one_is_none(dag: Dag, usage: Usage) -> None:
    usage.write({key("acme", DAY): 5, key("other", DAY): 6, key("acme", TODAY): 7})
    ended = dag.run(WITH_TODAY)
    assert usage.ledger(ended.run_id)[TODAY] == ("verified", None)
    assert ended.days == {str(DAY): 11}
    assert len(ended.events) == 1, "the asset of all runs is as it was"


def test_a_repeat_adds_no_second_event(dag: Dag, usage: Usage) -> None:
    usage.write({key("acme", BEFORE): 4, key("acme", DAY): 5})
    assert dag.run(CONF).days == {str(DAY): 5}
    assert dag.run(CONF).days == {}
    assert dag.run(BOTH).days == {str(BEFORE): 4}
    assert dag.run(BOTH).days == {}


def test_a_run_of_some_merchants_seals_nothing(dag: Dag, usage: Usage) -> None:
    usage.write({key("acme", DAY): 5})
    assert dag.run({**CONF, "merchant_ids": ["acme"]}).days == {}


def test_a_counter_that_went_backwards_withholds_its_date_until_somebody_decides(dag: Dag, usage: Usage) -> None:
    usage.write({key("acme", BEFORE): 4, key("acme", DAY): 5})
    assert dag.run(CONF).days == {str(DAY): 5}
    usage.client.decr(raw(key("acme", DAY)))
    lower = dag.run(BOTH)
    assert usage.ledger(lower.run_id)[DAY][0] == "mismatch"
    assert lower.days == {str(BEFORE): 4}

    decide(usage.client, usage.conn, Ruling(Decision.KEEP, "tester"), "usage", key=raw(key("acme", DAY)))
    assert dag.run(BOTH).days == {str(DAY): 5}, "sealed anew, which is told anew"
    assert dag.run(BOTH).days == {}


def test_a_date_that_a_run_sealed_without_telling_is_told_by_the_next(dag: Dag, usage: Usage) -> None:
    """The first run's verdict is in the ledger, and it is red for another date's sake: Airflow sends nothing of it."""
    # A sum of its own: the Airflow of these tests remembers what the others have told.
    usage.write({key("acme", BEFORE): 4, key("acme", DAY): 501})
    usage.conn.execute("CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    usage.conn.execute(
        "CREATE TRIGGER lose BEFORE INSERT ON merchant_usage FOR EACH ROW"
        f" WHEN (NEW.date = '{BEFORE}') EXECUTE FUNCTION lose()"
    )
    try:
        red = dag.run(BOTH)
    finally:
        usage.conn.execute("DROP FUNCTION lose CASCADE")
    assert (red.state, usage.ledger(red.run_id)[DAY][0]) == ("failed", "verified")
    assert red.asset_events == []

    usage.write({key("acme", TODAY): 1})
    assert dag.run({"from_date": str(TODAY), "to_date": str(TODAY)}).days == {str(DAY): 501}


def test_rows_that_somebody_changed_meanwhile_are_not_told(dag: Dag, usage: Usage) -> None:
    usage.write({key("acme", DAY): 5, key("acme", TODAY): 1})
    assert dag.run(CONF).days == {str(DAY): 5}
    usage.conn.execute("UPDATE usage_run SET postgres_total = 6")
    ended = dag.run({"from_date": str(TODAY), "to_date": str(TODAY)})
    assert ended.days == {}
    assert f"{DAY} does not hold what it was verified with" in ended.log


def test_a_sum_that_changed_is_told_anew(dag: Dag, usage: Usage) -> None:
    usage.write({key("acme", DAY): 5})
    assert dag.run(CONF).days == {str(DAY): 5}
    usage.client.incr(raw(key("acme", DAY)))
    assert dag.run(CONF).days == {str(DAY): 6}


def test_days_of_long_ago_are_left_alone(dag: Dag, usage: Usage) -> None:
    """What was sealed before the last month began is told by the run that sealed it, if by any."""
    usage.write({key("acme", DAY): 5})
    dag.run(CONF)
    old = (TODAY.replace(day=1) - 32 * ONE_DAY).replace(day=1)
    usage.conn.execute("UPDATE usage_run SET usage_date = %s", [old])
    usage.conn.execute("UPDATE merchant_usage SET date = %s", [old])
    usage.client.flushdb()
    usage.write({key("acme", TODAY): 1})
    ended = dag.run({"from_date": str(TODAY), "to_date": str(TODAY)})
    assert (ended.state, ended.days) == ("success", {})
