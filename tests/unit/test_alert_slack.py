"""How alerts read in Slack: within its limits, and nothing in them but text, whatever somebody wrote."""

from __future__ import annotations

import datetime as dt
import html
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from merchant_usage.alerts.alert import Alert, AlertKind, Discrepancy, Gap
from merchant_usage.alerts.register import Notification
from merchant_usage.alerts.slack_message import MAX_BLOCKS, MAX_HEADER, MAX_MERCHANTS_SHOWN, MAX_SECTION, render
from merchant_usage.text import shown

DAY = dt.date(2026, 11, 23)


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def message(**fields: Any) -> dict[str, Any]:
    given = {"kind": AlertKind.FAILED, "key": "run r", "title": "Usage run failed", "what": "Run r failed.", **fields}
    return render(Notification(Alert(**given)))


def objects(body: dict[str, Any]) -> list[dict[str, Any]]:
    """All text objects."""
    found = [block["text"] for block in body["blocks"] if "text" in block]
    return found + [element for block in body["blocks"] for element in block.get("elements", ())]


def read(body: dict[str, Any]) -> str:
    """What a person reads."""
    return html.unescape("\n".join(text["text"] for text in objects(body)))


def discrepancy(count: int, behind: int = 5) -> Discrepancy:
    return Discrepancy.of({f"m{n}": (100 + behind, 100) for n in range(count)}, count)


# What Slack, HTML or a terminal would make something of.
MARKUP = "<!channel> <!here|x> <@U1> <#C1> <https://evil.example|x> *b* _i_ ~s~ `c` ``` >q &lt;!channel&gt; &amp;"
PIECES = "& < > | :smile: @channel \x1b[31m \u202e \ud83d 😀"
TROUBLE = st.sampled_from([*MARKUP.split(" "), *PIECES.split(" "), "\n", "\0"])
TEXTS = st.lists(st.one_of(TROUBLE, st.text(max_size=20)), max_size=400).map("".join)


@given(TEXTS, TEXTS, TEXTS, st.integers(0, 100_000))
@example("<" * 5000, "&" * 5000, "😀" * 5000, 100_000)
@example("😀" * 100, "😀", "😀" * 2000, 0)
def test_whatever_it_holds_it_is_text_within_slacks_limits(what: str, merchant: str, error: str, left_out: int) -> None:
    gaps = tuple(Gap(merchant + str(n), 2**63 - 1, 0) for n in range(50))
    alert = Alert(
        AlertKind.FAILED,
        "k",
        what,
        what,
        (DAY,),
        Discrepancy(gaps, 100_000, 1_000_000, 10**20),
        error,
        what,
        error,
        ("Log", "https://airflow.example/" + "".join(c for c in error if not "\ud800" <= c <= "\udfff")),
    )
    body = render(Notification(alert, left_out))
    json.dumps(body)
    assert len(body["blocks"]) <= MAX_BLOCKS
    assert body["mrkdwn"] is False
    header, *others = body["blocks"]
    assert 1 <= units(header["text"]["text"]) <= MAX_HEADER
    for text in objects(body):
        assert 1 <= units(text["text"]) <= MAX_SECTION
        if text["type"] == "mrkdwn":
            assert re.fullmatch(r"<https://[!-;=?-{}~]*\|Log>", text["text"])
        else:
            assert text["type"] == "plain_text"
            assert not re.search(r"[<>]|&(?!(amp|lt|gt);)", text["text"])
    assert not re.search(r"[<>]|&(?!(amp|lt|gt);)", body["text"])
    assert others


@given(TEXTS.filter(lambda text: len(text) < 100))
def test_a_person_reads_exactly_what_was_written(merchant: str) -> None:
    from merchant_usage.alerts.slack_message import LONGEST_ID

    body = message(discrepancy=Discrepancy((Gap(merchant, 7, 5),), 1, 1, 2))
    assert f"{shown(merchant, LONGEST_ID)}: Redis 7, PostgreSQL 5, PostgreSQL is behind by 2\n" in read(body)


def test_many_merchants_are_cut_with_how_many_more() -> None:
    said = read(message(discrepancy=discrepancy(332)))
    assert said.count("PostgreSQL 100,") == MAX_MERCHANTS_SHOWN
    assert "\nand 312 more\n" in said
    assert "In all 332 counter(s) of 332 merchant(s): PostgreSQL is behind by 1,660." in said


def test_when_only_the_first_were_looked_at_it_does_not_pass_for_all() -> None:
    said = read(message(discrepancy=replace(discrepancy(1000), counters=100_000, at_least=True)))
    assert "\nand at least 980 more\n" in said
    assert "In all 100,000 counter(s) of at least 1,000 merchant(s): PostgreSQL is behind by at least 5,000." in said


def test_few_merchants_are_all_named_worst_first() -> None:
    said = read(message(discrepancy=Discrepancy.of({"a": (6, 5), "b": (9, 5), "c": (3, 5)}, 3)))
    lines = [line for line in said.splitlines() if "Redis" in line and "PostgreSQL" in line]
    assert lines == [
        "b: Redis 9, PostgreSQL 5, PostgreSQL is behind by 4",
        "c: Redis 3, PostgreSQL 5, Redis is lower by 2",
        "a: Redis 6, PostgreSQL 5, PostgreSQL is behind by 1",
    ]


def test_a_link_leads_where_it_should() -> None:
    body = message(link=("Log of scan_usage", "https://airflow.example/dags/d/runs/a%2Bb|c>?x=1&y=<2"))
    (link,) = [text["text"] for text in objects(body) if text["type"] == "mrkdwn"]
    assert link == "<https://airflow.example/dags/d/runs/a%2Bb%7Cc%3E?x=1&amp;y=%3C2|Log of scan_usage>"


@pytest.mark.parametrize("address", ["javascript:alert(1)", "", "https://a.example/" + "x" * 3000])
def test_what_is_no_address_is_no_link(address: str) -> None:
    assert {text["type"] for text in objects(message(link=("Log", address)))} == {"plain_text"}


def test_still_failing_says_how_often() -> None:
    alert = Alert(AlertKind.STILL_FAILING, "k", "Usage run failed", "what", (DAY,))
    body = render(Notification(alert, left_out=5, in_a_row=9))
    assert body["text"] == "Still failing, 9 runs in a row: 2026-11-23"
    assert "5 more of this kind were not told one by one" in read(body)


def test_what_is_not_known_is_left_out() -> None:
    assert len(message()["blocks"]) == 2
