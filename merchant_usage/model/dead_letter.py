"""A key that could not be aggregated, and why."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from enum import StrEnum

from merchant_usage.model.long_text import HEAD, LongText

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
    ON_TWO_SERVERS = "on_two_servers"
    COUNTER_REGRESSED = "counter_regressed"
    TOO_LATE = "too_late"

    @classmethod
    def key_reasons(cls) -> frozenset[Reason]:
        """Reasons that lie in the key itself, and are seen by a scan without reading the value."""
        return frozenset({cls.MALFORMED_KEY, cls.BAD_DATE, cls.FUTURE_DATE})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One key that could not be aggregated. `redis_key` is as read: any bytes.

    Of a name that is too long `redis_key` is its beginning, and `sha256` that of the whole.
    """

    redis_key: bytes
    reason: Reason
    detail: str
    usage_date: dt.date | None = None
    #: Of a regression: the counter in Redis, and what was stored.
    redis_value: int | None = None
    postgres_value: int | None = None
    sha256: bytes | None = None

    @property
    def identity(self) -> bytes:
        """What tells its key from all others, whatever is kept of it: the SHA-256 of its name."""
        return self.sha256 or hashlib.sha256(self.redis_key).digest()

    @classmethod
    def of_name(cls, raw: bytes, reason: Reason, detail: str, date: dt.date | None = None) -> DeadLetter:
        """A key that its name keeps from being a usage key. Of a long one the beginning is kept."""
        if not isinstance(raw, LongText):
            if len(raw) <= HEAD:
                return cls(raw, reason, detail, date)
            raw = LongText.of(raw)
        detail = f"{detail}; the name has {raw.length} bytes, of which these are the first {HEAD}"
        return cls(bytes(raw), reason, detail, date, sha256=raw.sha256)

    @classmethod
    def overflow(cls, key: bytes, date: dt.date, *, counter: int, carried: int) -> DeadLetter:
        """A counter that cannot be stored on top of what is carried: the sum is more than a bigint holds."""
        detail = f"the counter is {counter:,}, too much on top of {carried:,} carried"
        return cls(key, Reason.OUT_OF_RANGE, detail, date)

    @classmethod
    def regression(
        cls, key: bytes, date: dt.date, *, redis: int | None, postgres: int, carried: int, base: int | None = None
    ) -> DeadLetter:
        """A counter that went backwards, with both numbers.

        Args:
            redis: the counter now; None if the key is gone before its time.
            base: what carrying would carry, if that is not what is stored.
        """
        now = "nothing any more" if redis is None else f"{redis:,}"
        detail = f"Redis has {now}, PostgreSQL has {postgres:,}" + (f" (carried {carried:,})" if carried else "")
        return cls(key, Reason.COUNTER_REGRESSED, detail, date, redis, postgres if base is None else base)
