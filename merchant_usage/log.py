"""Log lines: a sentence for people, and fields beside it for machines. Where they go is decided outside.

The engine asks no more of a logging library than this. Importing structlog would take a tenth of a second, because
it brings rich along; Airflow 3.3 has it loaded, and gets lines as it expects them (see orchestration/compat.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Protocol

Level = Literal["info", "warning", "error"]
#: Takes the logger's name, the level, the sentence and the fields.
Sink = Callable[[str, Level, str, Mapping[str, Any]], None]


class Say(Protocol):
    """Takes lines."""

    def __call__(self, sentence: str, /, **fields: Any) -> None:
        """Take one."""


#: Finds what takes the lines of a logger's name and a level.
Find = Callable[[str, Level], Say]


def with_fields(sentence: str, fields: Mapping[str, Any]) -> str:
    """Both in one line: `Found 3 usage keys for 2026-11-23  keys=3 date='2026-11-23'`."""
    named = " ".join(f"{name}={value!r}" for name, value in fields.items())
    return f"{sentence}  {named}" if named else sentence


def to_logging(name: str, level: Level) -> Say:
    """The standard library, which knows no fields."""

    def say(sentence: str, /, **fields: Any) -> None:
        # Names the line of who says it, and not this one.
        getattr(logging.getLogger(name), level)("%s", with_fields(sentence, fields), stacklevel=2)

    return say


class Log:
    """What a module logs by.

    What takes a line is called by who says it, with nothing in between: a log may name the line of the code.
    """

    find: ClassVar[Find] = staticmethod(to_logging)

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def info(self) -> Say:
        """Say what was done."""
        return Log.find(self._name, "info")

    @property
    def warning(self) -> Say:
        """Say what somebody should look at."""
        return Log.find(self._name, "warning")

    @property
    def error(self) -> Say:
        """Say why nothing can go on."""
        return Log.find(self._name, "error")


def find_by(find: Find) -> None:
    """Let all lines from now on go to what is found so."""
    Log.find = staticmethod(find)  # a function, not a method


def send_to(sink: Sink) -> None:
    """Let all lines from now on go there."""

    def find(name: str, level: Level) -> Say:
        return lambda sentence, /, **fields: sink(name, level, sentence, fields)

    find_by(find)
