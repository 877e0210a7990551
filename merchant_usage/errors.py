"""Every error a person may meet, each carrying its own sentence: what, and which.

What to do next depends on where it happened, in a task of Airflow or on a command line: whoever shows an error adds it.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from merchant_usage.text import shown

#: What the command line is called where it is installed. `python -m merchant_usage` is the same.
NAME: Final = "merchant-usage"
#: What every message tells people to type for it. `./run usage` says that here it is called so.
PROGRAM: Final = os.environ.get("MERCHANT_USAGE_PROGRAM", NAME)
MIGRATE_COMMAND: Final = f"{PROGRAM} migrate"


class UsageError(Exception):
    """Base of all errors of this package. Its text is the whole message, safe to log (never a password)."""

    #: Whether trying again later can help. Airflow retries only those that can heal.
    heals: ClassVar[bool] = False

    def with_remedy(self, remedies: Mapping[type[UsageError], str]) -> str:
        """The whole message and what to do next, if that is known.

        Args:
            remedies: by kind of error. That of the nearest kind is taken.
        """
        remedy = next((remedies[kind] for kind in type(self).__mro__ if kind in remedies), None)
        said = str(self)
        if remedy is None:
            return said
        if "\n" in said:
            return f"{said}\n  {remedy}"
        return f"{said} {remedy}" if said.endswith((".", ")")) else f"{said}. {remedy}"


class SettingsError(UsageError):
    """A setting, a parameter or a connection is missing or wrong."""


class RequestRefused(SettingsError):
    """A run is asked for what there is not: its arguments are wrong, and nothing else is."""


class ClocksDisagree(SettingsError):
    """The clocks of this machine, of Redis and of PostgreSQL are so far apart that no run can go by them."""

    heals = True


class RedisUnavailable(UsageError):
    """Redis cannot be reached, went away half-way, or cannot serve for a reason that passes: a failover, say."""

    heals = True


class ClusterChanged(RedisUnavailable):
    """A Redis Cluster moved slots or failed over while it was read, so that what was read may not be all."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"The Redis Cluster is being resharded or failed over: {what}. Keys may have been missed, so this "
            "reading does not count. Nothing was lost; the run can be repeated once the cluster is at rest."
        )


class RedisRefused(UsageError):
    """Redis answers, but refuses what is asked, or is the wrong server: a bad password, no permission, a Sentinel."""


class PostgresUnavailable(UsageError):
    """PostgreSQL cannot be reached, went away half-way, or cannot serve for a reason that passes: a failover, say."""

    heals = True


class TaskTimedOut(UsageError):
    """A task took longer than it may. Whatever it was waiting for, another attempt may find it mended."""

    heals = True

    def __init__(self) -> None:
        super().__init__(
            "The task was ended, because it took longer than USAGE_TASK_TIMEOUT_SECONDS allows: a server went silent, "
            "or there is more to do than that. Nothing was lost; the run can be repeated."
        )


class PostgresRefused(UsageError):
    """PostgreSQL answers, but refuses what is asked: wrong password, wrong database, no permission."""


class SchemaError(UsageError):
    """The schema is missing, or the tables are not what this package can write to."""


class PartitionMissing(SchemaError):
    """A partitioned table has no place for a row."""


class UpsertFailed(UsageError):
    """Some merchants of a batch could not be stored; all the others were.

    It does not heal: what PostgreSQL refused of them it would refuse again, and what can pass fails the whole batch.
    """

    def __init__(self, failures: dict[str, str]) -> None:
        self.failures = failures
        named = "; ".join(f"{shown(merchant)}: {error}" for merchant, error in list(failures.items())[:10])
        more = f"; and {len(failures) - 10} more" if len(failures) > 10 else ""
        super().__init__(
            f"{len(failures)} merchant(s) could not be stored (all others of this batch were): {named}{more}"
        )


class DatesNotStored(PartitionMissing):
    """Some dates could not be stored, whoever the merchant; all others were."""

    def __init__(self, failures: Mapping[dt.date, str]) -> None:
        self.failures = failures
        dates = "; ".join(f"{date}: {error}" for date, error in failures.items())
        super().__init__(f"{len(failures)} date(s) could not be stored (all others of this batch were): {dates}")


class RunIncomplete(UsageError):
    """The run cannot be proven because a part of it did not finish."""


class BatchesNotStored(RunIncomplete):
    """Some of a run's batches were not stored."""

    def __init__(self, missing: int, total: int) -> None:
        super().__init__(f"{missing} of {total} batches were not stored, so this run is not proven.")


class NotSealed(UsageError):
    """What was verified could not be sealed: the ledger keeps its verdict, and the next run seals it."""

    heals = True

    def __init__(self, why: str) -> None:
        super().__init__(
            f"What this run has verified is in the ledger, but could not be sealed: {why}. Nothing was lost; the run "
            "can be repeated, and the next one seals what this one left."
        )


class ReadingsGone(RunIncomplete):
    """What a run read of live dates is not there any more to be compared with."""

    def __init__(self, read: int, left: int) -> None:
        super().__init__(
            f"This run read {read} counters of live dates, but only {left} of these readings are left: PostgreSQL "
            "crashed since, or the run ended long ago."
        )


class RowsGone(ReadingsGone):
    """A run is verified once more, what it read is gone, and PostgreSQL holds less than when it was proven."""

    def __init__(self, date: dt.date) -> None:
        UsageError.__init__(
            self,
            f"This run was verified before, and PostgreSQL holds less of {date} than it did then: somebody has lowered "
            "or deleted rows since.",
        )


class UsageMismatch(UsageError):
    """PostgreSQL does not hold what Redis holds."""

    #: Lines of the message; the ledger and the task log have the rest.
    SHOWN: ClassVar[int] = 20

    def __init__(self, lines: Sequence[str], total: int) -> None:
        self.lines = list(lines)
        self.total = total
        named = self.lines[: self.SHOWN]
        more = [f"... and {total - len(named)} more"] if total > len(named) else []
        super().__init__(
            "\n  ".join(
                [
                    f"{total} counter(s) in PostgreSQL do not match Redis; nothing was lowered or deleted.",
                    *named,
                    *more,
                ]
            )
        )


class UsageVanished(UsageMismatch):
    """The same, where counters that the scan found are neither in Redis nor stored: only a new scan forgets them."""
