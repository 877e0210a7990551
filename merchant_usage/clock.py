"""The one place that asks for the time. Tests set it by replacing `now`."""

from __future__ import annotations

import datetime as dt


def now() -> dt.datetime:
    """The present moment, timezone-aware, in UTC."""
    return dt.datetime.now(dt.UTC)
