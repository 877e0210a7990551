"""Rows as a CSV file, which a spreadsheet takes for nothing but text and numbers."""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final, TypeAlias

from fastapi.responses import StreamingResponse

from merchant_usage.errors import SettingsError
from merchant_usage.model.seal import format_moment
from merchant_usage.page.answers import NotThere

#: Rows of a file at most. A file that was cut would be a wrong number: one that would be longer is refused.
MOST_ROWS: Final = 100_000
#: Rows that are read at a time; bytes that are sent at a time, and that are in memory.
AT_ONCE: Final = 1_000
IN_MEMORY: Final = 1 << 20
#: What begins a formula in a spreadsheet, signs of full width too; and what stands before a text to keep it from that.
#: A text that begins with that itself gets another, so that whoever takes one away always has the text as it was.
_FORMULA: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20'")
_GUARD: Final = "'"
_LONGEST_NAME: Final = 60
Row: TypeAlias = Sequence[object]


def answer(name: str, columns: Sequence[str], rows: Iterable[Row]) -> StreamingResponse:
    """A file to be saved.

    All rows are read before the first is sent, into a file of our own: what goes wrong is told by a page, and whoever
    takes long to load it holds no connection.
    """
    file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115, it is closed once it is sent
    try:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text)
        writer.writerow(columns)
        writer.writerows([cell(value) for value in row] for row in rows)
        text.detach()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(_sent(file), media_type="text/csv; charset=utf-8", headers=headers)


def _sent(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while part := file.read(IN_MEMORY):
            yield part


def require_some(number: int, of_none: str) -> None:
    """Refuse a file that would be empty, or be cut.

    Args:
        of_none: what is said where there is nothing.

    Raises:
        NotThere: there are no rows.
        SettingsError: there are too many.
    """
    if not number:
        raise NotThere(of_none)
    if number > MOST_ROWS:
        raise SettingsError(f"These are more than {MOST_ROWS:,} rows; choose fewer days, or one metric.")


def file_name(*parts: object) -> str:
    """A name that any system takes, whatever an id holds."""
    plain = (re.sub(r"[^A-Za-z0-9_]+", "-", str(part))[:_LONGEST_NAME].strip("-") for part in parts)
    return "-".join(part for part in ("usage", *plain) if part) + ".csv"


def cell(value: object) -> Any:
    """A value as a spreadsheet shows it: numbers, true and false, moments in UTC, and text that is no formula."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dt.datetime):
        return format_moment(value)
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"{_GUARD}{value}"
    return value
