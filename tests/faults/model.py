"""What really happened to a counter, and what runs could see of it: the truth that PostgreSQL is held against."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace


@dataclass
class Counter:
    """One counter. Redis may lose it and begin anew: each time is a life of it."""

    #: What Redis holds: a number, garbage, or nothing.
    redis: int | bytes | None = None
    #: When its time to live is over.
    expires: dt.datetime | None = None
    #: The sum of all increments ever made. Nobody may be billed for more.
    true: int = 0

    #: A run has read it, so that it has a row.
    is_read: bool = False
    #: What runs have seen of the lives that are over, and of the present one: what must be stored.
    past: int = 0
    seen: int = 0
    #: Lives that are over.
    lives: int = 0
    #: What was seen of the life that ended last, until a run has seen that it ended.
    fell_from: int | None = None
    #: A run has seen that the key is gone, and noted it.
    is_noted: bool = False
    #: A part of a run may have read it.
    is_unsure: bool = False
    #: Something happened that no run can see, or that a person decided otherwise: only bounds hold.
    is_bounded: bool = False
    #: It went on from an older value. To carry would bill twice, and no person who knows of it does.
    fell_back: bool = False

    @property
    def known(self) -> int:
        """What must be stored once nothing waits for a decision."""
        return self.past + self.seen

    @property
    def unseen(self) -> int:
        """What is in Redis, and no run has read."""
        return self.redis - self.seen if isinstance(self.redis, int) else 0

    def increment(self, by: int, expires: dt.datetime | None) -> None:
        """Count, as the API does. What Redis refuses was not counted."""
        if not isinstance(self.redis, bytes):
            self.redis = (self.redis or 0) + by
            self.true += by
            self.expires = expires

    def end(self) -> int:
        """Redis has lost the key. Returns what is lost with it."""
        lost = self.unseen
        self.past += self.seen
        if self.is_read and self.seen:
            self.fell_from = self.seen
        self.redis, self.seen, self.expires = None, 0, None
        self.lives += 1
        return lost

    def fall_back(self, value: int) -> bool:
        """Redis holds an older value. Returns whether a run can see that."""
        self.is_bounded = self.fell_back = True
        is_visible = value < self.seen
        self.redis = value
        return is_visible

    def read(self, *, is_flagged: bool) -> None:
        """A run, or whoever decides, has read it.

        Args:
            is_flagged: a `counter_regressed` of it is open.
        """
        if isinstance(self.redis, int):
            if self.fell_from is not None and self.redis >= self.fell_from:
                # It had overtaken before anybody looked: that it began anew cannot be seen.
                self.is_bounded = True
            self.fell_from = None
            self.seen = self.redis
            self.is_read = True
            self.is_unsure = False
        elif self.redis is None and is_flagged:
            self.fell_from = None

    def go_back_to(self, then: Counter | None) -> int:
        """PostgreSQL is restored, to when the counter was like this. Returns what it cannot read again."""
        before = self.known
        self.is_noted = False
        if then is None:
            self.past, self.seen, self.is_read, self.fell_from = 0, 0, False, None
        elif then.lives == self.lives:
            self.past, self.seen, self.is_read, self.fell_from = then.past, then.seen, then.is_read, then.fell_from
            self.is_noted = then.is_noted
        else:
            self.past, self.seen, self.is_read = then.known, 0, then.is_read
            self.fell_from = (then.seen or then.fell_from) if then.is_read else None
        again = self.redis if isinstance(self.redis, int) else self.seen
        return max(0, before - self.past - again)

    def copy(self) -> Counter:
        return replace(self)
