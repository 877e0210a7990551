"""A key that could not be aggregated, and why."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

# What PostgreSQL shows of a hostile value or key: enough to recognise it, never the 512 MB it may be.
MAX_DETAIL = 500


class Reason(StrEnum):
    """Why a key is a dead letter."""

    MALFORMED_KEY = "malformed_key"
    BAD_DATE = "bad_date"
    FUTURE_DATE = "future_date"
    NOT_AN_INTEGER = "not_an_integer"
    NEGATIVE = "negative"
    OUT_OF_RANGE = "out_of_range"
    WRONG_TYPE = "wrong_type"
    COUNTER_REGRESSED = "counter_regressed"

    @classmethod
    def of_names(cls) -> frozenset[Reason]:
        """Reasons that lie in the key itself, and are seen by a scan without reading the value."""
        return frozenset({cls.MALFORMED_KEY, cls.BAD_DATE, cls.FUTURE_DATE})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One key that could not be aggregated. `redis_key` is as read: any bytes."""

    redis_key: bytes
    reason: Reason
    detail: str
    usage_date: dt.date | None = None
    #: Of a regression: the counter in Redis, and what was stored.
    redis_value: int | None = None
    postgres_value: int | None = None

    @classmethod
    def regression(cls, key: bytes, date: dt.date, *, redis: int, postgres: int, carried: int) -> DeadLetter:
        """A counter that went backwards, with both numbers."""
        detail = f"Redis has {redis}, PostgreSQL has {postgres}" + (f" (carried {carried})" if carried else "")
        return cls(key, Reason.COUNTER_REGRESSED, detail, date, redis, postgres)
