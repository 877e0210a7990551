"""What a verification has found so far, key by key: counted for all, kept for the first."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final

from merchant_usage.errors import UsageMismatch
from merchant_usage.model.dead_letter import DeadLetter, Reason
from merchant_usage.model.keys import CounterKey
from merchant_usage.model.verdict import Difference, Verdict

# Failing keys kept for the message: the rest is counted. Of each date some are kept, however many another one has.
MAX_DIFFERENCES_KEPT: Final = 1000
# Counters found to have gone backwards that one run states at most, each with its row locked; the next run states more.
# Until then the date is a mismatch all the same.
MAX_REGRESSIONS_KEPT: Final = 50_000
# Keys found to be gone that one run notes, about; the next run notes more.
MAX_ABSENCES_KEPT: Final = 50_000


@dataclass(slots=True)
class DateTally:
    """What is to be said of a date besides its matching rows, those whose counter is what Redis has."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    #: Keys named by the batches that have a row.
    with_row: int = 0
    #: Stored rows that do not match.
    rows: int = 0
    #: Keys that do not match and hold a counter in Redis.
    in_redis: int = 0
    #: Rows whose keys are gone, and that this run did not read: their ends were read by nobody, or before.
    gone_before: int = 0
    bad_values: int = 0
    #: Those of them that held a counter, which is stored, or hold more than one: what they count nobody knows.
    turned_bad: int = 0
    #: Counters below what is stored, which a person decided is right.
    kept: int = 0
    #: What Redis has more than the stored counters say.
    more_in_redis: int = 0
    #: Failing keys that are kept by name.
    failing_kept: int = 0


@dataclass(slots=True)
class Tally:
    """What a comparison found, apart from matching rows."""

    by_date: dict[dt.date, DateTally] = field(default_factory=lambda: defaultdict(DateTally))
    failing: list[Difference] = field(default_factory=list)
    failing_count: int = 0
    #: Counters that went backwards, or are gone before their time, and of which nobody was told before.
    regressed: list[Difference] = field(default_factory=list)
    #: Those of which a person was told already, whatever they hold now.
    known: list[Difference] = field(default_factory=list)
    #: Those of these whose keys are gone now.
    vanished: list[CounterKey] = field(default_factory=list)
    #: Those whose keys are gone, which says nothing by itself: when they are back with more, they began anew.
    absent: list[CounterKey] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    #: By date and merchant: keys without a row, and what Redis has more. Kept for the first few.
    by_merchant: dict[tuple[dt.date, str], list[int]] = field(default_factory=dict)

    def add(self, difference: Difference, *, is_known: bool = False, was_read: bool = False) -> None:
        """Take in the verdict on a key that does not match.

        Args:
            is_known: it has an open dead letter as a counter that went backwards.
            was_read: this run has read its end.
        """
        found = self.by_date[difference.key.date]
        found.verdicts[difference.verdict] += 1
        counted = 0 if difference.stored is None else difference.stored - difference.carried
        more = (difference.now or 0) - counted
        found.in_redis += difference.now is not None
        found.gone_before += difference.verdict is Verdict.EXPIRED and not was_read
        found.more_in_redis += more
        self._add_merchant(difference.key, difference.stored is None, more)
        if difference.verdict.fails:
            self.failing_count += 1
            if len(self.failing) < MAX_DIFFERENCES_KEPT or found.failing_kept < UsageMismatch.SHOWN:
                self.failing.append(difference)
                found.failing_kept += 1
        elif difference.verdict is Verdict.REGRESSED and is_known:
            if len(self.known) < MAX_DIFFERENCES_KEPT:
                self.known.append(difference)
            if difference.now is None and len(self.vanished) < MAX_REGRESSIONS_KEPT:
                self.vanished.append(difference.key)
        elif difference.verdict is Verdict.REGRESSED and len(self.regressed) < MAX_REGRESSIONS_KEPT:
            self.regressed.append(difference)

    def add_bad(self, key: CounterKey, counted: int, letter: DeadLetter, *, was_good: bool) -> None:
        """Take in a key that holds no counter any more: there is no number to compare.

        Args:
            was_good: it had one, which was stored or read.
        """
        found = self.by_date[key.date]
        found.bad_values += 1
        found.turned_bad += was_good or letter.reason is Reason.ON_TWO_SERVERS
        found.more_in_redis -= counted
        self._add_merchant(key, False, -counted)
        if was_good and len(self.letters) < MAX_DIFFERENCES_KEPT:
            self.letters.append(letter)

    def withdraw(self, difference: Difference) -> None:
        """A counter that was said to have gone backwards has not, now that its row was locked and it was read again."""
        verdicts = self.by_date[difference.key.date].verdicts
        verdicts[Verdict.REGRESSED] -= 1
        verdicts[Verdict.MATCH] += 1

    def _add_merchant(self, key: CounterKey, without_row: bool, more: int) -> None:
        of_merchant = key.date, key.merchant_id
        if of_merchant in self.by_merchant or len(self.by_merchant) < MAX_DIFFERENCES_KEPT:
            sums = self.by_merchant.setdefault(of_merchant, [0, 0])
            sums[0] += without_row
            sums[1] += more
