"""What others wrote reaches a terminal or a log only with its control characters spelt out."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from merchant_usage.tables import render
from merchant_usage.text import Place, as_one_entry, escape, printable, safe
from tests.hostile import HOSTILE

each_hostile = pytest.mark.parametrize("text", HOSTILE)
#: As the UI reads notes: GitHub's Markdown, whose bare addresses are links.
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
# What GitHub takes for a link where no brackets are (GFM 6.9).
BARE_LINKS = ("http://", "https://", "ftp://", "www.")


class Seen(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(document)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_comment(self, data: str) -> None:
        raise AssertionError(data)

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_nothing_but_text(text: str) -> None:
    line = safe(text, Place.LINE)
    assert line.isprintable()

    note = safe(text, Place.NOTE)
    seen = Seen(MARKDOWN.render(f"Failed: {note}"))
    assert set(seen.tags) <= {"p", "code"}
    assert not any(link in note.lower() for link in BARE_LINKS)
    if "code" not in seen.tags:  # where backslashes stay
        assert " ".join(seen.text.split()) == " ".join(f"Failed: {line}".split())

    slack = safe(text, Place.SLACK)
    assert not set(slack) & set("<>")
    assert slack.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == line

    quoted = safe(text, Place.HTML)
    seen = Seen(f"<p title=\"{quoted}\" lang='{quoted}'>{quoted}</p>")
    assert seen.tags == ["p"]
    assert seen.attributes == [("title", line), ("lang", line)]
    assert seen.text == line


@each_hostile
def test_a_hostile_text_is_nothing_but_text_anywhere(text: str) -> None:
    assert_nothing_but_text(text)


@given(st.text() | st.lists(st.sampled_from("\\[]()<>&!*_~|@:/.#`wW \n=-\"'"), max_size=12).map("".join))
def test_nor_is_any_other(text: str) -> None:
    assert_nothing_but_text(text)


@each_hostile
def test_none_begins_an_entry_of_its_own(text: str) -> None:
    entry = as_one_entry(f"{text} failed:\n{text}")
    assert all(line.startswith("  ") for line in entry.split("\n")[1:])
    assert all(line.isprintable() for line in entry.split("\n"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("acme", "acme"),
        ("émoji 🎉 %*", "émoji 🎉 %*"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\r\nb", r"a\r\nb"),
        ("del \x7f, csi \x9b, turned round \u202e", r"del \x7f, csi \x9b, turned round \u202e"),
        ("half a pair \udc80", r"half a pair \udc80"),
    ],
)
def test_control_characters_are_spelt_out(text: str, shown: str) -> None:
    assert escape(text) == shown


def test_lines_of_a_text_stay_lines() -> None:
    assert printable("one\x07\ntwo\r\n") == "one\\x07\ntwo\\r\n"


def test_a_table_spells_them_out() -> None:
    table = render("Title", ("run",), [("manual\x1b[2J\nforged",)])
    assert r"manual\x1b[2J\nforged" in table
    assert "\x1b" not in table
