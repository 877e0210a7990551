"""The DAG runs, from Redis to the proof, in Airflow; and when it cannot, it says so in one sentence."""

from __future__ import annotations

import datetime as dt
import json
import re

import pytest

from local.servers.processes import free_port
from merchant_usage import clock
from tests.dags.support import Dag, Ended
from tests.dags.versions import AIRFLOW_3
from tests.support import Usage, key, raw

TODAY = clock.now().date()
# Not yesterday: the tests may run in the hours in which that still settles.
DAY = TODAY - dt.timedelta(days=3)
CONF = {"from_date": str(DAY), "to_date": str(DAY)}
COUNTERS = {key("acme", DAY): 5, key("a:b:c", DAY): 6, key("émoji 🎉 %*", DAY, "calls"): 7}


def assert_failed_with_one_error(ended: Ended, told: str) -> None:
    """The run is red, and its first red task's log holds the sentence, without a traceback of the drivers."""
    assert ended.state == "failed"
    assert ended.states["scan_usage"] == ["failed"]
    plain = [line for line in ended.log.splitlines() if told in line and re.search("error", line, re.IGNORECASE)]
    assert plain, "the sentence is a line of its own, before any frames"
    assert ended.log.index(plain[0]) < ended.log.index("Traceback"), plain[0]
    assert not re.search(r"(psycopg|redis)[\w.]*\.[A-Z]\w*Error\b", ended.log)


def test_run_by_hand_is_verified(dag: Dag, usage: Usage) -> None:
    usage.write(COUNTERS)
    ended = dag.run(CONF)
    assert ended.state == "success"
    assert ended.states == {
        "scan_usage": ["success"],
        "upsert_merchant_usage": ["success"] * 3,
        "verify_usage": ["success"],
        "delete_stale_keys": ["skipped"],
    }
    assert ended.names == sorted(["acme", "a:b:c", "émoji 🎉 %*"])
    assert usage.rows() == COUNTERS
    assert usage.ledger(ended.run_id) == {DAY: ("verified", None)}
    assert usage.client.dbsize() == 3, "clean-up is off"


def test_the_ledger_says_who_triggered_a_run(dag: Dag, usage: Usage) -> None:
    """dag.test() does so in the name of `dag_test`; before 3.1 nobody knows."""
    usage.write(COUNTERS)
    ended = dag.run(CONF)
    row = usage.conn.execute("SELECT requested_by FROM usage_run WHERE run_id = %s", [ended.run_id]).fetchone()
    assert row == ("dag_test" if AIRFLOW_3 else None,)


def test_run_without_params_takes_yesterday(dag: Dag, usage: Usage) -> None:
    ended = dag.run()
    assert list(usage.ledger(ended.run_id)) in ([TODAY - dt.timedelta(days=1)], [TODAY])
    assert ended.states["verify_usage"] == ["skipped"], "nothing in Redis, nothing proven"


def test_run_without_params_takes_the_day_before_it_was_triggered_however_late_it_runs(dag: Dag, usage: Usage) -> None:
    usage.write(COUNTERS)
    triggered = dt.datetime.combine(DAY + dt.timedelta(days=1), dt.time(10), dt.UTC)
    ended = dag.run(at=triggered.isoformat())
    assert ended.state == "success"
    assert usage.ledger(ended.run_id) == {DAY: ("verified", None)}
    assert usage.rows() == COUNTERS
    # What its Params name, it takes literally.
    named = dag.run({"from_date": str(TODAY)}, at=(triggered + dt.timedelta(hours=1)).isoformat())
    assert list(usage.ledger(named.run_id)) == [TODAY]


def test_run_of_some_merchants(dag: Dag, usage: Usage) -> None:
    usage.write(COUNTERS)
    ended = dag.run({**CONF, "merchant_ids": ["a:b:c"]})
    assert ended.state == "success"
    assert usage.rows() == {key("a:b:c", DAY): 6}


@pytest.mark.skipif(not AIRFLOW_3, reason="dag.test() of 2.11 sends no events; tests/scheduler sees its own")
def test_the_asset_event_holds_only_dates_that_are_verified_over_all_merchants(dag: Dag, usage: Usage) -> None:
    lower = DAY - dt.timedelta(days=1)
    usage.write({**COUNTERS, key("acme", lower): 9})
    both = {"from_date": str(lower), "to_date": str(DAY)}
    first = dag.run(both)
    (event,) = first.events
    assert event["run_id"] == first.run_id
    assert [(told["date"], told["verdict"]) for told in event["dates"]] == [
        (str(lower), "verified"),
        (str(DAY), "verified"),
    ]

    usage.client.decr(raw(key("acme", lower)))
    green = dag.run(both)
    assert green.state == "success"
    assert usage.ledger(green.run_id)[lower][0] == "mismatch"
    (event,) = green.events
    assert [told["date"] for told in event["dates"]] == [str(DAY)]


@pytest.mark.skipif(not AIRFLOW_3, reason="dag.test() of 2.11 sends no events; tests/scheduler sees its own")
def test_without_a_date_verified_over_all_merchants_no_asset_event_is_sent(dag: Dag, usage: Usage) -> None:
    usage.write(COUNTERS)
    of_some = dag.run({**CONF, "merchant_ids": ["acme", "a:b:c"]})
    assert (of_some.state, of_some.states["verify_usage"], of_some.events) == ("success", ["success"], [])

    whole = dag.run(CONF)
    assert len(whole.events) == 1, "it is only that run that sends none"

    usage.client.decr(raw(key("acme", DAY)))
    lower = dag.run(CONF)
    assert (lower.state, lower.states["verify_usage"], lower.events) == ("success", ["success"], [])


def test_many_merchants_are_dealt_into_few_tasks(dag: Dag, usage: Usage) -> None:
    counters = {key(f"m{n:03}", DAY): n for n in range(100)}
    usage.write(counters)
    ended = dag.run(CONF, USAGE_MAX_MAPPED_TASKS="3", USAGE_BATCH_COUNTERS="1")
    assert ended.state == "success"
    assert ended.names == [
        "m000 … m032 (33 merchants)",
        "m033 … m066 (34 merchants)",
        "m067 … m099 (33 merchants)",
    ]
    assert usage.rows() == counters


def test_dry_run_writes_nothing(dag: Dag, usage: Usage) -> None:
    usage.write(COUNTERS)
    before = usage.everything()
    ended = dag.run({**CONF, "dry_run": True})
    assert ended.state == "success"
    assert ended.states["verify_usage"] == ["skipped"]
    assert usage.everything() == before
    assert ended.log.count("Would store: ") == len(COUNTERS)
    told = (
        f"Nothing to verify: this was a dry run; {len(COUNTERS)} counter(s) would be stored. "
        "The log of scan_usage has them."
    )
    assert told in ended.log
    assert ended.note == told
    assert "Dry run: nothing was written" in ended.log
    assert "mismatch" not in ended.log, "it passes no verdict"

    dag.run(CONF)
    usage.client.decr(raw(key("acme", DAY)))
    told = "Nothing to verify: this was a dry run; 0 counter(s) would be stored, 1 went backwards. "
    assert told in dag.run({**CONF, "dry_run": True}).log


def test_scheduled_run_of_sealed_dates_does_no_work(dag: Dag, usage: Usage) -> None:
    usage.write(COUNTERS)
    noon = dt.datetime.combine(DAY, dt.time(12), dt.UTC).isoformat()
    first = dag.run(scheduled=noon)
    assert first.state == "success"
    assert usage.rows() == COUNTERS
    before = usage.everything()
    second = dag.run(scheduled=noon)
    assert second.state == "success"
    assert second.states["verify_usage"] == ["skipped"]
    assert f"Nothing to do for {DAY}: sealed" in second.log
    assert usage.everything() == before
    assert usage.ledger(second.run_id) == {}
    # By hand it works all the same.
    third = dag.run(CONF)
    assert third.states["verify_usage"] == ["success"]
    assert usage.ledger(third.run_id) == {DAY: ("verified", None)}


def test_first_scheduled_run_of_a_day_sweeps(dag: Dag, usage: Usage) -> None:
    usage.write(COUNTERS)
    midnight = dt.datetime.combine(TODAY, dt.time(), dt.UTC).isoformat()
    ended = dag.run(scheduled=midnight)
    assert ended.state == "success"
    assert usage.rows() == COUNTERS
    assert len(usage.ledger(ended.run_id)) == 8


def test_clean_up_deletes_old_keys_that_are_proven(dag: Dag, usage: Usage) -> None:
    old = TODAY - dt.timedelta(days=20)
    usage.write({**COUNTERS, key("acme", old): 9})
    ended = dag.run(CONF, USAGE_DELETE_STALE_KEYS="true")
    assert ended.state == "success"
    assert usage.rows() == {**COUNTERS, key("acme", old): 9}
    assert set(usage.client.keys()) == {raw(counter) for counter in COUNTERS}
    assert "Deleted 1 stale keys" in ended.log


def test_refused_merchant_is_red_and_all_others_are_stored(dag: Dag, usage: Usage) -> None:
    usage.conn.execute("ALTER TABLE merchant_usage ADD CONSTRAINT no_bad CHECK (merchant_id <> 'bad')")
    usage.write({**COUNTERS, key("bad", DAY): 1})
    ended = dag.run(CONF, no_retries=True)
    assert ended.state == "failed"
    assert sorted(ended.states["upsert_merchant_usage"]) == ["failed", "success", "success", "success"]
    assert ended.states["verify_usage"] == ["failed"]
    assert ended.states["delete_stale_keys"] == ["upstream_failed"]
    assert usage.rows() == COUNTERS
    assert usage.ledger(ended.run_id)[DAY][0] == "mismatch"
    assert f"bad queries of {DAY}: Redis has 1, PostgreSQL has no row (missing)" in ended.log
    assert "To mend: clear upsert_merchant_usage with its downstream tasks." in ended.log


def test_wrong_password_of_redis(dag: Dag, usage: Usage) -> None:
    usage.write(COUNTERS)
    dag.run(CONF)
    usage.client.incr(raw(key("acme", DAY)))
    before = usage.everything()
    wrong = json.loads(dag.connections["AIRFLOW_CONN_USAGE_REDIS"]) | {"password": "wr0ng-Pa55"}
    ended = dag.run(CONF, AIRFLOW_CONN_USAGE_REDIS=json.dumps(wrong))
    assert_failed_with_one_error(ended, "Redis refuses the login: ")
    assert "wr0ng-Pa55" not in ended.log
    after = usage.everything()
    assert after["merchant_usage"] == before["merchant_usage"]
    assert after["usage_dead_letter"] == before["usage_dead_letter"]


def test_server_that_is_down_is_told_in_the_note(dag: Dag, usage: Usage) -> None:
    usage.write(COUNTERS)
    down = json.loads(dag.connections["AIRFLOW_CONN_USAGE_REDIS"]) | {"port": free_port()}
    ended = dag.run(CONF, no_retries=True, AIRFLOW_CONN_USAGE_REDIS=json.dumps(down))
    assert_failed_with_one_error(ended, "Redis does not answer")
    assert ended.note is not None
    assert ended.note.startswith("Not verified, scan_usage failed: Redis does not answer")
    assert "\n" not in ended.note

    ended = dag.run(CONF, no_retries=True, AIRFLOW_CONN_USAGE_POSTGRES=f"postgresql://u:p@127.0.0.1:{free_port()}/x")
    assert ended.note is not None
    assert ended.note.startswith("Not verified, scan_usage failed: PostgreSQL does not answer")
    mended = dag.run(CONF)
    assert mended.note is not None
    assert mended.note.startswith(f"{DAY}: verified, ")


def test_wrong_password_of_postgresql(dag: Dag, usage: Usage) -> None:
    usage.write(COUNTERS)
    url = dag.connections["AIRFLOW_CONN_USAGE_POSTGRES"]
    password = url.split(":")[2].split("@")[0]
    ended = dag.run(CONF, AIRFLOW_CONN_USAGE_POSTGRES=url.replace(password, "wr0ng-Pa55"))
    assert_failed_with_one_error(ended, "PostgreSQL refuses the login: ")
    assert "wr0ng-Pa55" not in ended.log
    assert usage.rows() == {}


@pytest.mark.parametrize("name", ["usage_redis", "usage_postgres"])
def test_missing_connection_is_named_with_how_to_add_it(dag: Dag, name: str) -> None:
    ended = dag.run(CONF, without=f"AIRFLOW_CONN_{name.upper()}")
    assert_failed_with_one_error(ended, f"The Airflow connection {name} does not exist. Create it in the UI")
    assert f"airflow connections add {name}" in ended.log
    assert f"AIRFLOW_CONN_{name.upper()}" in ended.log


def test_missing_schema_names_the_command(dag: Dag, empty_database_url: str) -> None:
    ended = dag.run(CONF, AIRFLOW_CONN_USAGE_POSTGRES=empty_database_url)
    assert_failed_with_one_error(ended, "To create what is missing: merchant-usage migrate")


def test_log_reads_like_a_report(dag: Dag, usage: Usage) -> None:
    usage.write({**COUNTERS, key("acme", DAY): 1523, key("acme", DAY, "half"): b"1.5"})
    ended = dag.run(CONF)
    assert ended.state == "success"
    # What a person reads, and on the same line the counts for machines.
    report = {
        f"Starting aggregation for date {DAY}": [],
        f"Found 4 usage keys of 3 merchants for {DAY}": ["keys=4", "merchants=3"],
        f"Aggregated acme: queries = 1,523 ({DAY})": [],
        f"{DAY}: verified, ": ["settled=yes", "rows_inserted=3"],
        "Completed. Records aggregated: 3, errors: 1": ["records=3", "errors=1", "dead_letters=1"],
    }
    # 2.11 puts texts among the fields into quotes.
    lines = {said: [line.replace("'", "") for line in ended.log.splitlines() if said in line] for said in report}
    for said, fields in report.items():
        assert any(all(f" {field}" in line for field in fields) for line in lines[said]), (said, lines[said])
    told = [ended.log.index(said) for said in report]
    assert told == sorted(told)
    # And the line of the code that says so, on both versions.
    for said in report:
        assert any(re.search(r"\b(pipeline|scan|store)\.py:\d+", line) for line in lines[said]), lines[said]


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        pytest.param(
            {"from_date": "2026-11-02", "to_date": "2026-11-01"},
            "to_date=2026-11-01 lies before from_date=2026-11-02; the range takes both days, in order",
            id="backwards",
        ),
        pytest.param(
            {"to_date": "2999-01-01"}, "to_date=2999-01-01 is in the future; the last day there is", id="future"
        ),
        pytest.param({"from_date": "1026-11-01", "to_date": "2026-11-01"}, "a run takes 366 at most", id="too many"),
        pytest.param({"merchant_ids": ["", ""]}, "names no merchant; it takes a list of merchant ids", id="blank"),
        pytest.param({"merchant_ids": ["x" * 1025]}, "has 1025 bytes, more than 1024; it takes a list", id="too long"),
        pytest.param(
            {"merchant_id": ["acme"]},
            "There is no Param 'merchant_id'; a run takes from_date, to_date, merchant_ids, dry_run.",
            id="misspelt",
        ),
    ],
)
def test_param_that_cannot_be_is_told(dag: Dag, usage: Usage, conf: dict[str, object], told: str) -> None:
    usage.write(COUNTERS)
    before = usage.everything()
    assert_failed_with_one_error(dag.run(conf), told)
    after = usage.everything()
    assert len(after.pop("usage_alert")) == 1, "that the run failed"
    assert after == {name: table for name, table in before.items() if name != "usage_alert"}


GLOB_CONF = {**CONF, "merchant_ids": ["*", "a?me", "[a]cme", "a:b:*"]}
STARRED = {key("*", DAY): 8, key("a:b:*", DAY): 9}


def test_glob_characters_in_ids_are_taken_literally(dag: Dag, usage: Usage) -> None:
    usage.write({**COUNTERS, **STARRED})
    ended = dag.run(GLOB_CONF)
    assert ended.state == "success"
    assert usage.rows() == STARRED
    assert usage.ledger(ended.run_id) == {DAY: ("verified", None)}
    assert f"Redis has nothing of [a]cme, a?me for date {DAY}" in ended.log


def test_ids_that_come_twice_and_blank_lines_change_nothing(dag: Dag, usage: Usage) -> None:
    usage.write(COUNTERS)
    ended = dag.run({**CONF, "merchant_ids": ["acme", "", "acme", "a:b:c", ""]})
    assert ended.state == "success"
    assert ended.names == ["a:b:c", "acme"]
    assert usage.rows() == {key("acme", DAY): 5, key("a:b:c", DAY): 6}
    assert "Redis has nothing of" not in ended.log


@pytest.mark.parametrize("dry_run", [False, True])
def test_unknown_merchant_is_refused_at_once_and_no_row_is_touched(dag: Dag, usage: Usage, dry_run: bool) -> None:
    usage.write(COUNTERS)
    dag.run(CONF)
    for counter in COUNTERS:
        usage.client.incr(raw(counter))
    before = usage.row_versions()
    ended = dag.run({**CONF, "merchant_ids": ["nobody"], "dry_run": dry_run})
    told = f"No merchant is known as nobody: Redis has no usage of that name for {DAY}, PostgreSQL none of any day."
    assert_failed_with_one_error(ended, told)
    assert ended.note is not None
    assert ended.note.startswith(f"Not verified, scan_usage failed: {told}")
    assert usage.row_versions() == before


def test_date_whose_keys_have_expired_is_told_and_its_rows_stay(dag: Dag, usage: Usage) -> None:
    usage.write(COUNTERS)
    dag.run(CONF)
    usage.client.flushall()
    before = usage.row_versions()
    for conf, name in ((CONF, DAY), ({**CONF, "merchant_ids": ["acme"]}, f"{DAY}, 1 merchant")):
        ended = dag.run(conf)
        assert ended.state == "success"
        assert ended.states["verify_usage"] == ["skipped"]
        assert f"There was nothing in Redis to verify: {name}: source_expired." in ended.log
        assert usage.ledger(ended.run_id) == {DAY: ("source_expired", None)}
    assert usage.row_versions() == before


def test_date_older_than_what_redis_keeps_is_not_called_just_empty(dag: Dag, usage: Usage) -> None:
    usage.write(COUNTERS)
    old = str(TODAY - dt.timedelta(days=30))
    ended = dag.run({"from_date": old, "to_date": old})
    assert ended.states["verify_usage"] == ["skipped"]
    assert f"There was nothing in Redis to verify: {old}: empty (older than what Redis keeps: its usage" in ended.log


def test_worker_with_a_wrong_clock_does_not_run(dag: Dag, usage: Usage) -> None:
    """It heals: another worker may have the right time."""
    usage.write(COUNTERS)
    ended = dag.run(CONF, no_retries=True, clock_ahead=26 * 3600)
    assert ended.states["scan_usage"] == ["failed"]
    assert "ClocksDisagree: The clocks do not agree: this machine has " in ended.log  # as it is, so it is retried
    assert usage.rows() == {}
    assert dag.run(CONF).state == "success"
