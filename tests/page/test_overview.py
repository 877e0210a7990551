"""The overview of the usage page, on real servers: what is wrong comes first, and is reached in a click."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from fastapi.testclient import TestClient

from merchant_usage.alerts.seals import gather_seals
from merchant_usage.page import overview
from merchant_usage.page.days import usual
from merchant_usage.page.schedule import next_run
from merchant_usage.steps.audit import audit
from tests.hostile import HOSTILE
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, settings

WEEK = dt.timedelta(weeks=1)


def texts(html: str) -> list[str]:
    """The notices, as people read them."""
    found = re.findall(r'<li class="notice (\w+)">(.*?)</li>', html, re.DOTALL)
    return [f"{kind}: " + " ".join(re.sub("<[^>]+>", " ", text).split()) for kind, text in found]


def mark_of(html: str, date: dt.date) -> tuple[str, str]:
    """The classes and the words of a date in the calendar."""
    found = re.search(rf'<a class="day ([^"]*)" href="date\?date={date}" title="{date}: ([^"]*)"', html)
    assert found, html
    return found[1], found[2]


def as_of(usage: Usage, date: dt.date, total: int) -> None:
    """A run that verified a date, once it was over, as it would have been then."""
    usage.client.flushall()
    usage.write({key("acme", date): total})
    usage.aggregate(date, now=dt.datetime.combine(date + dt.timedelta(days=1), dt.time(6), dt.UTC))


def began(usage: Usage, days: int) -> None:
    """The first run of all was so many days ago: what was before is nobody's debt."""
    usage.aggregate(TODAY - dt.timedelta(days=days), now=NOW - dt.timedelta(days=days))


def test_an_empty_ledger_says_so(site: TestClient) -> None:
    html = site.get("/").text
    assert texts(html) == ["none: No run has aggregated anything yet."]
    assert "Nothing" not in html


def test_all_is_well_is_said_plainly(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 5, key("acme", TODAY): 2})
    usage.aggregate(YESTERDAY, TODAY)
    html = site.get("/").text
    assert texts(html) == ["good: All is well: every date is proven that should be, and nothing waits for anybody."]
    assert mark_of(html, YESTERDAY) == ("good", "verified, sealed")
    assert mark_of(html, TODAY) == ("good today", "verified")
    assert "Next run begins" in html


def test_a_counter_that_went_backwards_is_told_first_and_by_its_cause(usage: Usage, site: TestClient) -> None:
    began(usage, 1)
    usage.write({key("acme"): 5, key("bob"): 3})
    usage.aggregate()
    usage.write({key("acme"): 2})
    usage.aggregate()
    html = site.get("/").text
    assert texts(html)[0] == f"bad: Counters went backwards and wait for a decision: {YESTERDAY}"
    assert mark_of(html, YESTERDAY) == ("bad stale", "mismatch, owed")
    causes = html[html.index('<table id="causes">') :]
    assert f'<a href="date?date={YESTERDAY}#waiting">' in causes[: causes.index("</table>")]


def test_what_is_owed_is_striped_and_told(usage: Usage, site: TestClient) -> None:
    usage.aggregate(TODAY - dt.timedelta(days=3), now=NOW - dt.timedelta(days=2))
    html = site.get("/").text
    # There was no run for yesterday; three days ago there was nothing to prove.
    classes, words = mark_of(html, YESTERDAY)
    assert classes == "none stale"
    assert words == "no run, owed"
    assert mark_of(html, TODAY - dt.timedelta(days=3)) == ("none", "empty")
    assert any(text.startswith("bad: Over and settled, and not proven since:") for text in texts(html))


def test_usage_about_to_expire_is_told_in_time(usage: Usage, site: TestClient) -> None:
    old = TODAY - dt.timedelta(days=6)
    usage.write({key("acme", old): 5})
    began(usage, 6)
    html = site.get("/").text
    (told,) = (text for text in texts(html) if "begins to expire" in text)
    assert told.startswith("bad: In 11h 30m usage begins to expire in Redis that is not proven to be stored: ")
    assert told.endswith(str(old))


def test_a_run_that_never_ended_is_told(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 5})
    usage.store_only(now=NOW - dt.timedelta(hours=3))
    said = texts(site.get("/").text)
    assert f"bad: A run began 3h ago and has come to no end; if nothing works on it, it was killed: {YESTERDAY}" in said


def test_a_live_date_that_nobody_proves_is_striped(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme", TODAY): 5})
    usage.aggregate(TODAY, now=NOW - dt.timedelta(hours=3))
    assert mark_of(site.get("/").text, TODAY) == ("good stale today", "verified, not proven lately")


def test_a_date_whose_end_nobody_read_waits(usage: Usage, site: TestClient) -> None:
    usage.conn.execute(
        "INSERT INTO usage_run (run_id, usage_date, run_type, settled, started_at, finished_at, verdict)"
        " VALUES ('r', %s, 'manual', true, %s, %s, 'incomplete')",
        [YESTERDAY, NOW, NOW],
    )
    html = site.get("/").text
    assert mark_of(html, YESTERDAY) == ("wait", "incomplete")
    assert f"wait: Nobody read the end of it while its keys lived; it waits for a decision: {YESTERDAY}" in texts(html)


def test_runs_of_some_merchants_say_nothing_of_a_date(usage: Usage, site: TestClient) -> None:
    began(usage, 2)
    usage.write({key("acme"): 5, key("bob"): 6})
    usage.aggregate(merchants=("acme",))
    assert mark_of(site.get("/").text, YESTERDAY) == ("wait stale", "some merchants only, owed")


def test_a_failed_run_takes_nothing_away_from_a_sealed_date(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate()
    failed = (
        "INSERT INTO usage_run (run_id, usage_date, run_type, settled, started_at, finished_at, error)"
        " VALUES (%s, %s, 'manual', true, %s, %s, 'Redis does not answer')"
    )
    later = NOW + dt.timedelta(minutes=1)
    for day in (YESTERDAY, TODAY):
        usage.conn.execute(failed, ["late", day, later, later])
    html = site.get("/").text
    assert mark_of(html, YESTERDAY) == ("good", "verified, sealed")
    assert mark_of(html, TODAY)[1].startswith("failed")
    assert f"bad: The newest run failed: {TODAY}" in texts(html)


def test_a_spike_is_marked_against_the_same_weekday_before(usage: Usage, site: TestClient) -> None:
    for weeks, total in ((3, 100), (2, 120), (1, 110), (0, 200)):
        as_of(usage, YESTERDAY - weeks * WEEK, total)
    html = site.get("/").text
    assert mark_of(html, YESTERDAY) == ("good", "verified, sealed, unusually high")
    assert f"wait: Much more was used than on the same weekday of the weeks before: {YESTERDAY}" in texts(html)


def test_what_grows_steadily_is_not_unusual(usage: Usage, site: TestClient) -> None:
    for weeks, total in ((3, 100), (2, 120), (1, 150), (0, 185)):
        as_of(usage, YESTERDAY - weeks * WEEK, total)
    assert mark_of(site.get("/").text, YESTERDAY) == ("good", "verified, sealed")
    assert usual([5]) is None


@pytest.mark.parametrize("merchant_id", HOSTILE)
def test_dead_letters_are_counted_and_shown_whatever_their_keys_hold(
    usage: Usage, site: TestClient, merchant_id: str
) -> None:
    usage.write({key(merchant_id): "no number"})
    usage.aggregate()
    html = site.get("/").text
    assert "wait: 1 key cannot be counted: dead letters. Which they are" in texts(html)
    assert '<a href="letters?reason=not_an_integer">' in html
    shown = site.get("/letters").text
    assert "not_an_integer" in shown
    for bad in ("<script>alert", "<img src=x", "\x1b", "\u202e", 'style="background'):
        assert bad not in shown


def test_dead_letters_come_a_page_at_a_time(usage: Usage, site: TestClient) -> None:
    usage.write({key(f"m{n:03}"): "no number" for n in range(120)})
    usage.client.set("usage:oops", "1")
    usage.aggregate()
    seen: list[str] = []
    place: str | None = "letters?reason=not_an_integer"
    pages = 0
    while place:
        html = site.get(f"/{place}").text
        seen += re.findall(r"usage:(m\d{3}):", html.replace("title=", ""))
        found = re.search(r'<a href="(letters\?[^"]*)" rel="next"', html)
        place, pages = (found[1].replace("&amp;", "&") if found else None), pages + 1
    assert pages == 3
    assert sorted(seen) == [f"m{n:03}" for n in range(120)]
    assert "usage:oops" in site.get("/letters?reason=malformed_key").text


@pytest.mark.parametrize(
    "place",
    [
        "letters?reason=none",
        "letters?after=-1",
        "?weeks=54",
        "?weeks=x",
        "?until=2026-13-01",
        "letters?after=9" + "9" * 30,
    ],
)
def test_what_cannot_be_asked_is_a_sentence(site: TestClient, place: str) -> None:
    answer = site.get(f"/{place}")
    assert answer.status_code == 400
    assert "it takes" in answer.text


def test_earlier_weeks_are_reached_by_links(usage: Usage, site: TestClient) -> None:
    old = TODAY - 20 * WEEK
    as_of(usage, old, 5)
    html = site.get("/").text
    assert str(old) not in html
    earlier = re.search(r'<a href="(\./\?until=[^"]*)">Earlier', html)
    assert earlier
    assert mark_of(site.get(earlier[1].replace("./", "/")).text, old) == ("good", "verified, sealed")
    assert mark_of(site.get("/?weeks=53").text, old) == ("good", "verified, sealed")


def test_what_the_audit_found_stays_told_until_it_is_put_right(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate(YESTERDAY, TODAY)
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 6")
    gather_seals(usage.conn, audit(usage.conn, YESTERDAY, YESTERDAY), "r", NOW)
    html = site.get("/").text
    assert texts(html) == [f"bad: What is stored is not what was sealed, says the daily audit: {YESTERDAY}"]
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 5")
    # Alerts of the audit end a day after they were told, at the earliest.
    gather_seals(usage.conn, audit(usage.conn, YESTERDAY, YESTERDAY), "r", NOW + dt.timedelta(days=1))
    assert "says the daily audit" not in site.get("/").text


def test_a_broken_chain_of_seals_is_told(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate(YESTERDAY, TODAY)
    usage.conn.execute("ALTER TABLE usage_seal DISABLE TRIGGER append_only")
    usage.conn.execute("UPDATE usage_seal SET total = 4")
    gather_seals(usage.conn, audit(usage.conn, YESTERDAY, YESTERDAY), "r", NOW)
    assert any("The chain of seals is broken" in text for text in texts(site.get("/").text))


def test_a_flood_of_regressions_is_bounded(usage: Usage, site: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "MOST_LETTERS", 10)
    monkeypatch.setattr(overview, "MOST_SORTED", 5)
    counters = {key(f"m{n}"): 5 for n in range(12)}
    usage.write(counters)
    usage.aggregate()
    usage.write(dict.fromkeys(counters, 1))
    usage.aggregate()
    html = site.get("/").text
    assert "at least 10" in html
    assert "too many to be sorted by cause here" in html


@pytest.mark.parametrize(
    ("now", "changes", "expected"),
    [
        ("2026-11-24T12:30+00:00", {}, "2026-11-24T13:00+00:00"),
        ("2026-11-24T13:00+00:00", {}, "2026-11-24T14:00+00:00"),
        ("2026-11-24T12:31+00:00", {"interval_ms": 900_000}, "2026-11-24T12:45+00:00"),
        ("2026-11-24T12:31+00:00", {"interval_ms": 6 * 3_600_000}, "2026-11-24T18:00+00:00"),
        ("2026-11-24T23:31+00:00", {"interval_ms": 86_400_000}, "2026-11-25T00:00+00:00"),
        ("2026-11-24T12:31+00:00", {"interval_ms": 7 * 60_000}, "2026-11-24T12:33+00:00"),
        ("2026-11-24T12:31+00:00", {"enabled": False}, None),
        ("2026-10-24T12:31+00:00", {}, None),
    ],
)
def test_the_next_run_follows_the_schedule(now: str, changes: dict[str, object], expected: str | None) -> None:
    found = next_run(dt.datetime.fromisoformat(now), settings(**changes))
    assert found == (expected and dt.datetime.fromisoformat(expected))
