"""One number explained: what the command `explain` says, in its order and its words, for any id."""

from __future__ import annotations

import datetime as dt

import pytest
from fastapi.testclient import TestClient

from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL
from merchant_usage.model.keys import CounterKey
from merchant_usage.page import explained
from merchant_usage.steps.resolve import Decision, Ruling, decide
from merchant_usage.text import escape, shown
from tests.hostile import HOSTILE
from tests.page.seen import Seen, look
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw

pytestmark = pytest.mark.usefixtures("at_noon")
ACME = key("acme")
#: The first day and the last that the page shows.
ENDS = [dt.date(1970, 1, 1), dt.date(9000, 12, 31)]


def decided(usage: Usage) -> None:
    """A day that was counted, went backwards, was decided, and was sealed once more."""
    usage.write({ACME: 5, key("acme", metric_type="calls"): 7})
    usage.aggregate()
    usage.write({ACME: 3})
    usage.aggregate()
    decide(usage.client, usage.conn, Ruling(Decision.ACCEPT, "anna", "a test, 100%"), "usage", key=raw(ACME))
    usage.aggregate(now=NOW + dt.timedelta(hours=1))


def said(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The lines of the command."""
    monkeypatch.setenv(POSTGRES_URL, url)
    assert main(["explain", *words]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("metric", [None, "queries"])
def test_it_tells_what_the_command_tells(
    usage: Usage,
    site: TestClient,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    metric: str | None,
) -> None:
    decided(usage)
    words = ["acme", str(YESTERDAY), *([metric] if metric else [])]
    lines = said(database_url, monkeypatch, capsys, *words)
    page = look(site, "explain", merchant="acme", date=YESTERDAY, metric=metric or "")
    assert page.status == 200
    state, audit = lines[-2:]
    assert state in page.text
    assert audit in page.text
    events = [line.split(": ", 1)[1] for line in lines if "UTC  " in line]
    assert len(events) > 5
    place = page.text.index("What happened, in this order")
    for event in events:
        place = page.text.index(event, place) + len(event)
    assert ("All metrics" in page.text) is bool(metric)
    assert "5 -> 3. accept: a test, 100%. By anna." in page.text


def test_one_metric_has_its_curve_and_its_correction(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme", TODAY): 5})
    usage.aggregate(TODAY)
    usage.write({key("acme", TODAY): 50})
    usage.aggregate(TODAY)
    page = look(site, "explain", merchant="acme", date=TODAY)
    assert "How queries grew" in page.text
    assert "polyline" in page.names


def test_of_several_metrics_each_is_one_click_away(usage: Usage, site: TestClient) -> None:
    decided(usage)
    page = look(site, "explain", merchant="acme", date=YESTERDAY)
    assert "polyline" not in page.names
    assert "all 2 10" in page.text
    one = Seen(site.get("/" + page.link_with("explain", metric="calls")))
    assert "How calls grew" in one.text
    assert "Counted 7 since" in one.text
    assert "accept: a test" not in one.text
    assert {"date": str(YESTERDAY)} in page.to("date")
    assert page.to("merchant")[0]["date"] == str(YESTERDAY)


def test_a_row_that_was_changed_after_it_was_sealed_is_told(usage: Usage, site: TestClient) -> None:
    usage.write({ACME: 5})
    usage.aggregate()
    assert "✓ as it was sealed" in look(site, "explain", merchant="acme", date=YESTERDAY).text
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 9")
    page = look(site, "explain", merchant="acme", date=YESTERDAY)
    assert "✗ not what was sealed" in page.text
    assert "acme had 5, and has 9" in page.text


def test_many_events_are_paged(usage: Usage, site: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explained, "PAGE", 3)
    usage.write({ACME: 5})
    runs = [f"run-{n:02}" for n in range(1, 8)]
    for run_id in runs:
        usage.aggregate(run_id=run_id)
    found, pages = "", 0
    page = look(site, "explain", merchant="acme", date=YESTERDAY, metric="queries")
    while True:
        pages += 1
        found += page.text
        link = next((each for each in page.links if "first=" in each), "")
        if not link:
            break
        page = Seen(site.get(f"/{link}"))
        assert page.status == 200
        assert "events stand on the pages before" in page.text
    assert pages == 3
    assert [found.count(f"Run {run_id} (") for run_id in runs] == [1] * len(runs)
    beyond = look(site, "explain", merchant="acme", date=YESTERDAY, first=1000)
    assert "Nothing is known to have happened after that." in beyond.text


@pytest.mark.parametrize("hostile", HOSTILE, ids=ascii)
def test_any_id_arrives_and_is_nothing_but_text(usage: Usage, site: TestClient, hostile: str) -> None:
    metric = hostile.replace(":", ";")[:60]
    counter = CounterKey(hostile, YESTERDAY, metric)
    usage.write({counter: 5})
    usage.aggregate()
    usage.write({counter: 3})
    usage.aggregate()
    ruling = Ruling(Decision.ACCEPT, "<i>anna</i>", f"because {hostile[:50]}")
    decide(usage.client, usage.conn, ruling, "usage", key=raw(counter))
    page = look(site, "explain", merchant=hostile, date=YESTERDAY, metric=metric)
    assert page.status == 200
    page.assert_harmless()
    assert "i" not in page.names
    assert " ".join(escape(hostile).split())[:30] in page.text
    assert "By <i>anna</i>." in page.text
    for name in ("merchant", "explain", "explain.csv"):
        assert {query["merchant"] for query in page.to(name)} == {hostile}
    back = Seen(site.get("/" + page.link_with("merchant")))
    assert back.status == 200
    assert {query["metric"] for query in back.to("explain")} == {metric}


REFUSED = [
    ({}, "merchant is missing; it takes a merchant's id."),
    ({"merchant": "acme"}, "date is missing; it takes a date as in 2026-11-20."),
    ({"merchant": "acme", "date": "20.11.2026"}, "date='20.11.2026' is not a date"),
    ({"merchant": "acme", "date": "2026-11-20", "first": "-1"}, "first='-1' is not possible"),
    ({"merchant": "acme", "date": "2026-11-20", "first": "x"}, "first='x' is not possible"),
    ({"merchant": "acme", "date": "2026-11-20", "metric": "a\0"}, "holds a NUL"),
]


@pytest.mark.parametrize(("query", "told"), REFUSED)
def test_what_cannot_be_asked_is_one_sentence(site: TestClient, query: dict[str, str], told: str) -> None:
    for name in ("explain", "explain.csv"):
        page = look(site, name, **query)
        assert page.status == 400
        assert told in page.text


@pytest.mark.parametrize("date", [YESTERDAY, *ENDS])
def test_what_nobody_knows_is_not_found(usage: Usage, site: TestClient, date: dt.date) -> None:
    usage.write({ACME: 5})
    usage.aggregate()
    for name in ("explain", "explain.csv"):
        page = look(site, name, merchant="\x1b[31mnobody", date=date)
        assert page.status == 404
        assert f"Nothing is stored of {shown(chr(27) + '[31mnobody')} on {date}." in page.text


@pytest.mark.parametrize("date", ENDS)
def test_the_first_and_the_last_day_there_are_can_be_explained(usage: Usage, site: TestClient, date: dt.date) -> None:
    usage.conn.execute("INSERT INTO merchant_usage VALUES ('acme', %s, 'queries', 5)", [date])
    assert look(site, "explain", merchant="acme", date=date).status == 200


def test_a_letter_without_a_row_is_explained(usage: Usage, site: TestClient) -> None:
    usage.write({ACME: "half"})
    usage.aggregate()
    page = look(site, "explain", merchant="acme", date=YESTERDAY)
    assert page.status == 200
    assert f"Nothing is stored of acme on {YESTERDAY}." in page.text
    assert "not_an_integer" in page.text
