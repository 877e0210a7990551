"""Each setting: what it is when not given, what it takes, and one clear error for what it does not take."""

from __future__ import annotations

import datetime as dt
from dataclasses import FrozenInstanceError
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from merchant_usage.errors import SettingsError
from merchant_usage.settings import VARIABLES, OnRegression, load_settings

DEFAULTS = {
    "USAGE_AGGREGATION_INTERVAL": ("interval_ms", 3_600_000),
    "ENABLE_USAGE_AGGREGATION": ("enabled", True),
    "USAGE_START_DATE": ("start_date", dt.datetime(2026, 11, 1, tzinfo=ZoneInfo("UTC"))),
    "USAGE_KEY_PREFIX": ("key_prefix", "usage"),
    "USAGE_SETTLE_HOURS": ("settle_hours", 2),
    "USAGE_LEDGER_RETENTION_DAYS": ("ledger_retention_days", 400),
    "USAGE_RETENTION_DAYS": ("retention_days", 7),
    "USAGE_MAX_MAPPED_TASKS": ("max_mapped_tasks", 32),
    "USAGE_BATCH_COUNTERS": ("batch_counters", 100_000),
    "USAGE_SCAN_COUNT": ("scan_count", 1000),
    "USAGE_TIMEZONE": ("timezone", ZoneInfo("UTC")),
    "USAGE_DEADLINE_SECONDS": ("deadline_seconds", 300),
    "USAGE_TASK_TIMEOUT_SECONDS": ("task_timeout_seconds", 3600),
    "USAGE_ON_REGRESSION": ("on_regression", OnRegression.KEEP),
    "USAGE_APPROVALS": ("approvals", 1),
    "USAGE_DELETE_STALE_KEYS": ("delete_stale_keys", False),
    "USAGE_AUDIT_DAYS": ("audit_days", 35),
    "USAGE_SEAL_KEY_FILE": ("seal_key_file", ""),
    "USAGE_SEAL_EXPORT": ("seal_export", ""),
    "USAGE_HOURLY_HISTORY": ("hourly_history", True),
    "USAGE_HOURLY_RETENTION_DAYS": ("hourly_retention_days", 90),
}


def test_these_are_all_variables() -> None:
    assert set(VARIABLES) == set(DEFAULTS)


@pytest.mark.parametrize(("variable", "default"), DEFAULTS.items(), ids=DEFAULTS)
@pytest.mark.parametrize("given", [None, "", "  "], ids=["not set", "empty", "spaces"])
def test_default(variable: str, default: tuple[str, Any], given: str | None) -> None:
    environ = {} if given is None else {variable: given}
    name, value = default
    assert getattr(load_settings(environ), name) == value


GOOD = [
    ("USAGE_AGGREGATION_INTERVAL", "60000", dt.timedelta(minutes=1)),
    ("USAGE_AGGREGATION_INTERVAL", "86400000", dt.timedelta(days=1)),
    ("USAGE_AGGREGATION_INTERVAL", "5400000", dt.timedelta(minutes=90)),
    ("ENABLE_USAGE_AGGREGATION", "false", False),
    ("ENABLE_USAGE_AGGREGATION", "TRUE", True),
    ("USAGE_START_DATE", "2027-01-15", dt.datetime(2027, 1, 15, tzinfo=ZoneInfo("UTC"))),
    ("USAGE_START_DATE", "2027-01-15T06:00+01:00", dt.datetime(2027, 1, 15, 5, tzinfo=dt.UTC)),
    ("USAGE_KEY_PREFIX", "app:usage", "app:usage"),
    ("USAGE_KEY_PREFIX", "x" * 256, "x" * 256),
    ("USAGE_SETTLE_HOURS", "0", 0),
    ("USAGE_SETTLE_HOURS", "23", 23),
    ("USAGE_RETENTION_DAYS", "365", 365),
    ("USAGE_LEDGER_RETENTION_DAYS", "30", 30),
    ("USAGE_MAX_MAPPED_TASKS", "1024", 1024),
    ("USAGE_BATCH_COUNTERS", "10000000", 10_000_000),
    ("USAGE_SCAN_COUNT", "100000", 100_000),
    ("USAGE_TIMEZONE", "Europe/Berlin", ZoneInfo("Europe/Berlin")),
    ("USAGE_DEADLINE_SECONDS", "86400", 86_400),
    ("USAGE_TASK_TIMEOUT_SECONDS", "10", 10),
    ("USAGE_TASK_TIMEOUT_SECONDS", "86400", 86_400),
    ("USAGE_ON_REGRESSION", "carry", OnRegression.CARRY),
    ("USAGE_APPROVALS", "2", 2),
    ("USAGE_DELETE_STALE_KEYS", "true", True),
    ("USAGE_AUDIT_DAYS", "1", 1),
    ("USAGE_SEAL_EXPORT", "s3://aws_default@bucket/seals", "s3://aws_default@bucket/seals"),
    ("USAGE_SEAL_EXPORT", "/var/seals", "/var/seals"),
    ("USAGE_SEAL_KEY_FILE", "/etc/usage/seal.pem", "/etc/usage/seal.pem"),
    ("USAGE_HOURLY_HISTORY", "false", False),
    ("USAGE_HOURLY_RETENTION_DAYS", "8", 8),
    ("USAGE_HOURLY_RETENTION_DAYS", "3650", 3650),
]


@pytest.mark.parametrize(("variable", "given", "value"), GOOD, ids=[f"{name}={text[:30]}" for name, text, _ in GOOD])
def test_good_value(variable: str, given: str, value: object) -> None:
    name = {"USAGE_AGGREGATION_INTERVAL": "interval"}.get(variable, DEFAULTS[variable][0])
    assert getattr(load_settings({variable: given}), name) == value


BAD = {
    "USAGE_AGGREGATION_INTERVAL": ["59999", "60001", "86460000", "1h", "3_600_000", "3600000.0", "-3600000", "٦٠٠٠٠"],
    "ENABLE_USAGE_AGGREGATION": ["yes", "1", "off", "truee"],
    "USAGE_START_DATE": ["now", "2026-02-30", "01.11.2026"],
    "USAGE_KEY_PREFIX": ["x" * 257, "us\udcffage", "usage:", ":"],
    "USAGE_SETTLE_HOURS": ["24", "-1", "2.5", "two"],
    "USAGE_RETENTION_DAYS": ["0", "366", "7d"],
    "USAGE_LEDGER_RETENTION_DAYS": ["29", "36501", "1y"],
    "USAGE_MAX_MAPPED_TASKS": ["0", "1025", "1e3"],
    "USAGE_BATCH_COUNTERS": ["0", "10000001", "1e5"],
    "USAGE_SCAN_COUNT": ["0", "100001", "1,000"],
    "USAGE_TIMEZONE": ["Berlin", "Europe/", "../../etc/passwd", "/etc/passwd", "Europe", "UTC\0"],
    "USAGE_DEADLINE_SECONDS": ["0", "86401", "5m"],
    "USAGE_TASK_TIMEOUT_SECONDS": ["0", "9", "86401", "1h", "3600.0"],
    "USAGE_ON_REGRESSION": ["Keep!", "lower", "carry,keep"],
    "USAGE_APPROVALS": ["0", "3", "two", "true", "-1"],
    "USAGE_DELETE_STALE_KEYS": ["y", "0", "delete"],
    "USAGE_AUDIT_DAYS": ["0", "3661", "5w"],
    "USAGE_SEAL_EXPORT": ["seals", "s3:bucket", "://x"],
    "USAGE_SEAL_KEY_FILE": ["seal.pem", "~/seal.pem"],
    "USAGE_HOURLY_HISTORY": ["y", "0", "keep"],
    "USAGE_HOURLY_RETENTION_DAYS": ["7", "3651", "90d"],
}


def test_every_variable_has_bad_values() -> None:
    assert set(BAD) == set(DEFAULTS)


@pytest.mark.parametrize(
    ("variable", "given"),
    [
        pytest.param(name, text, id=f"{name}={text[:20]}".encode("ascii", "backslashreplace").decode())
        for name, texts in BAD.items()
        for text in texts
    ],
)
def test_bad_value_is_one_error_with_name_value_and_what_it_takes(variable: str, given: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings({variable: given})
    assert str(raised.value) == f"Bad setting: {variable}={given!r} (takes {VARIABLES[variable]})"
    assert raised.value.__context__ is None
    assert not raised.value.heals


def test_all_bad_values_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings({name: texts[0] for name, texts in BAD.items()})
    told = str(raised.value)
    assert [told.count(f"{name}=") for name in BAD] == [1] * len(BAD)


def test_start_date_is_a_day_of_the_time_zone() -> None:
    chosen = load_settings({"USAGE_TIMEZONE": "Europe/Berlin", "USAGE_START_DATE": "2026-11-01"})
    assert chosen.start_date.isoformat() == "2026-11-01T00:00:00+01:00"


def test_other_variables_do_not_matter() -> None:
    assert load_settings({"USAGE_REDIS_URL": "x", "USAGE_NONSENSE": "y", "interval_ms": "1"}) == load_settings({})


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USAGE_SETTLE_HOURS", "5")
    assert load_settings().settle_hours == 5


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        load_settings({}).settle_hours = 3  # type: ignore[misc]  # that is what must fail
