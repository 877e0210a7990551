"""What a verification has to know of the past of its dates: whether keys may be gone that nobody read to their end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import redis
from psycopg import Connection

from merchant_usage.log import Log
from merchant_usage.model.batches import Group
from merchant_usage.model.dates import KeyRules, Scope, local_date, oldest_kept
from merchant_usage.model.pages import key_pages
from merchant_usage.model.report import DateVerdict
from merchant_usage.model.run import Attempt
from merchant_usage.settings import Settings
from merchant_usage.sink import ledger
from merchant_usage.sink.ledger import DateHistory
from merchant_usage.source.counters import seconds_to_live
from merchant_usage.source.shards import RedisClient

log = Log(__name__)

# Keys of a date whose TTL is asked for: an application gives them all the same.
KEYS_SAMPLED: Final = 200


@dataclass(slots=True)
class Past:
    """The past of a run's dates. TTLs are asked for only of a date for which they matter."""

    now: dt.datetime
    rules: tuple[KeyRules, ...]
    histories: Mapping[dt.date, DateHistory]
    first_run_at: dt.datetime | None
    _client: RedisClient
    #: The first keys of each date that the scan found.
    _samples: Mapping[dt.date, Sequence[bytes]]
    _lives: dict[dt.date, list[int] | None] = field(default_factory=dict)
    _kept_still: dict[dt.date, bool] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        client: RedisClient,
        conn: Connection,
        scopes: Sequence[Scope],
        groups: Iterable[Group],
        attempt: Attempt | None,
        settings: Settings,
        now: dt.datetime,
    ) -> Past:
        """Ask the ledger. Other rules that runs went by lately count, too: of two times the earlier one is safe."""
        asking = attempt or Attempt("", 0)
        samples: dict[dt.date, Sequence[bytes]] = {}
        for group in groups:
            if group.date not in samples:
                samples[group.date] = next(key_pages([group], settings.key_prefix, KEYS_SAMPLED)).raw_keys
        since = oldest_kept(local_date(now, settings), settings) - dt.timedelta(days=1)
        return cls(
            now,
            (KeyRules.of(settings), *ledger.key_rules(conn, since)),
            ledger.date_histories(conn, [scope.date for scope in scopes], asking),
            ledger.first_run_at(conn, asking),
            client,
            samples,
        )

    def is_kept_still(self, date: dt.date) -> bool:
        """Whether a key that was stored and is gone has gone before its time, and before its end was read."""
        if date not in self._kept_still:
            self._kept_still[date] = self._find_out_if_kept(date)
        return self._kept_still[date]

    def findings(self, scope: Scope, *, gone: int) -> dict[str, Any]:
        """What the past adds to the findings of a date.

        Args:
            gone: rows whose keys are gone, and were when this run looked for them.
        """
        date, history = scope.date, self.histories.get(scope.date, DateHistory())
        settled_at = min(rules.settled_at(date) for rules in self.rules)
        was_watched = self.first_run_at is not None and self.first_run_at < settled_at
        return {
            "was_complete": history.is_complete,
            "was_verified_by_run": history.is_verified_by_run,
            "may_have_expired": (gone > 0 and self.was_read(date))
            or self._has_other_prefix(date)
            or (self.now >= self._kept_until(date) and (gone > 0 or self._may_lack_keys(was_watched=was_watched)))
            or (scope.settled and not history.is_complete and self._has_outlived_ttl(date)),
            "was_watched": was_watched,
        }

    def remark(self, date: dt.date, verdict: DateVerdict) -> str | None:
        """Why a date is incomplete, in a sentence."""
        if verdict is not DateVerdict.INCOMPLETE:
            return None
        history = self.histories.get(date, DateHistory())
        if self._has_other_prefix(date):
            prefixes = " and ".join(repr(prefix) for prefix in sorted({*history.prefixes, self.rules[0].key_prefix}))
            return f"USAGE_KEY_PREFIX was changed while {date} was counted, and runs read {prefixes}: usage may be lost"
        if history.last_read_at is None:
            last = "no run read it before"
        else:
            last = f"it was last read at {history.last_read_at.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
            last += "" if history.last_total is None else f", when PostgreSQL held {history.last_total:,}"
        return f"nobody read the end of {date} while its keys lived ({last}), so usage may be lost"

    def _kept_until(self, date: dt.date) -> dt.datetime:
        return min(rules.kept_until(date) for rules in self.rules)

    def _find_out_if_kept(self, date: dt.date) -> bool:
        history = self.histories.get(date, DateHistory())
        if history.is_complete or self.now >= self._kept_until(date):
            return False
        lives = self._lives_of(date)
        if not lives or -1 in lives:
            return True  # unknown, or they live for ever: then this one should, too
        latest = self.now + dt.timedelta(seconds=max(lives))
        if latest < self._kept_until(date):
            log.warning(
                f"Keys of {date} expire before USAGE_RETENTION_DAYS is over (the latest at {latest:%Y-%m-%d %H:%M} "
                "UTC): that some are gone says nothing. Set it to what the application's TTL is.",
                date=str(date),
            )
            return False
        return True

    def is_within_retention(self, date: dt.date) -> bool:
        """Whether none of its keys can have expired yet, if the application's TTL is the retention."""
        return self.now < self._kept_until(date)

    def was_read(self, date: dt.date) -> bool:
        """Whether a run before this one read it: then its rows were counters."""
        return self.histories.get(date, DateHistory()).last_read_at is not None

    def _may_lack_keys(self, *, was_watched: bool) -> bool:
        """Whether keys may be gone that nobody knows of, once the first of a date may have expired.

        Each key has a life of its own, so only where none of any date has one it is known that all are there. What is
        left of old dates says nothing of what is gone: that needs a date whose keys must all be there. Without one, a
        date is believed that no run could have read.
        """
        lives = [self._lives_of(date) for date in self._samples]
        if not lives or not all(known and all(life == -1 for life in known) for known in lives):
            return True
        return was_watched and all(self.now >= self._kept_until(date) for date in self._samples)

    def _has_outlived_ttl(self, date: dt.date) -> bool:
        """Whether the first keys of a date must have expired by now, by the TTL that keys are seen to have.

        A key of a day was counted on that day or later, so its TTL is no more than what is left of it and what has
        passed since that midnight. Where that is less than the retention, keys go before their time. Of each date the
        longest counts: one key of an odd client says nothing of the others.
        """
        ttls = [
            dt.timedelta(seconds=max(lives)) + (self.now - min(rules.midnight(sampled) for rules in self.rules))
            for sampled in self._samples
            if (lives := [life for life in self._lives_of(sampled) or () if life >= 0])
        ]
        return bool(ttls) and self.now >= self.rules[0].midnight(date) + min(ttls)

    def _has_other_prefix(self, date: dt.date) -> bool:
        """Whether runs have read its keys by another prefix than this one: those are not seen any more."""
        return bool(set(self.histories.get(date, DateHistory()).prefixes) - {self.rules[0].key_prefix})

    def _lives_of(self, date: dt.date) -> list[int] | None:
        """Seconds to live of some keys of a date, -1 for ever; None if the Redis user may not ask."""
        if date not in self._lives:
            try:
                lives = seconds_to_live(self._client, self._samples.get(date, ()))
            except redis.exceptions.NoPermissionError:
                self._lives[date] = None
            else:
                self._lives[date] = [life for life in lives if life != -2]
        return self._lives[date]
