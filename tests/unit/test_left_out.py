"""Tests that need a server which is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.servers.programs import Programs
from tests.left_out import LeftOut

pytest_plugins = "pytester"

TESTS = """
import pytest

@pytest.fixture
def rare():
    pass

@pytest.fixture
def on_rare(rare):
    pass

@pytest.fixture
def common():
    raise AssertionError("ran")

@pytest.fixture(params=["rare"])
def by_name(request):
    return request.getfixturevalue(request.param)

def test_rare(rare): pass
def test_by_name(by_name): pass
def test_on_rare(on_rare): pass
def test_common(common): pass
def test_plain(): pass
"""
NEEDED = {
    "rare": ("Rare DB 7", lambda: None),
    "unused": ("Unused DB", lambda: None),
    "common": ("Common DB", lambda: Programs(Path("/"), (), "")),
}
SENTENCE = "3 tests left out, not installed: Rare DB 7 (./run servers fetches what it can)"


def test_they_are_left_out_and_told_in_one_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("-q", plugins=[LeftOut(NEEDED, forbidden=False)])
    result.assert_outcomes(passed=1, errors=1, deselected=3)
    assert [line for line in result.outlines if "left out" in line] == [SENTENCE]


def test_nothing_is_told_where_none_was_chosen(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("-k", "plain", plugins=[LeftOut(NEEDED, forbidden=False)])
    result.assert_outcomes(passed=1, deselected=4)
    assert "left out" not in result.stdout.str()


def test_nothing_may_be_left_out(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess(plugins=[LeftOut(NEEDED, forbidden=True)])
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert SENTENCE in result.stderr.str()
