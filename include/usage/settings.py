"""All settings, names and limits: read from the environment once, checked once, with one clear error."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from include.usage.errors import SettingsError

DAG_ID: Final = "usage_aggregation"

# core.max_map_length's default: the scheduler refuses to expand a task over more items.
MAX_MAP_LENGTH: Final = 1024


class OnRegression(StrEnum):
    """What to do when a counter went backwards."""

    KEEP = "keep"
    CARRY = "carry"


def _start(value: Any) -> Any:
    return dt.datetime.fromisoformat(value) if isinstance(value, str) else value


def _zone(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return ZoneInfo(value)
    except (KeyError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError; a folder's name an OSError
        raise ValueError("no such time zone") from error


def _digits(value: Any) -> Any:
    """Plain digits only: pydantic alone would take `1_000` and `3.0`."""
    if isinstance(value, str) and not re.fullmatch("[0-9]+", value):
        raise ValueError("not a whole number")
    return value


def _true_or_false(value: Any) -> Any:
    """`true` and `false` only: pydantic alone would take `y`, `off`, `1` and more."""
    if isinstance(value, str) and value.lower() not in {"true", "false"}:
        raise ValueError("neither true nor false")
    return value


Whole = Annotated[int, BeforeValidator(_digits)]
Flag = Annotated[bool, BeforeValidator(_true_or_false)]
Start = Annotated[dt.datetime, BeforeValidator(_start)]
Zone = Annotated[ZoneInfo, BeforeValidator(_zone)]


class Settings(BaseModel):
    """What the environment says, checked. The alias is the variable; the description is what it takes."""

    model_config = ConfigDict(
        frozen=True,
        arbitrary_types_allowed=True,
        str_strip_whitespace=True,
        populate_by_name=True,
        validate_default=True,
    )

    interval_ms: Whole = Field(
        default=3_600_000,
        alias="USAGE_AGGREGATION_INTERVAL",
        ge=60_000,
        le=86_400_000,
        multiple_of=60_000,
        description="milliseconds between runs: whole minutes, 60000 to 86400000",
    )
    enabled: Flag = Field(
        default=True,
        alias="ENABLE_USAGE_AGGREGATION",
        description="true, or false for no schedule (manual runs and backfills still work)",
    )
    start: Start = Field(
        default=dt.datetime.fromisoformat("2026-11-01"),  # naive: a day of USAGE_TIMEZONE, see start_date
        alias="USAGE_START_DATE",
        description="the go-live day YYYY-MM-DD (a time may follow): catch-up starts there, so it never moves",
    )
    key_prefix: str = Field(
        default="usage",
        alias="USAGE_KEY_PREFIX",
        min_length=1,
        max_length=256,
        description="what usage keys start with, before the first colon: 1 to 256 characters",
    )
    settle_hours: Whole = Field(
        default=2,
        alias="USAGE_SETTLE_HOURS",
        ge=0,
        le=23,
        description="hours after midnight during which late increments may still come: 0 to 23",
    )
    retention_days: Whole = Field(
        default=7,
        alias="USAGE_RETENTION_DAYS",
        ge=1,
        le=365,
        description="days the keys live in Redis (their TTL): 1 to 365",
    )
    max_mapped_tasks: Whole = Field(
        default=32,
        alias="USAGE_MAX_MAPPED_TASKS",
        ge=1,
        le=MAX_MAP_LENGTH,
        description=f"mapped upsert tasks a run at most: 1 to {MAX_MAP_LENGTH}",
    )
    scan_count: Whole = Field(
        default=1000,
        alias="USAGE_SCAN_COUNT",
        ge=1,
        le=100_000,
        description="COUNT of each SCAN call: 1 to 100000",
    )
    timezone: Zone = Field(
        default=ZoneInfo("UTC"),
        alias="USAGE_TIMEZONE",
        description="the time zone whose days the keys name, as in the tz database, e.g. Europe/Berlin",
    )
    deadline_seconds: Whole = Field(
        default=300,
        alias="USAGE_DEADLINE_SECONDS",
        ge=1,
        le=86_400,
        description="seconds after which a run is late: 1 to 86400",
    )
    on_regression: OnRegression = Field(
        default=OnRegression.KEEP,
        alias="USAGE_ON_REGRESSION",
        description="what to do when a counter went backwards: keep or carry",
    )
    delete_stale_keys: Flag = Field(
        default=False,
        alias="USAGE_DELETE_STALE_KEYS",
        description="true to delete keys past the retention once their date is verified, or false",
    )

    @property
    def interval(self) -> dt.timedelta:
        """Time between two runs."""
        return dt.timedelta(milliseconds=self.interval_ms)

    @property
    def start_date(self) -> dt.datetime:
        """The start of the first data interval, in `timezone`."""
        return self.start if self.start.tzinfo else self.start.replace(tzinfo=self.timezone)


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check every `USAGE_*` setting.

    Args:
        environ: the environment; `os.environ` if None. An empty value counts as not set.

    Raises:
        SettingsError: naming each bad variable, its value and what it takes.
    """
    source = os.environ if environ is None else environ
    fields = {field.alias: field for field in Settings.model_fields.values() if field.alias}
    given = {name: source[name] for name in fields if source.get(name, "").strip()}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        wrong = dict.fromkeys(str(problem["loc"][0]) for problem in error.errors())
        told = "; ".join(f"{name}={given[name]!r} (takes {fields[name].description})" for name in wrong)
        raise SettingsError(f"Bad setting: {told}") from None
