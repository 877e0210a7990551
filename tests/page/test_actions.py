"""What is done from the page: who may, what is taken, what comes of it, and in whose name that is written down."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Event, Thread
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from psycopg import Connection

from merchant_usage import clock
from merchant_usage.page.access import Doors, NotTaken, Visitor
from merchant_usage.page.app import create_app
from merchant_usage.page.bodies import LONGEST
from merchant_usage.source.shards import RedisClient
from tests.support import YESTERDAY, Usage, key, settings

ACME, BETA = key("acme"), key("beta")
ODD = key("\"><script>alert(1)</script>'{{ 7 * 7 }}\n%s")
DO = ("aggregate", "decide", "verify", "preview")


@dataclass
class Work:
    """Real servers, and a list in place of Airflow."""

    usage: Usage
    runs: list[tuple[dict[str, Any], str]] = field(default_factory=list)
    opened: Event = field(default_factory=Event)
    go_on: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.go_on.set()

    @contextmanager
    def servers(self, seconds: int | None = None) -> Iterator[tuple[RedisClient, Connection]]:
        del seconds
        self.opened.set()
        assert self.go_on.wait(60)
        yield self.usage.client, self.usage.conn

    def aggregate(self, conf: dict[str, Any], by: str) -> str:
        self.runs.append((conf, by))
        return "manual__1/2"


class Site:
    """The page, for people who act."""

    def __init__(self, doors: Doors, work: Work, **changes: Any) -> None:
        self.person = "anna"
        self.work = work
        self.doors = replace(
            doors,
            settings=lambda: settings(**changes),
            actor=lambda: Visitor(self.person, may_act=True),
            work=work,
            run_address="../runs/{run_id}",
        )
        self.http = TestClient(create_app(self.doors), raise_server_exceptions=True)

    def do(self, what: str, **body: Any) -> Any:
        return self.http.post(f"/do/{what}", json=body)

    def said(self, what: str, **body: Any) -> str:
        answer = self.do(what, **body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["said"])

    def refused(self, what: str, code: int, **body: Any) -> str:
        answer = self.do(what, **body)
        assert answer.status_code == code, answer.text
        return str(answer.json()["error"])


@pytest.fixture
def work(usage: Usage) -> Work:
    return Work(usage)


@pytest.fixture
def acting(doors: Doors, work: Work) -> Site:
    return Site(doors, work)


@pytest.fixture
def fallen(usage: Usage) -> Usage:
    """Two counters that went backwards."""
    usage.write({ACME: 100, BETA: 200})
    usage.aggregate(now=clock.now())
    usage.write({ACME: 5, BETA: 6})
    usage.aggregate(now=clock.now())
    return usage


def letters(usage: Usage) -> dict[bytes, int]:
    found = usage.conn.execute("SELECT redis_key, id FROM usage_dead_letter WHERE resolved_at IS NULL")
    return {bytes(raw): number for raw, number in found}


def letter_of(usage: Usage, merchant: str) -> int:
    (found,) = [number for raw, number in letters(usage).items() if f":{merchant}:".encode() in raw]
    return found


def decided(usage: Usage) -> list[tuple[Any, ...]]:
    return usage.conn.execute(
        "SELECT decision, decided_by, reason, approved_by, value_before, value_after FROM usage_decision ORDER BY id"
    ).fetchall()


# What is taken


@pytest.mark.parametrize("what", DO)
@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_nothing_but_json_is_taken(acting: Site, what: str, kind: str) -> None:
    answer = acting.http.post(f"/do/{what}", content=b'{"date": "2026-11-20"}', headers={"content-type": kind})
    assert answer.status_code == 415
    assert "JSON" in answer.json()["error"]


@pytest.mark.parametrize("sent", ["", "{", "[]", '"x"', "null", "NaN", "[" * 50_000])
def test_what_is_no_object_is_refused(acting: Site, sent: str) -> None:
    answer = acting.http.post("/do/verify", content=sent, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]


def test_what_is_too_long_is_refused(acting: Site) -> None:
    assert "too long" in acting.refused("aggregate", 413, from_date="x" * LONGEST)


@pytest.mark.parametrize(
    ("what", "body", "told"),
    [
        ("aggregate", {}, "from_date is missing"),
        ("aggregate", {"from_date": 20261120}, "from_date takes a date"),
        ("aggregate", {"from_date": "2026-02-30"}, "2026-02-30"),
        ("aggregate", {"from_date": "2026-11-20", "to_date": "2026-11-19"}, "2026-11-19"),
        ("aggregate", {"from_date": "2999-01-01"}, "2999-01-01"),
        ("aggregate", {"from_date": "2026-11-20", "dry_run": True}, "no field dry_run"),
        ("aggregate", {"from_date": "2026-11-20", "merchant_ids": "acme"}, "list of merchant ids"),
        ("aggregate", {"from_date": "2026-11-20", "merchant_ids": [1]}, "list of merchant ids"),
        ("aggregate", {"from_date": "2026-11-20", "merchant_ids": ["a\0b"]}, "merchant"),
        ("aggregate", {"from_date": "2026-11-20", "merchant_ids": [""]}, "merchant"),
        ("verify", {"from_date": "2026-11-20"}, "no field from_date"),
        ("verify", {"date": "yesterday"}, "yesterday"),
        ("preview", {"date": "2999-01-01"}, "still to come"),
        ("decide", {}, "decision is missing"),
        ("decide", {"decision": "lower"}, "takes one of keep, accept, carry"),
        ("decide", {"decision": "keep"}, "reason is missing"),
        ("decide", {"decision": "keep", "reason": " "}, "reason takes"),
        ("decide", {"decision": "keep", "reason": "x" * 2001}, "2,000 characters"),
        ("decide", {"decision": "keep", "reason": "x", "letter": "1"}, "letter takes a whole number"),
        ("decide", {"decision": "keep", "reason": "x", "letter": True}, "letter takes a whole number"),
        ("decide", {"decision": "keep", "reason": "x", "letter": 2**63}, "letter takes a whole number"),
        ("decide", {"decision": "keep", "reason": "x", "letter": 1, "date": "2026-11-20"}, "no field date"),
        ("decide", {"decision": "keep", "reason": "x", "date": "2026-11-20"}, "waiting takes a whole number"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(acting: Site, what: str, body: dict[str, Any], told: str) -> None:
    said = acting.refused(what, 400, **body)
    assert told in said
    assert "\n" not in said
    assert acting.work.runs == []


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://testserver.evil.example"},
        {"sec-fetch-site": "cross-site", "origin": "http://testserver"},
    ],
)
@pytest.mark.parametrize("what", DO)
def test_what_another_site_sends_is_not_done(acting: Site, what: str, headers: dict[str, str]) -> None:
    answer = acting.http.post(f"/do/{what}", json={"from_date": str(YESTERDAY)}, headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.json()["error"]
    assert acting.work.runs == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "same-origin"},
        {"origin": "http://testserver"},
        {"origin": "https://usage.example", "x-forwarded-host": "usage.example"},
    ],
)
def test_what_the_page_sends_is_done(acting: Site, headers: dict[str, str]) -> None:
    answer = acting.http.post("/do/aggregate", json={"from_date": str(YESTERDAY)}, headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("what", DO)
def test_who_may_only_look_can_do_nothing(doors: Doors, work: Work, what: str) -> None:
    def nobody() -> Visitor:
        raise HTTPException(403)

    site = TestClient(create_app(replace(doors, actor=nobody, work=work)))
    # Before anything that was sent is looked at.
    answer = site.post(f"/do/{what}", content=b"{")
    assert answer.status_code == 403
    assert "does not let you" in answer.json()["error"]
    assert not work.opened.is_set()


@pytest.mark.parametrize("what", DO)
def test_nothing_is_done_by_looking(acting: Site, what: str) -> None:
    assert acting.http.get(f"/do/{what}").status_code == 405


# Aggregate


def test_a_run_is_started_in_the_name_of_who_asked(acting: Site) -> None:
    answer = acting.do("aggregate", from_date="2026-11-20", to_date="2026-11-22").json()
    assert acting.work.runs == [
        ({"from_date": "2026-11-20", "to_date": "2026-11-22", "merchant_ids": []}, "anna"),
    ]
    assert answer["address"] == "../runs/manual__1%2F2"
    assert "manual__1/2" in answer["said"]


def test_a_run_of_one_date_and_one_merchant(acting: Site) -> None:
    odd = "a:b %*\n😀"
    said = acting.said("aggregate", from_date="2026-11-20", merchant_ids=[odd, odd])
    assert acting.work.runs == [
        ({"from_date": "2026-11-20", "to_date": "2026-11-20", "merchant_ids": [odd]}, "anna"),
    ]
    assert "\n" not in said


def test_what_airflow_does_not_start_is_told(acting: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def paused(_: object, __: object) -> str:
        raise NotTaken("The DAG is paused.", 409)

    monkeypatch.setattr(acting.work, "aggregate", paused)
    assert acting.refused("aggregate", 409, from_date=str(YESTERDAY)) == "The DAG is paused."


# Decide


@pytest.mark.parametrize(("decision", "stored", "carried"), [("keep", 100, 0), ("accept", 5, 0), ("carry", 105, 100)])
def test_a_counter_is_decided_with_name_and_reason(
    acting: Site, fallen: Usage, decision: str, stored: int, carried: int
) -> None:
    said = acting.said("decide", letter=letter_of(fallen, "acme"), decision=decision, reason=" a failover ")
    assert said.startswith(f"{decision.capitalize()}: 1 counter was decided.")
    assert fallen.rows() == {ACME: stored, BETA: 200}
    assert fallen.carried(ACME) == carried
    assert decided(fallen) == [(decision, "anna", "a failover", None, 100, stored)]


def test_nothing_is_decided_twice(acting: Site, fallen: Usage) -> None:
    letter = letter_of(fallen, "acme")
    acting.said("decide", letter=letter, decision="keep", reason="x")
    said = acting.refused("decide", 409, letter=letter, decision="accept", reason="x")
    assert "does not wait any more" in said
    assert fallen.rows()[ACME] == 100
    assert len(decided(fallen)) == 1


def test_all_of_a_date_is_decided_at_once(acting: Site, fallen: Usage) -> None:
    answer = acting.do("decide", date=str(YESTERDAY), waiting=2, decision="accept", reason="x").json()
    assert "2 counters were decided" in answer["said"]
    assert fallen.rows() == {ACME: 5, BETA: 6}
    assert sorted(answer["lines"]) == [
        f"{ACME}: stored 100 → 5",
        f"{BETA}: stored 200 → 6",
    ]


def test_of_a_date_nothing_is_decided_that_nobody_has_seen(acting: Site, fallen: Usage) -> None:
    before = fallen.everything()
    said = acting.refused("decide", 409, date=str(YESTERDAY), waiting=1, decision="accept", reason="x")
    assert "2 counters" in said
    assert fallen.everything() == before


def test_a_date_of_which_nothing_waits(acting: Site, usage: Usage) -> None:
    usage.write({ACME: 1})
    usage.aggregate()
    said = acting.refused("decide", 409, date=str(YESTERDAY), waiting=0, decision="keep", reason="x")
    assert "No open counter_regressed" in said


def test_to_accept_takes_two_persons_where_that_is_set(doors: Doors, work: Work, fallen: Usage) -> None:
    site = Site(doors, work, approvals=2)
    body = {"letter": letter_of(fallen, "acme"), "decision": "accept", "reason": "a correction"}
    assert "second person" in site.said("decide", **body)
    assert fallen.rows()[ACME] == 100

    site.person = " Anna"
    assert "You have proposed this already" in site.refused("decide", 409, **body)
    assert fallen.rows()[ACME] == 100
    assert decided(fallen) == []

    site.person = "bob"
    site.said("decide", **body)
    assert fallen.rows()[ACME] == 5
    assert decided(fallen) == [("accept", "anna", "a correction", "bob", 100, 5)]


# Compare


def test_verifying_tells_what_differs_and_writes_nothing(acting: Site, usage: Usage) -> None:
    usage.write({ACME: 5, BETA: 6})
    usage.aggregate()
    assert f"{YESTERDAY}: verified" in acting.said("verify", date=str(YESTERDAY))
    usage.write({ACME: 9})
    before = usage.everything()
    answer = acting.do("verify", date=str(YESTERDAY)).json()
    assert f"{YESTERDAY}: mismatch, Redis 15, PostgreSQL 11" in answer["said"]
    (line,) = answer["lines"]
    assert "acme" in line
    assert "Redis has 9, PostgreSQL has 5" in line
    assert f"{YESTERDAY}, 1 merchant: verified" in acting.said("verify", date=str(YESTERDAY), merchant_ids=["beta"])
    assert usage.everything() == before


def test_a_dry_run_tells_what_would_be_stored_and_writes_nothing(acting: Site, usage: Usage) -> None:
    usage.write({ACME: 5})
    usage.aggregate()
    usage.write({ACME: 9, BETA: 6})
    before = usage.everything()
    answer = acting.do("preview", date=str(YESTERDAY)).json()
    assert answer["said"].startswith("Nothing was written.")
    assert "2 would be stored, 0 stay" in answer["said"]
    assert len(answer["lines"]) == 2
    assert usage.everything() == before


def test_only_the_first_differences_are_told_one_by_one(acting: Site, usage: Usage) -> None:
    usage.write({key(f"m{number:03}"): 1 for number in range(60)})
    lines = acting.do("preview", date=str(YESTERDAY)).json()["lines"]
    assert len(lines) == 51
    assert lines[-1] == "and 10 more"


def test_only_one_compares_at_a_time(acting: Site, usage: Usage) -> None:
    usage.write({ACME: 5})
    acting.work.go_on.clear()
    answers: list[Any] = []
    first = Thread(target=lambda: answers.append(acting.do("verify", date=str(YESTERDAY))))
    first.start()
    assert acting.work.opened.wait(60)
    assert "Somebody compares already" in acting.refused("preview", 409, date=str(YESTERDAY))
    acting.work.go_on.set()
    first.join(60)
    assert answers[0].status_code == 200
    acting.said("preview", date=str(YESTERDAY))


# The list of what waits


def test_what_waits_is_shown_with_both_numbers(acting: Site, fallen: Usage) -> None:
    acting.said("decide", letter=letter_of(fallen, "beta"), decision="keep", reason="x")
    told = acting.http.get("/decisions").text
    assert "acme" in told
    assert ">beta<" not in told
    assert re.search(r'<td class="number">5</td>\s*<td class="number">100</td>', told)


def test_who_may_only_look_sees_no_buttons(doors: Doors, work: Work, fallen: Usage) -> None:
    del fallen
    site = Site(replace(doors, visitor=lambda: Visitor("vic", may_act=False)), work)
    told = site.http.get(f"/decisions?date={YESTERDAY}").text
    assert "acme" in told
    assert "data-do" not in told


def test_a_form_says_in_json_what_it_decides(acting: Site, fallen: Usage) -> None:
    told = acting.http.get(f"/decisions?date={YESTERDAY}").text
    bodies = [json.loads(body.replace("&#34;", '"')) for body in re.findall('data-body="([^"]*)"', told)]
    assert bodies == [
        {"date": str(YESTERDAY), "waiting": 2},
        *({"letter": number} for number in sorted(letters(fallen).values())),
    ]


def test_of_another_date_nothing_waits(acting: Site, fallen: Usage) -> None:
    del fallen
    assert "Nothing waits of 2026-11-20" in acting.http.get("/decisions?date=2026-11-20").text


def test_thousands_are_paged(acting: Site, usage: Usage) -> None:
    names = [f"m{number:03}" for number in range(120)]
    usage.write({key(name): 100 for name in names})
    usage.aggregate()
    usage.write({key(name): 5 for name in names})
    usage.aggregate()
    address, seen = f"decisions?date={YESTERDAY}", list[str]()
    for _ in range(3):
        told = acting.http.get(f"/{address}").text
        assert ("Back to the first" in told) is bool(seen)
        seen += re.findall(r">(m\d\d\d)<", told)
        more = re.search('href="(decisions[^"]*)" rel="next"', told)
        address = more[1].replace("&amp;", "&") if more else ""
    assert seen == sorted(names, key=lambda name: letter_of(usage, name))
    assert address == ""


@pytest.mark.parametrize("after", ["x", "-1", "1.5", str(2**63), "²"])
def test_what_is_no_place_to_go_on_from_is_refused(acting: Site, after: str) -> None:
    answer = acting.http.get("/decisions", params={"after": after})
    assert answer.status_code == 400
    assert "after=" in answer.text


def test_an_id_is_nothing_but_text(acting: Site, usage: Usage) -> None:
    usage.write({ODD: 100})
    usage.aggregate()
    usage.write({ODD: 5})
    usage.aggregate()
    told = acting.http.get(f"/decisions?date={YESTERDAY}").text
    assert "<script>alert" not in told
    assert "{{ 7 * 7 }}" in told
    assert "&lt;script&gt;alert(1)" in told
    acting.said("decide", letter=letters(usage).popitem()[1], decision="accept", reason="<b>x</b>")
    assert usage.rows() == {ODD: 5}


def test_where_nothing_can_be_done_there_is_no_such_address(site: TestClient, fallen: Usage) -> None:
    del fallen
    assert site.get("/decisions").status_code == 200
    assert {site.post(f"/do/{what}", json={}).status_code for what in DO} == {404}
