"""Tests whose servers this machine lacks are left out, and one line at the end says so; with --all-servers none is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import pytest

from local.browser import find_chromium
from local.servers.programs import find_pgbouncer, find_postgres, find_promtool, find_sentinel

#: The fixtures that need more than the wheels, and what that is.
NEEDED: Final[dict[str, tuple[str, Callable[[], object | None]]]] = {
    "postgres15": ("PostgreSQL 15", lambda: find_postgres(15)),
    "pgbouncer": ("PgBouncer", find_pgbouncer),
    "sentinel": ("Redis Sentinel", find_sentinel),
    "promtool": ("promtool", find_promtool),
    "chromium": ("Chromium", find_chromium),
}


def _fixtures(item: pytest.Item) -> Iterator[str]:
    """The fixtures of a test, and those that its parameters name."""
    yield from getattr(item, "fixturenames", ())
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        yield from (value for value in item.callspec.params.values() if isinstance(value, str))


class LeftOut:
    """The hooks of pytest that leave tests out and tell of it."""

    def __init__(self, needed: Mapping[str, tuple[str, Callable[[], object | None]]], forbidden: bool) -> None:
        """Look for what is needed; if leaving out is forbidden, a test that lacks something ends the session."""
        self._forbidden = forbidden
        self._lacking = {fixture: name for fixture, (name, find) in needed.items() if find() is None}
        self.sentence = ""

    # Last, so that only those count which would have run.
    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Take the tests out."""
        chosen: list[pytest.Item] = []
        left_out: list[pytest.Item] = []
        lacking: set[str] = set()
        for item in items:
            lacks = self._lacking.keys() & set(_fixtures(item))
            lacking |= lacks
            (left_out if lacks else chosen).append(item)
        if not left_out:
            return
        names = ", ".join(name for fixture, name in self._lacking.items() if fixture in lacking)
        self.sentence = f"{len(left_out)} tests left out, not installed: {names} (./run servers fetches what it can)"
        if self._forbidden:
            raise pytest.UsageError(self.sentence)
        items[:] = chosen
        config.hook.pytest_deselected(items=left_out)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Tell what was left out, if anything."""
        if self.sentence:
            terminalreporter.write_line(self.sentence, yellow=True)
