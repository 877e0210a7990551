"""The one place that asks for the time, and says how long something took. Tests set it by replacing `now`."""

from __future__ import annotations

import datetime as dt


def now() -> dt.datetime:
    """The present moment, timezone-aware, in UTC."""
    return dt.datetime.now(dt.UTC)


def format_duration(duration: dt.timedelta) -> str:
    """The two largest units, cut and not rounded: `3d 4h`, `2h`, `1h 5m`, `42s`."""
    seconds = max(0, int(duration.total_seconds()))
    parts = [
        (seconds // 86_400, "d"),
        (seconds // 3_600 % 24, "h"),
        (seconds // 60 % 60, "m"),
        (seconds % 60, "s"),
    ]
    first = next((i for i, (number, _) in enumerate(parts) if number), len(parts) - 1)
    parts_shown = [f"{number}{unit}" for number, unit in parts[first : first + 2] if number]
    return " ".join(parts_shown) or "0s"
