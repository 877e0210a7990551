"""`merchant-usage history`: what it says to people, and to programs."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import sys
from typing import Any

import pytest

from merchant_usage import clock
from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL
from merchant_usage.steps.resolve import Decision, Ruling, decide
from tests.support import NOW, TODAY, YESTERDAY, Usage, key, raw

DAY = str(TODAY)


@pytest.fixture
def told(usage: Usage, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Usage:
    """A counter of today that grew and was corrected, and one of yesterday."""
    monkeypatch.setenv(POSTGRES_URL, database_url)
    monkeypatch.setattr(clock, "now", lambda: NOW)
    for number, value in enumerate((5, 105, 3)):
        usage.write({key("acme", TODAY): value, key("acme", YESTERDAY): 1000})
        usage.aggregate(YESTERDAY, TODAY)
        usage.conn.execute(
            "UPDATE merchant_usage SET updated_at = %s WHERE date = %s AND updated_at > now() - interval '1 min'",
            [dt.datetime(2026, 11, 24, 1 + number, 0, 20, tzinfo=dt.UTC), TODAY],
        )
    decide(usage.client, usage.conn, Ruling(Decision.ACCEPT, "a person"), "usage", key=raw(key("acme", TODAY)))
    usage.conn.execute("UPDATE merchant_usage SET updated_at = '2026-11-24 05:00:20+00' WHERE date = %s", [TODAY])
    return usage


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["history", *arguments]) == 0
    return capsys.readouterr().out


def test_from_reading_to_reading(told: Usage, capsys: pytest.CaptureFixture[str]) -> None:
    del told
    out = answer(capsys, "acme", "--date", DAY)
    assert "acme on 2026-11-24, from reading to reading (UTC)" in out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| 20")]
    assert rows == [
        [DAY, "queries", "00:00", "01:00", "5", "█▎"],
        [DAY, "queries", "01:00", "02:00", "100", "█" * 24],
        [DAY, "queries", "02:00", "05:00", "-102", "corrected"],
    ]


def test_bars_where_stdout_cannot_draw(
    told: Usage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    del told
    monkeypatch.setattr(type(sys.stdout), "encoding", "ascii")
    assert "#" * 24 in answer(capsys, "acme", "--date", DAY)


def rows_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    document = json.loads(answer(capsys, *arguments, "--json"))
    assert document["merchant_id"] == "acme"
    return list(document["rows"])


def test_for_programs(told: Usage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    del told
    monkeypatch.setenv("USAGE_TIMEZONE", "Europe/Berlin")
    rows = rows_of(capsys, "acme", "--date", DAY)
    assert [row["value"] for row in rows] == [5, 100, -102]
    assert [row["correction"] for row in rows] == [False, False, True]
    assert rows[1] | {} == {
        "date": DAY,
        "metric_type": "queries",
        "from_at": "2026-11-24T02:00:20+01:00",
        "to_at": "2026-11-24T03:00:20+01:00",
        "value": 100,
        "correction": False,
    }
    read = list(csv.DictReader(io.StringIO(answer(capsys, "acme", "--date", DAY, "--csv"))))
    assert read == [
        {name: str(value).lower() if value in (True, False) else str(value) for name, value in row.items()}
        for row in rows
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--from", str(YESTERDAY), "--to", DAY],
            [
                {"day": str(YESTERDAY), "value": 1000, "days": 1, "days_sealed": 1},
                {"day": DAY, "value": 3, "days": 1, "days_sealed": 0},
            ],
        ),
        (["--date", DAY, "--by", "week"], [{"week": "2026-11-23", "value": 1003, "days": 7, "days_sealed": 1}]),
        (["--date", DAY, "--by", "month"], [{"month": "2026-11-01", "value": 1003, "days": 30, "days_sealed": 1}]),
    ],
    ids=["days", "week", "month"],
)
def test_by_windows(
    told: Usage, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: list[dict[str, Any]]
) -> None:
    del told
    rows = rows_of(capsys, "acme", *arguments)
    assert rows == [{**row, "metric_type": "queries", "closed": row["days"] == row["days_sealed"]} for row in expected]
    assert str(expected[0]["value"])[-3:] in answer(capsys, "acme", *arguments)
    (first, *_) = csv.DictReader(io.StringIO(answer(capsys, "acme", *arguments, "--csv")))
    assert first["value"] == str(expected[0]["value"])


def test_offsets_where_clocks_are_changed(
    usage: Usage, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(POSTGRES_URL, database_url)
    monkeypatch.setenv("USAGE_TIMEZONE", "Europe/Berlin")
    monkeypatch.setattr(clock, "now", lambda: NOW)
    date = dt.date(2026, 10, 25)
    usage.conn.execute(
        "INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value, updated_at)"
        " VALUES ('acme', %s, 'queries', 30, '2026-10-25 01:30+00');",
        [date],
    )
    usage.conn.execute(
        "INSERT INTO usage_hourly_history (merchant_id, date, metric_type, held_since, metric_value, correction)"
        " VALUES ('acme', %s, 'queries', '2026-10-25 00:30+00', 10, false)",
        [date],
    )
    out = answer(capsys, "acme", "--date", str(date))
    assert "02:30+0200" in out
    assert "02:30+0100" in out


def test_nothing_is_stored(told: Usage, capsys: pytest.CaptureFixture[str]) -> None:
    del told
    assert main(["history", "nobody", "--date", DAY]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "Nothing is stored of nobody on 2026-11-24.\n"


@pytest.mark.parametrize("arguments", [["", "--date", DAY], ["acme", "--json", "--csv"], ["acme", "--by", "year"], []])
def test_what_cannot_be_asked(told: Usage, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    del told
    assert main(["history", *arguments]) == 2
    assert "error: " in capsys.readouterr().err
