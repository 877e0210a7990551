"""The benchmark of the usage page asks every view and tells what it read. How fast it is, is not tested."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.page import CLIENTS, VIEWS, percentile, sheets
from tests.bench_command import bench


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The figures and the printed table of a small run."""
    file = tmp_path_factory.mktemp("bench") / "page.json"
    size = ("--merchants", "300", "--days", "12", "--requests", "12")
    finished = bench("--page", *size, "--json", file, "--markdown")
    assert finished.returncode == 0, finished.stderr
    return json.loads(file.read_text()), finished.stdout


def test_every_view_answers_each_time(small: tuple[dict[str, Any], str]) -> None:
    report, printed = small
    views = report["page"]["views"]
    assert list(views) == list(VIEWS)
    for view in views.values():
        assert {clients: len(taken) for clients, taken in view["milliseconds"].items()} == {
            str(clients): 12 for clients in CLIENTS
        }
        assert all(taken > 0 for each in view["milliseconds"].values() for taken in each)
    assert "300 merchants x 10 metrics x 12 days" in printed
    for name in VIEWS:
        assert f"| {name} " in printed


def test_what_a_view_reads_is_counted(small: tuple[dict[str, Any], str]) -> None:
    report, _ = small
    views = report["page"]["views"]
    # Ten metrics of twelve days.
    assert views["a merchant"]["fetched"] + views["a merchant"]["scanned"] >= 120


def test_a_report_can_be_shown_again(small: tuple[dict[str, Any], str], tmp_path: Path) -> None:
    report, printed = small
    file = tmp_path / "report.json"
    file.write_text(json.dumps(report))
    finished = bench("--read", file, "--markdown")
    assert (finished.returncode, finished.stdout) == (0, printed)


@pytest.mark.parametrize(
    ("milliseconds", "scanned", "last"),
    [
        pytest.param([100.0] * 95 + [900.0] * 5, 0, ("yes", "3", "no"), id="fast"),
        pytest.param([100.0] * 94 + [900.0] * 6, 0, ("NO", "3", "no"), id="slow for more than one in twenty"),
        pytest.param([100.0] * 100, 4000, ("yes", "3", "4,000 rows"), id="with a scan"),
    ],
)
def test_views_are_judged(milliseconds: list[float], scanned: float, last: tuple[str, ...]) -> None:
    view = {"milliseconds": {"4": milliseconds}, "scanned": scanned, "fetched": 3.0}
    (sheet,) = sheets({"description": "some data", "requests": 100, "views": {"overview": view}})
    ((*_, met, read, scans),) = sheet.rows
    assert (met, read, scans) == last


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2), (0.95, 4), (0.25, 1), (1, 4)])
def test_a_percentile_is_a_time_that_was_measured(share: float, expected: float) -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], share) == expected


@pytest.mark.parametrize(
    "arguments",
    [("--page", "--merchants", "1"), ("--page", "--days", "0"), ("--page", "--requests", "x")],
    ids=" ".join,
)
def test_arguments_that_cannot_be_used_are_refused(arguments: tuple[str, ...]) -> None:
    finished = bench(*arguments)
    assert finished.returncode == 2
    assert arguments[1] in finished.stderr
