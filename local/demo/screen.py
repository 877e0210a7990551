"""What the demo says: short lines with the time, and on a terminal what moves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

Update = Callable[[str, int, int], None]


class Screen:
    """Speaks to a person, or to a log file."""

    def __init__(self, console: Console | None = None) -> None:
        # Where there is no terminal, nobody has said how wide a line may be.
        self._console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 140)
        self._start = time.monotonic()

    def say(self, text: str, style: str = "") -> None:
        """A line with the seconds since the start."""
        seconds = f"{time.monotonic() - self._start:5.1f} s  "
        self._console.print(Text.assemble((seconds, "dim"), (text, style)), soft_wrap=True)

    def show(self, thing: RenderableType) -> None:
        """A table, or anything else that rich can draw."""
        self._console.print(thing)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Tell what is waited for: a spinner on a terminal."""
        self.say(text)
        with self._console.status(Text(text)):
            yield

    @contextmanager
    def bars(self) -> Iterator[Update]:
        """Progress bars on a terminal. Call what this gives with a name, what is done, and how much there is."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("tasks"),
            TimeElapsedColumn(),
        )
        known = {}
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bars:

            def update(name: str, done: int, total: int) -> None:
                if name not in known:
                    known[name] = bars.add_task(name)
                bars.update(known[name], completed=done, total=total)

            yield update
