"""Every error a person may meet, each carrying its own sentence: what, which, what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

MIGRATE_COMMAND = "python -m merchant_usage migrate"


class UsageError(Exception):
    """Base of all errors of this package. Its text is the whole message, safe to log (never a password)."""

    #: Whether trying again later can help. Airflow retries only those that can heal.
    heals: ClassVar[bool] = False


class SettingsError(UsageError):
    """A setting, a parameter or a connection is missing or wrong."""


class RedisUnavailable(UsageError):
    """Redis cannot be reached, or went away half-way."""

    heals = True


class ClusterChanged(RedisUnavailable):
    """A Redis Cluster moved slots or failed over while it was read, so that what was read may not be all."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"The Redis Cluster is being resharded or failed over: {what}. Keys may have been missed, so this "
            "reading does not count. Nothing was lost; the run can be repeated once the cluster is at rest."
        )


class RedisRefused(UsageError):
    """Redis answers, but refuses what is asked: wrong password, missing permission, a replica."""


class PostgresUnavailable(UsageError):
    """PostgreSQL cannot be reached, went away half-way, or broke off for a reason that passes."""

    heals = True


class PostgresRefused(UsageError):
    """PostgreSQL answers, but refuses what is asked: wrong password, wrong database, no permission."""


class SchemaError(UsageError):
    """The schema is missing, or the tables are not what this package can write to."""


class UpsertFailed(UsageError):
    """Some merchants of a batch could not be stored; all the others were."""

    heals = True

    def __init__(self, failures: dict[str, str]) -> None:
        self.failures = failures
        told = "; ".join(f"{merchant}: {error}" for merchant, error in list(failures.items())[:10])
        more = f"; and {len(failures) - 10} more" if len(failures) > 10 else ""
        super().__init__(
            f"{len(failures)} merchant(s) could not be stored (all others of this batch were): {told}{more}"
        )


class RunIncomplete(UsageError):
    """The run cannot be proven because a part of it did not finish."""


class UsageMismatch(UsageError):
    """PostgreSQL does not hold what Redis holds."""

    #: Lines of the message; the ledger and the task log have the rest.
    SHOWN: ClassVar[int] = 20

    def __init__(self, lines: Sequence[str], total: int) -> None:
        self.lines = list(lines)
        self.total = total
        shown = self.lines[: self.SHOWN]
        more = [f"... and {total - len(shown)} more"] if total > len(shown) else []
        super().__init__(
            "\n  ".join(
                [
                    f"{total} counter(s) in PostgreSQL do not match Redis; nothing was lowered or deleted.",
                    *shown,
                    *more,
                    "To mend: run it again (in Airflow: clear upsert_merchant_usage with its downstream tasks).",
                ]
            )
        )
