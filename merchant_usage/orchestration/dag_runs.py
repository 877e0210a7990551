"""What Airflow knows of a run, and which dates that asks for: for the tasks, and for what is said of the run."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from merchant_usage.model.dates import dates_of_interval, dates_of_range
from merchant_usage.model.run import BACKFILL, SCHEDULED
from merchant_usage.orchestration.compat import asked_at, plain
from merchant_usage.orchestration.remedies import rerun_command
from merchant_usage.settings import Settings

#: A callback comes this much after its moment at most, if all is well.
SLACK_TIME: Final = dt.timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class DagRunFacts:
    """What all versions of Airflow know of a run. `run_id` is None for one that has not begun."""

    run_id: str | None
    run_type: str
    #: Its Params, or what of them was given.
    conf: Mapping[str, Any]
    interval_start: dt.datetime | None
    interval_end: dt.datetime | None
    state: str = ""
    asked_at: dt.datetime | None = None

    @classmethod
    def of(cls, dag_run: Any, conf: Mapping[str, Any] | None = None) -> DagRunFacts:
        """Of Airflow's object; of None, what little is known.

        Args:
            conf: its Params, if they are known; else what it was given of them.
        """
        return cls(
            getattr(dag_run, "run_id", None),
            plain(getattr(dag_run, "run_type", "")),
            (getattr(dag_run, "conf", None) or {}) if conf is None else conf,
            getattr(dag_run, "data_interval_start", None),
            getattr(dag_run, "data_interval_end", None),
            plain(getattr(dag_run, "state", "")),
            asked_at(dag_run),
        )

    @classmethod
    def from_api(cls, dag_run: Mapping[str, Any]) -> DagRunFacts:
        """Of a run as the API shows it."""
        return cls(
            dag_run["dag_run_id"] if "dag_run_id" in dag_run else dag_run["run_id"],
            str(dag_run["run_type"]),
            dag_run.get("conf") or {},
            _moment(dag_run.get("data_interval_start")),
            _moment(dag_run.get("data_interval_end")),
            str(dag_run["state"]),
            _moment(dag_run.get("run_after")),
        )

    def dates(self, settings: Settings, now: dt.datetime) -> tuple[dt.date, ...]:
        """The dates that its Params name; else those of its data interval; else the day before it was asked for.

        Raises:
            SettingsError: a Param that cannot be used.
        """
        from_date, to_date = self.conf.get("from_date") or None, self.conf.get("to_date") or None
        if self.run_type in {SCHEDULED, BACKFILL} and self.interval_start and not (from_date or to_date):
            return tuple(dates_of_interval(self.interval_start, now, settings))
        return tuple(dates_of_range(from_date, to_date, now, settings, asked_at=self.asked_at))

    @property
    def own_interval(self) -> tuple[dt.datetime, dt.datetime] | None:
        """The data interval of a scheduled run, unless its Params name dates or merchants."""
        named = any(self.conf.get(name) for name in ("from_date", "to_date", "merchant_ids"))
        if self.run_type != SCHEDULED or self.interval_start is None or self.interval_end is None or named:
            return None
        return self.interval_start, self.interval_end

    def rerun_command(self, dates: Sequence[dt.date]) -> str | None:
        """What to type to do the same again for dates: for its merchants only, and dry if it was."""
        merchants, dry = self.conf.get("merchant_ids"), {"dry_run": True} if self.conf.get("dry_run") is True else {}
        if not merchants or not isinstance(merchants, list) or not all(isinstance(each, str) for each in merchants):
            return rerun_command(dates, **dry)
        return rerun_command(dates, merchant_ids=merchants, **dry)

    def is_old(self, settings: Settings, now: dt.datetime) -> bool:
        """Whether it catches up with the past, so that nobody waits for it."""
        if self.run_type == BACKFILL:
            return True
        if self.run_type != SCHEDULED or self.interval_end is None:
            return False
        deadline = dt.timedelta(seconds=settings.deadline_seconds)
        return now - self.interval_end > settings.interval + deadline + SLACK_TIME


def _moment(value: Any) -> dt.datetime | None:
    return dt.datetime.fromisoformat(value) if isinstance(value, str) else value
