"""Log lines: a sentence for people, and fields beside it for machines. Where they go is decided outside.

The engine asks no more of a logging library than this. Importing structlog would take a tenth of a second, because
it brings rich along; Airflow 3.3 has it loaded, and gets lines as it expects them (include.orchestration.compat).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

Level = Literal["info", "warning"]
#: Takes the logger's name, the level, the sentence and the fields.
Sink = Callable[[str, Level, str, Mapping[str, Any]], None]


def with_fields(sentence: str, fields: Mapping[str, Any]) -> str:
    """Both in one line: `Found 3 usage keys for 2026-11-23  keys=3 date='2026-11-23'`."""
    told = " ".join(f"{name}={value!r}" for name, value in fields.items())
    return f"{sentence}  {told}" if told else sentence


def to_logging(name: str, level: Level, sentence: str, fields: Mapping[str, Any]) -> None:
    """Hand a line to the standard library, which knows no fields."""
    getattr(logging.getLogger(name), level)("%s", with_fields(sentence, fields))


class Log:
    """What a module logs by."""

    sink: ClassVar[Sink] = staticmethod(to_logging)

    def __init__(self, name: str) -> None:
        self._name = name

    def info(self, sentence: str, /, **fields: Any) -> None:
        """Say what was done."""
        Log.sink(self._name, "info", sentence, fields)

    def warning(self, sentence: str, /, **fields: Any) -> None:
        """Say what somebody should look at."""
        Log.sink(self._name, "warning", sentence, fields)


def send_to(sink: Sink) -> None:
    """Let all lines from now on go there."""
    Log.sink = staticmethod(sink)  # a function, not a method
