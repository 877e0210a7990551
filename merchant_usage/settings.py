"""All settings, names and limits: read from the environment once, checked once, with one clear error."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from merchant_usage.errors import SettingsError

DAG_ID: Final = "usage_aggregation"
#: Of the DAG that asks people what to do about counters that went backwards.
DECISIONS_DAG_ID: Final = "usage_decisions"

# core.max_map_length's default: the scheduler refuses to expand a task over more items.
MAX_MAP_LENGTH: Final = 1024
MAX_PREFIX: Final = 256


class OnRegression(StrEnum):
    """What to do when a counter went backwards."""

    KEEP = "keep"
    CARRY = "carry"


def _whole(lowest: int, highest: int, multiple_of: int = 1) -> Callable[[str], int]:
    """Plain digits only: `int()` alone would take `1_000`, spaces and other scripts' digits."""

    def read(text: str) -> int:
        if not re.fullmatch("[0-9]+", text) or not lowest <= int(text) <= highest or int(text) % multiple_of:
            raise ValueError
        return int(text)

    return read


def _true_or_false(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _prefix(text: str) -> str:
    text.encode()  # a UnicodeEncodeError if the environment holds bytes that are no UTF-8
    if len(text) > MAX_PREFIX or text.endswith(":"):  # it would look for `usage::acme:...`
        raise ValueError
    return text


def _absolute_path(text: str) -> str:
    if not Path(text).is_absolute():  # of a worker nobody knows in which folder it works
        raise ValueError
    return text


def _storage_path(text: str) -> str:
    return text if re.match("[a-z][a-z0-9+.-]*://.", text) else _absolute_path(text)


def _variable(name: str, read: Callable[[str], Any], takes: str) -> dict[str, Any]:
    return {"variable": name, "read": read, "takes": takes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says, checked: of each setting its variable, its default, how it is read, what it takes.

    Plain Python, because a run on the command line and a small job should not wait for pydantic to be imported.
    """

    interval_ms: int = field(
        default=3_600_000,
        metadata=_variable(
            "USAGE_AGGREGATION_INTERVAL",
            _whole(60_000, 86_400_000, multiple_of=60_000),
            "milliseconds between runs: whole minutes, 60000 to 86400000",
        ),
    )
    enabled: bool = field(
        default=True,
        metadata=_variable(
            "ENABLE_USAGE_AGGREGATION",
            _true_or_false,
            "true, or false for no schedule (manual runs and backfills still work)",
        ),
    )
    start: dt.datetime = field(
        default=dt.datetime.fromisoformat("2026-11-01"),  # naive: a day of USAGE_TIMEZONE, see start_date
        metadata=_variable(
            "USAGE_START_DATE",
            dt.datetime.fromisoformat,
            "the go-live day YYYY-MM-DD (a time may follow): catch-up starts there, so it never moves",
        ),
    )
    key_prefix: str = field(
        default="usage",
        metadata=_variable(
            "USAGE_KEY_PREFIX",
            _prefix,
            "what stands before the merchant id in usage keys, without the ':' that follows it (usage, for "
            f"usage:acme:2026-11-01:queries): 1 to {MAX_PREFIX} characters",
        ),
    )
    settle_hours: int = field(
        default=2,
        metadata=_variable(
            "USAGE_SETTLE_HOURS",
            _whole(0, 23),
            "hours after midnight during which late increments may still come: 0 to 23",
        ),
    )
    retention_days: int = field(
        default=7,
        metadata=_variable("USAGE_RETENTION_DAYS", _whole(1, 365), "days the keys live in Redis (their TTL): 1 to 365"),
    )
    max_mapped_tasks: int = field(
        default=32,
        metadata=_variable(
            "USAGE_MAX_MAPPED_TASKS",
            _whole(1, MAX_MAP_LENGTH),
            f"mapped upsert tasks a run at most: 1 to {MAX_MAP_LENGTH}",
        ),
    )
    batch_counters: int = field(
        default=100_000,
        metadata=_variable(
            "USAGE_BATCH_COUNTERS",
            _whole(1, 10_000_000),
            "counters that one mapped upsert task takes, of more merchants than get one each: 1 to 10000000",
        ),
    )
    scan_count: int = field(
        default=1000, metadata=_variable("USAGE_SCAN_COUNT", _whole(1, 100_000), "COUNT of each SCAN call: 1 to 100000")
    )
    timezone: ZoneInfo = field(
        default=ZoneInfo("UTC"),
        metadata=_variable(
            "USAGE_TIMEZONE",
            ZoneInfo,
            "the time zone whose days the keys name, as in the tz database, e.g. Europe/Berlin",
        ),
    )
    deadline_seconds: int = field(
        default=300,
        metadata=_variable(
            "USAGE_DEADLINE_SECONDS", _whole(1, 86_400), "seconds after which a run is late: 1 to 86400"
        ),
    )
    task_timeout_seconds: int = field(
        default=3600,
        metadata=_variable(
            "USAGE_TASK_TIMEOUT_SECONDS",
            _whole(10, 86_400),
            "seconds after which a task is ended, to be tried again: 10 to 86400",
        ),
    )
    on_regression: OnRegression = field(
        default=OnRegression.KEEP,
        metadata=_variable(
            "USAGE_ON_REGRESSION", OnRegression, "what to do when a counter went backwards: keep or carry"
        ),
    )
    approvals: int = field(
        default=1,
        metadata=_variable(
            "USAGE_APPROVALS",
            _whole(1, 2),
            "how many persons it takes to accept a lower value: 1, or 2 for a second one who approves",
        ),
    )
    delete_stale_keys: bool = field(
        default=False,
        metadata=_variable(
            "USAGE_DELETE_STALE_KEYS",
            _true_or_false,
            "true to delete keys past the retention once their date is verified, or false",
        ),
    )

    ledger_retention_days: int = field(
        default=400,
        metadata=_variable(
            "USAGE_LEDGER_RETENTION_DAYS",
            _whole(30, 36_500),
            "days after which resolved dead letters, alerts and superseded attempts are forgotten: 30 to 36500",
        ),
    )
    audit_days: int = field(
        default=35,
        metadata=_variable(
            "USAGE_AUDIT_DAYS", _whole(1, 3660), "days whose seals the first run of a day looks at anew: 1 to 3660"
        ),
    )
    seal_key_file: str = field(
        default="",
        metadata=_variable(
            "USAGE_SEAL_KEY_FILE",
            _absolute_path,
            "the absolute path of a file with an Ed25519 private key in PEM, which seals are signed with",
        ),
    )
    seal_export: str = field(
        default="",
        metadata=_variable(
            "USAGE_SEAL_EXPORT",
            _storage_path,
            "where runs of the DAG write each seal: an absolute path, or an address such as s3://aws_default@bucket/seals",
        ),
    )
    hourly_history: bool = field(
        default=True,
        metadata=_variable(
            "USAGE_HOURLY_HISTORY",
            _true_or_false,
            "true to keep how counters grew from run to run, or false (corrections are kept all the same)",
        ),
    )
    hourly_retention_days: int = field(
        default=90,
        metadata=_variable(
            "USAGE_HOURLY_RETENTION_DAYS",
            _whole(8, 3650),
            "days of hourly history that are kept: 8 to 3650",
        ),
    )

    @property
    def interval(self) -> dt.timedelta:
        """Time between two runs."""
        return dt.timedelta(milliseconds=self.interval_ms)

    @property
    def task_timeout(self) -> dt.timedelta:
        """The longest that a task may take."""
        return dt.timedelta(seconds=self.task_timeout_seconds)

    @property
    def start_date(self) -> dt.datetime:
        """The start of the first data interval, in `timezone`."""
        return self.start if self.start.tzinfo else self.start.replace(tzinfo=self.timezone)


#: What each variable takes.
VARIABLES: Final[Mapping[str, str]] = {each.metadata["variable"]: each.metadata["takes"] for each in fields(Settings)}


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check every `USAGE_*` setting.

    Args:
        environ: the environment; `os.environ` if None. An empty value counts as not set.

    Raises:
        SettingsError: naming each bad variable, its value and what it takes.
    """
    source = os.environ if environ is None else environ
    given: dict[str, Any] = {}
    wrong: list[str] = []
    for setting in fields(Settings):
        variable, read = setting.metadata["variable"], setting.metadata["read"]
        text = source.get(variable, "")
        try:
            if text.strip():
                given[setting.name] = read(text.strip())
        except (ValueError, KeyError, OSError):  # ZoneInfoNotFoundError is a KeyError; a folder's name an OSError
            wrong.append(f"{variable}={text!r} (takes {VARIABLES[variable]})")
    if wrong:
        raise SettingsError(f"Bad setting: {'; '.join(wrong)}")
    return Settings(**given)
