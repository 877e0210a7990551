"""What others wrote reaches a terminal or a log only with its control characters spelt out."""

from __future__ import annotations

import pytest

from merchant_usage.tables import render
from merchant_usage.text import escape, printable


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
