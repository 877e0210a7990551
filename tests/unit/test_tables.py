"""A table keeps numbers, dates and words whole, however narrow it has to be."""

from __future__ import annotations

import datetime as dt

import pytest
from rich.cells import cell_len

from merchant_usage.tables import render

HEADINGS = ("date", "verdict", "last verified", "merchants", "Redis", "PostgreSQL", "run")
ROWS = [
    (
        dt.date(2026, 11, 23),
        "verified",
        "2026-11-24 02:10 UTC",
        "all",
        599_529,
        599_529,
        "scheduled__2026-11-24T02:00:00",
    ),
    (dt.date(2026, 11, 24), "source_expired", "never", "only 2", 1_754_188_001, -1, "manual__" + "émoji 🎉" * 20),
]
WHOLE = ["2026-11-23", "2026-11-24", "source_expired", "2026-11-24 02:10 UTC", "599,529", "1,754,188,001", "only 2"]


@pytest.mark.parametrize("width", range(10, 200, 5))
def test_nothing_is_broken_at_any_width(width: int) -> None:
    told = render("Runs", HEADINGS, ROWS, width)
    for word in (*WHOLE, *(word for heading in HEADINGS for word in heading.split())):
        assert word in told, told
    if width >= 40:
        assert max(map(cell_len, told.splitlines())) <= width, told


def test_what_fits_is_a_table_and_a_long_id_is_cut_in_its_middle() -> None:
    told = render("Runs", HEADINGS, ROWS, 120).splitlines()
    assert told[2].startswith("| date       | verdict")
    assert "…" in told[-2]
    assert told[-2].rstrip("| ").endswith("🎉"), "ids differ at their ends"


def test_a_key_is_the_last_to_be_cut() -> None:
    """Whose usage it is tells a person more than the rest."""
    keys = ["usage:acme:2099-01-01:queries", "usage:b:2026-02-30:queries"]
    told = render("Dead letters", ("key", "detail"), [(key, "what it holds " * 9) for key in keys], 80)
    assert max(map(cell_len, told.splitlines())) <= 80
    for key in keys:
        assert f"| {key:<{len(keys[0])}} | what it" in told


def test_what_does_not_fit_is_a_record_after_the_other() -> None:
    told = render("Runs", HEADINGS[:3], [row[:3] for row in ROWS], 40).splitlines()
    assert told == [
        "Runs",
        "",
        "date:          2026-11-23",
        "verdict:       verified",
        "last verified: 2026-11-24 02:10 UTC",
        "",
        "date:          2026-11-24",
        "verdict:       source_expired",
        "last verified: never",
    ]
