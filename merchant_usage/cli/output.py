"""How the command line speaks: answers on stdout (tables, or one JSON document), all else on stderr."""

from __future__ import annotations

import datetime as dt
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final

from merchant_usage.log import Level, send_to, with_fields
from merchant_usage.text import as_one_entry, printable

# Told (steps done, steps in all).
Progress = Callable[[int, int], None]

# A table in fewer columns turns to records; in a file or a pipe it gets as many as the log view shows.
NARROWEST: Final = 20
WITHOUT_TERMINAL: Final = 140


def say(text: str) -> None:
    """Answer a person. Whatever an id or a value holds, no control character reaches the terminal."""
    print(printable(text))


def say_json(document: dict[str, Any]) -> None:
    """Answer a program: one document, in ASCII."""
    print(json.dumps(document, default=_plain, indent=2))


def complain(text: str) -> None:
    """Say what is wrong, in the one form that all errors have."""
    print(f"error: {as_one_entry(text)}", file=sys.stderr)


def remark(text: str) -> None:
    """Say what is neither an answer nor an error."""
    print(printable(text), file=sys.stderr)


def width() -> int:
    """How many columns a table may take."""
    if not sys.stdout.isatty():
        return WITHOUT_TERMINAL
    return max(NARROWEST, shutil.get_terminal_size((WITHOUT_TERMINAL, 24)).columns)


def _plain(value: object) -> object:
    """What JSON has no form for, and the ledger and the dead letters hold."""
    if isinstance(value, dt.date):  # a datetime is a date too
        return value.isoformat()
    if isinstance(value, Decimal):  # the sum of a column of bigint: a whole number
        return int(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def log_to_stderr() -> None:
    """Let the engine's log lines go to stderr."""

    def write(_: str, level: Level, sentence: str, fields: Mapping[str, Any]) -> None:
        now = dt.datetime.now().astimezone()
        # Looks stderr up for each line: a progress bar puts itself in between.
        print(f"{now:%Y-%m-%d %H:%M:%S} [{level}] {as_one_entry(with_fields(sentence, fields))}", file=sys.stderr)

    send_to(write)
    # What a driver says of a connection that Ctrl-C cut is no line of ours; what matters of it is raised.
    for driver in ("psycopg", "redis"):
        logging.getLogger(driver).addHandler(logging.NullHandler())


@contextmanager
def progress(before: str, during: str, after: str) -> Iterator[Progress]:
    """A progress bar on stderr, if that is a terminal; else nothing.

    Args:
        before: what is done until the first step is, and it is known how many there are.
        during: what the steps are.
        after: what is done once all steps are.
    """
    if not sys.stderr.isatty():
        yield lambda _, __: None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(before, total=None)

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, description=after if done == total else during)

        yield update
