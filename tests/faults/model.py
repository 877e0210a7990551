"""What must be true of each counter, in plain Python: the oracle that PostgreSQL is held against."""

from __future__ import annotations

from dataclasses import dataclass

from merchant_usage.steps.resolve import Decision


@dataclass
class Letter:
    """An open `counter_regressed`: what was stored when it was opened, and what Redis was last seen to hold."""

    stored: int
    redis: int


@dataclass
class Counter:
    """One counter: what really happened, what a run could know of it, and what must be stored."""

    #: The string in Redis: a number, poison, or nothing.
    redis: int | bytes | None = None
    #: The sum of all increments ever made. Nobody may be billed for more.
    true: int = 0
    #: Of it, what some run could see: increments that Redis lost before any run read them are not in it.
    known: int = 0

    stored: int | None = None
    carried: int = 0
    letter: Letter | None = None
    #: After the decision to keep: where the counter stood, and what was stored.
    kept: tuple[int, int] | None = None
    poisoned: bool = False

    #: Redis began to count anew since the last run that read it.
    began_anew: bool = False
    #: The last reading since it began.
    last_seen: int = 0
    #: It fell more than once before anybody decided: one letter cannot tell what is true then, only bounds hold.
    fell_twice: bool = False

    def increment(self, by: int) -> None:
        """Count, as the API does."""
        assert not isinstance(self.redis, bytes)
        if self.redis is None and self.stored is not None:
            self.began_anew = True
        self.redis = (self.redis or 0) + by
        self.true += by

    def expire(self) -> None:
        """Redis lost the key, or its time to live is over."""
        self.redis = None
        if self.stored is not None:
            self.began_anew = True

    @property
    def counted(self) -> int:
        """What is stored of the present life of the counter."""
        return (self.stored or 0) - self.carried

    @property
    def is_kept(self) -> bool:
        """A lower value in Redis is what a person decided to keep the stored one over."""
        return (
            self.kept is not None
            and isinstance(self.redis, int)
            and self.redis >= self.kept[0]
            and self.stored is not None
            and self.stored <= self.kept[1]
        )

    @property
    def is_regressed(self) -> bool:
        """Redis has less than what is stored, and nobody said that this is right."""
        return (
            isinstance(self.redis, int) and self.stored is not None and self.redis < self.counted and not self.is_kept
        )

    @property
    def is_exact(self) -> bool:
        return self.stored == self.known

    def observe(self, *, carry: bool) -> None:
        """A run reads the counter and stores it."""
        self.poisoned = isinstance(self.redis, bytes)
        if not isinstance(self.redis, int):
            return
        now = self.redis
        if self.stored is None:
            self.stored = self.known = now
        elif self.is_regressed:
            self._fall(now, carry=carry)
        elif self.began_anew or self.is_kept:
            # It has grown beyond what was stored before anybody looked: that it began anew cannot be seen.
            self.stored = max(self.stored, self.carried + now)
            if self.letter is None:
                self.known = self.stored
            else:
                self.fell_twice = True
        else:
            self.known += now - self.last_seen
            self.stored = max(self.stored, self.carried + now)
            if self.kept is not None:
                self.known = self.stored
        self.began_anew = False
        self.last_seen = now

    def _fall(self, now: int, *, carry: bool) -> None:
        assert self.stored is not None
        if self.letter is not None and self.began_anew:
            self.fell_twice = True
        self.known += now if self.began_anew else now - self.last_seen
        if carry:
            self.carried, self.stored = self.stored, self.stored + now
            self.letter = None
            if self.fell_twice:
                self.known, self.fell_twice = self.stored, False
        elif self.letter is None:
            self.letter = Letter(self.stored, now)
        else:
            self.letter.redis = now

    def decide(self, decision: Decision) -> None:
        """A person decides its open letter."""
        assert self.letter is not None
        assert self.stored is not None
        assert not isinstance(self.redis, bytes)
        overtook = self.stored > self.letter.stored
        counter = self.redis if self.redis is not None else self.counted if overtook else self.letter.redis
        self.kept = None
        if decision is Decision.KEEP:
            self.kept = (counter, self.stored)
        elif decision is Decision.ACCEPT:
            self.stored = self.carried + counter
        else:
            self.carried = self.stored if counter < self.counted else self.letter.stored
            self.stored = self.carried + counter
        was_exact = decision is Decision.CARRY and not self.fell_twice and not self.began_anew
        if was_exact:
            # Between the last run and the decision the counter may have grown: the decision reads it too.
            self.known += counter - self.last_seen
        else:
            self.known = self.stored
        self.last_seen = counter
        self.began_anew = self.redis is None
        self.letter, self.fell_twice = None, False
