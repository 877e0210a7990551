"""Turns view models into HTML: one environment, in which every text is escaped."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from merchant_usage.page.marks import mark
from merchant_usage.text import escape, shown

HERE: Final = Path(__file__).parent


def render(template: str, **model: Any) -> str:
    """The HTML of a template, from its view model."""
    return _environment().get_template(template).render(**model)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, signed=signed, moment=moment, second=second, local=local)
    environment.filters.update(text=text, visible=escape, short=shown)
    # A plain text, which is escaped as any other.
    environment.filters["json"] = json.dumps
    environment.globals.update(address=address, mark=mark)
    return environment


def address(page: str, **query: Any) -> str:
    """A relative address with its query: whatever an id holds, it never becomes a part of the path."""
    given = {name: str(value) for name, value in query.items() if value is not None and value != ""}
    return f"{page}?{urlencode(given)}" if given else page


def number(value: int | Decimal | None) -> str:
    """With commas; a dash where there is none."""
    return "-" if value is None else f"{int(value):,}"


def signed(value: int | Decimal) -> str:
    """The same with its sign: what is more, or less."""
    return f"{int(value):+,}" if value else "0"


def text(raw: bytes) -> str:
    """A Redis key as a text, whatever bytes it holds."""
    return bytes(raw).decode(errors="backslashreplace")


def second(value: dt.datetime) -> str:
    """To the second, in UTC, where it stands above that it is."""
    return f"{value.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"


def local(value: dt.datetime, timezone: str) -> str:
    """To the minute as the clocks of a place show it; with the offset, because an hour may come twice."""
    moment = value.astimezone(ZoneInfo(timezone))
    return f"{moment:%Y-%m-%d %H:%M}" if timezone == "UTC" else f"{moment:%Y-%m-%d %H:%M %z}"


def moment(value: dt.datetime | None) -> str:
    """To the minute, in UTC."""
    return "never" if value is None else f"{value.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
