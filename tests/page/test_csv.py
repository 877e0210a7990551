"""CSV: all that was asked for or a page that says why not; a spreadsheet takes nothing in it for a formula."""

from __future__ import annotations

import csv
import datetime as dt
import io
import re

import pytest
from fastapi.testclient import TestClient

from merchant_usage.page import csv_files, merchant_routes
from merchant_usage.page.csv_files import cell, file_name
from tests.hostile import HOSTILE
from tests.page.seen import look
from tests.page.test_merchant import months, store
from tests.support import TODAY, YESTERDAY, Usage, key

pytestmark = pytest.mark.usefixtures("at_noon")


def rows(site: TestClient, page: str, **query: object) -> list[list[str]]:
    """The rows of a file, its head first."""
    answer = site.get(f"/{page}", params={name: str(value) for name, value in query.items()})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert re.fullmatch(r'attachment; filename="[A-Za-z0-9_-]+\.csv"', answer.headers["Content-Disposition"])
    return [*csv.reader(io.StringIO(answer.text, newline=""))]


def test_all_days_and_metrics_are_in_it(usage: Usage, site: TestClient) -> None:
    store(usage.conn, "acme", months(days=400))
    store(usage.conn, "acme", months(7), "calls")
    head, *found = rows(site, "merchant.csv", merchant="acme", **{"from": TODAY - dt.timedelta(days=365)})
    assert head == ["merchant_id", "date", "metric_type", "metric_value", "carried", "sealed"]
    assert len(found) == 366 + 63
    assert found[:2] == [
        ["acme", str(TODAY), "calls", "7", "0", "false"],
        ["acme", str(TODAY), "queries", "100", "0", "false"],
    ]
    assert len(rows(site, "merchant.csv", merchant="acme", metric="calls")) == 1 + 35


def test_sealed_days_say_so(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate()
    _, row = rows(site, "merchant.csv", merchant="acme")
    assert row == ["acme", str(YESTERDAY), "queries", "5", "0", "true"]


def test_all_merchants_of_a_sealed_date_are_in_it(usage: Usage, site: TestClient) -> None:
    hostile = '=1+2,"x"'
    usage.write({key("b"): 5, key("a"): 7, key("a", metric_type="calls"): 1, key(hostile): 3})
    usage.aggregate()
    usage.write({key("b"): 6})
    usage.aggregate()
    assert rows(site, "date.csv", date=YESTERDAY) == [
        ["merchant_id", "date", "sealed_total", "seal_version"],
        [f"'{hostile}", str(YESTERDAY), "3", "2"],
        ["a", str(YESTERDAY), "8", "2"],
        ["b", str(YESTERDAY), "6", "2"],
    ]
    link = 'href="date.csv?date=' + str(YESTERDAY) + '"'
    assert link in site.get("/date", params={"date": str(YESTERDAY)}).text


def test_a_date_without_a_seal_has_no_file(usage: Usage, site: TestClient) -> None:
    usage.write({key("a", TODAY): 7})
    usage.aggregate(TODAY)
    answer = site.get("/date.csv", params={"date": str(TODAY)})
    assert (answer.status_code, "is not sealed" in answer.text) == (404, True)
    assert "date.csv" not in site.get("/date", params={"date": str(TODAY)}).text


def test_the_story_is_in_it(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate()
    head, *found = rows(site, "explain.csv", merchant="acme", date=YESTERDAY)
    assert head == ["happened_at", "kind", "metric_type", "by_whom", "value_before", "value_after", "told"]
    # The clock of the page stands still, and PostgreSQL's does not.
    (counted,) = [row for row in found if row[1] == "counted"]
    assert sorted(row[1] for row in found) == ["counted", "run", "seal"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", counted[0])
    assert counted[6] == f"Counted 5 since {YESTERDAY} 00:00 UTC."


@pytest.mark.parametrize(
    "hostile", [*HOSTILE, "=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "'=1", "\uff1d1"], ids=ascii
)
def test_any_id_is_kept_and_none_is_a_formula(usage: Usage, site: TestClient, hostile: str) -> None:
    metric = hostile.replace(":", ";")[:60]
    store(usage.conn, hostile, {YESTERDAY: 5}, metric)
    _, row = rows(site, "merchant.csv", merchant=hostile)
    assert [text.removeprefix("'") for text in row[:3]] == [
        hostile,
        str(YESTERDAY),
        metric,
    ]
    assert not row[0].startswith(tuple("=+-@\t\r\n\uff1d"))
    assert not row[2].startswith(tuple("=+-@\t\r\n\uff1d"))
    _, *story = rows(site, "explain.csv", merchant=hostile, date=YESTERDAY)
    assert {cell.removeprefix("'") for cell in (line[2] for line in story)} == {metric}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (-5, -5),
        ("-5", "'-5"),
        ("'x", "''x"),
        ("x=1", "x=1"),
        (None, None),
        (True, "true"),
        (dt.date(2026, 11, 20),) * 2,
    ],
)
def test_numbers_stay_numbers_and_texts_texts(value: object, written: object) -> None:
    assert cell(value) == written


@pytest.mark.parametrize("hostile", [*HOSTILE, "\u05d0", 'a";b', "..", "\x00", "x" * 1024], ids=ascii)
def test_a_file_is_named_by_what_any_system_takes(hostile: str) -> None:
    name = file_name(hostile, YESTERDAY, TODAY)
    assert re.fullmatch(r"usage(-[A-Za-z0-9_-]+)?-2026-11-23-2026-11-24\.csv", name)
    assert len(name) < 100
    assert "--" not in name


def test_what_would_be_cut_is_refused(usage: Usage, site: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merchant_routes, "MOST_ROWS", 3)
    monkeypatch.setattr(csv_files, "MOST_ROWS", 3)
    store(usage.conn, "acme", months(days=3))
    assert len(rows(site, "merchant.csv", merchant="acme")) == 4
    store(usage.conn, "acme", {TODAY: 1}, "calls")
    usage.write({key("busy"): 5})
    for _ in range(3):
        usage.aggregate()
    for page, query in (
        ("merchant.csv", {"merchant": "acme"}),
        ("explain.csv", {"merchant": "busy", "date": YESTERDAY}),
    ):
        refused = look(site, page, **query)
        assert refused.status == 400
        assert "These are more than 3 rows; choose fewer days, or one metric." in refused.text


def test_nothing_is_no_file(usage: Usage, site: TestClient) -> None:
    store(usage.conn, "acme", {TODAY - dt.timedelta(days=99): 1})
    for merchant in ("acme", "nobody"):
        page = look(site, "merchant.csv", merchant=merchant)
        assert page.status == 404
        assert f"Nothing is stored of {merchant} from " in page.text
