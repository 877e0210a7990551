"""Why a number is what it is: the view `usage_explained`, and the command that tells it."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL
from merchant_usage.model.keys import CounterKey
from merchant_usage.sink import explained
from merchant_usage.sink.explained import Event
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.support import NOW, YESTERDAY, Usage, key, raw

ACME = key("acme")
ODD = CounterKey("a:b:%s x*'\n", YESTERDAY, "queries")


def events(usage: Usage, merchant: str = "acme", metric: str | None = None) -> list[Event]:
    return explained.explain(usage.conn, merchant, YESTERDAY, metric).events


def told(usage: Usage, kind: str, merchant: str = "acme") -> list[str]:
    return [event.told for event in events(usage, merchant) if event.kind == kind]


def test_a_run_that_proved_the_day_is_told_with_what_it_found(usage: Usage) -> None:
    usage.write({ACME: 5, key("other"): 6_000_000_000_000})
    usage.aggregate(run_id="first")
    story = explained.explain(usage.conn, "acme", YESTERDAY, None)
    assert [(each.metric_type, each.metric_value, each.carried) for each in story.stored] == [("queries", 5, 0)]
    assert [event.kind for event in story.events] == ["counted", "run", "seal"]
    counted, run, sealed = story.events
    assert sealed.told.startswith("The day was sealed, version 1 (first), by run first: 2 counters of all merchants, ")
    assert counted.told == f"Counted 5 since {YESTERDAY} 00:00 UTC."
    assert (run.metric_type, run.by_whom, run.value_before) == (None, None, None)
    begun = f"begun at {NOW:%Y-%m-%d %H:%M:%S} UTC"
    assert run.told.startswith(f"Run first (manual, attempt 1), {begun}, for all merchants: verified ")
    assert "verified (the day was over and settled). Of all it was for Redis had 6,000,000,000,005 and " in run.told
    assert run.told.endswith("2 rows were new, 0 raised.")


def test_a_decision_is_told_with_who_and_why_and_both_numbers(usage: Usage) -> None:
    usage.write({ACME: 5})
    usage.aggregate()
    usage.write({ACME: 3})
    usage.aggregate()
    decide(usage.client, usage.conn, Ruling(Decision.ACCEPT, "alice", "a test, 100%"), "usage", key=raw(ACME))
    found = {event.kind: event for event in events(usage)}
    letter, decision, correction = found["dead letter"], found["decision"], found["correction"]
    assert correction.told == "Corrected by -2: decided, and not counted."
    assert letter.metric_type == "queries"
    assert letter.told == "The counter could not be taken, counter_regressed: Redis has 3, PostgreSQL has 5"
    assert (decision.by_whom, decision.value_before, decision.value_after) == ("alice", 5, 3)
    assert decision.told == "accept: a test, 100%"
    assert found["resolved"].told == "counter_regressed is no matter any more, by decision: accept."


def test_events_come_in_the_order_in_which_they_happened(usage: Usage) -> None:
    usage.write({ACME: 5})
    for run_id in ("one", "two", "three"):
        usage.aggregate(run_id=run_id)
    moments = [event.happened_at for event in events(usage)]
    assert moments == sorted(moments)
    assert [text.split()[1] for text in told(usage, "run")] == ["one", "two", "three"]


def test_only_what_concerns_the_merchant_and_the_metric_is_told(usage: Usage) -> None:
    calls = CounterKey("acme", YESTERDAY, "calls")
    usage.write({ACME: 5, calls: "half", key("other"): 6})
    usage.aggregate(run_id="all")
    usage.aggregate(merchants=("other",), run_id="of other")
    assert [text.split()[1] for text in told(usage, "run")] == ["all"]
    assert [event.metric_type for event in events(usage) if event.kind == "dead letter"] == ["calls"]
    assert [event.kind for event in events(usage, metric="queries")] == ["counted", "run", "seal"]
    assert [text.split()[1] for text in told(usage, "run", "other")] == ["all", "of"]


@pytest.mark.parametrize("prefix", ["usage", "usage:eu", "%s"])
def test_a_key_is_found_whatever_its_merchant_and_prefix_are(usage: Usage, prefix: str) -> None:
    name = f"{prefix}:{ODD.merchant_id}:{YESTERDAY}:queries".encode()
    usage.client.set(name, "-1")
    usage.client.set(b"usage:\xff:" + str(YESTERDAY).encode() + b":queries", "1")
    usage.client.set(f"{prefix}:{'x' * 2000}:{YESTERDAY}:queries", "1")
    usage.aggregate(key_prefix=prefix)
    (letter,) = events(usage, ODD.merchant_id)
    assert letter.told.startswith("The counter could not be taken, negative: ")


def test_a_run_that_failed_is_told_with_its_error(usage: Usage) -> None:
    usage.write({ACME: 5})
    usage.aggregate()
    usage.conn.execute("UPDATE usage_run SET verdict = NULL, error = 'Redis went away: 100%'")
    (text,) = told(usage, "run")
    assert text.endswith("for all merchants: it failed: Redis went away: 100%")


def test_how_a_session_writes_dates_changes_nothing(usage: Usage) -> None:
    usage.write({ACME: "half"})
    usage.aggregate()
    usage.conn.execute("SET DateStyle = 'SQL, DMY'")
    found = usage.conn.execute("SELECT kind FROM usage_explained WHERE merchant_id = 'acme'").fetchall()
    assert found == [("dead letter",)]


@pytest.fixture
def say(usage: Usage, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `explain` here; what it said, and its exit code."""
    assert usage.rows() == {}
    monkeypatch.setenv(POSTGRES_URL, database_url)

    def run(*words: str) -> tuple[str, int]:
        code = main(["explain", *words])
        return capsys.readouterr().out, code

    return run


def test_the_command_tells_it_line_by_line(usage: Usage, say: Any) -> None:
    usage.write({ACME: 5})
    usage.aggregate(run_id="first")
    said, code = say("acme", str(YESTERDAY))
    assert code == 0
    assert said.startswith(f"acme on {YESTERDAY}\n")
    lines = said.splitlines()
    assert [line.split("UTC  ")[1][:10] for line in lines if "UTC  " in line] == [
        "counted, q",
        "run, the w",
        "seal, the ",
    ]
    assert lines[-2] == f"{YESTERDAY} is sealed: it was over and settled, and every counter was proven."
    assert lines[-1] == f"What is stored of acme on {YESTERDAY} is what was sealed as version 1."

    usage.write({ACME: 3})
    usage.aggregate()
    said, _ = say("acme", str(YESTERDAY), "queries")
    assert (
        "dead letter, queries: The counter could not be taken, counter_regressed: Redis has 3, PostgreSQL has 5" in said
    )
    assert said.splitlines()[-2] == f"{YESTERDAY} is not proven: a counter went backwards, and waits for a decision."


def test_the_command_tells_programs_the_same(usage: Usage, say: Any) -> None:
    usage.write({ODD: 5})
    usage.aggregate()
    said, code = say(ODD.merchant_id, str(YESTERDAY), "--json")
    document = json.loads(said)
    assert (code, document["merchant_id"], document["date"]) == (0, ODD.merchant_id, str(YESTERDAY))
    assert [each["metric_value"] for each in document["stored"]] == [5]
    assert [each["kind"] for each in document["events"]] == ["counted", "run", "seal"]
    assert (document["verdict"], document["sealed"]) == ("verified", True)
    audit = document["audit"]
    assert (audit["state"], audit["version"], audit["sealed"], audit["stored"]) == ("intact", 1, "5", "5")
    assert dt.datetime.fromisoformat(document["events"][0]["happened_at"]).tzinfo is not None


def test_what_nobody_knows_is_said_so(usage: Usage, say: Any) -> None:
    assert usage.rows() == {}
    said, code = say("nobody", str(YESTERDAY))
    assert code == 0
    assert said == (
        f"Nothing is stored of nobody on {YESTERDAY}.\n"
        f"{YESTERDAY} is not proven yet: no run has come to a verdict about its end.\n"
        f"What is stored of nobody on {YESTERDAY} cannot be compared with a seal: there is none of this date.\n"
    )
    assert say("", str(YESTERDAY))[1] == 2
