"""A merchant: what it used day by day, one metric at a time, beside what is usual of it; and how a day of it grew."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from psycopg import Connection

from merchant_usage.errors import SettingsError
from merchant_usage.model.curve import Step, by_hours
from merchant_usage.model.keys import CounterKey, parse_key, why_no_metric_type
from merchant_usage.model.usual import WEEKS, Unlike, compare, usual_of
from merchant_usage.page import bars, curve
from merchant_usage.page.answers import NotThere
from merchant_usage.page.asked import optional_date
from merchant_usage.page.bars import Bars
from merchant_usage.page.curve import Curve
from merchant_usage.page.merchants import newest_of
from merchant_usage.settings import Settings
from merchant_usage.sink import ledger
from merchant_usage.sink.queries import query
from merchant_usage.text import shown

DAYS: Final = 35
MOST_DAYS: Final = 366
#: Rows that a page adds up: a year of fifty metrics. And those that it names.
MOST_ROWS: Final = 20_000
MOST_METRICS: Final = 100
MOST_NAMED: Final = 5
MOST_STEPS: Final = 1_000
WEEK: Final = dt.timedelta(days=7)


#: The first day and the last.
Days: TypeAlias = tuple[dt.date, dt.date]


class Asked(NamedTuple):
    """Whose usage, of which days; which metric of it, and which day hour by hour. None: the page chooses."""

    merchant_id: str
    from_date: dt.date
    to_date: dt.date
    metric_type: str | None = None
    date: dt.date | None = None

    @property
    def dates(self) -> list[dt.date]:
        """Its days, in their order."""
        return [self.from_date + dt.timedelta(days=n) for n in range((self.to_date - self.from_date).days + 1)]


def around(date: dt.date, today: dt.date) -> Days:
    """Days that show one beside those before it, and some after it."""
    last = min(today, date + WEEK) if date < today else date
    return last - dt.timedelta(days=DAYS - 1), last


def _others(asked: Asked, today: dt.date) -> list[tuple[str, Days]]:
    number = dt.timedelta(days=len(asked.dates))
    day = dt.timedelta(days=1)
    others = [("Earlier", (asked.from_date - number, asked.from_date - day))]
    if asked.to_date < today:
        others.append(("Later", (asked.to_date + day, asked.to_date + number)))
    others.append(("The last five weeks", (today - dt.timedelta(days=DAYS - 1), today)))
    others.append(("The last year", (today - dt.timedelta(days=MOST_DAYS - 1), today)))
    return others


class Metric(NamedTuple):
    """A metric: what was counted of it, on how many days, and how many days of it are unlike the usual."""

    metric_type: str
    total: int
    days: int
    unlike: int


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the metric that is shown. `value` None: nothing is stored; `is_over`: it can be compared."""

    date: dt.date
    value: int | None
    carried: int
    usual: int | None
    unlike: Unlike | None
    is_over: bool
    is_sealed: bool
    is_corrected: bool


class Spike(NamedTuple):
    """A day of any metric that is unlike the usual."""

    date: dt.date
    metric_type: str
    value: int | None
    unlike: Unlike


class Correction(NamedTuple):
    """What changed of a date after it was sealed, over all metrics."""

    date: dt.date
    version: int
    corrected_at: dt.datetime
    reason: str
    before: int
    after: int
    difference: int


class Letter(NamedTuple):
    """A counter that could not be taken. `metric_type` None: its key does not say."""

    metric_type: str | None
    reason: str
    detail: str
    date: dt.date
    since: dt.datetime
    attempts: int


@dataclass(frozen=True, slots=True)
class Merchant:
    """What the page of a merchant shows.

    Attributes:
        newest: the newest date of which anything is stored; None: there is none.
        metric_type: the one that is shown; None: nothing is stored of these days.
        metric_count: how many metrics there are; `metrics` names the largest.
        spikes: days of any metric that are unlike the usual, the farthest from it first; `spike_count` counts all.
        others: other days that may be of interest, and what they are called.
        hours_of: which day `hours` and `curve` are of.
    """

    asked: Asked
    newest: dt.date | None
    metric_type: str | None
    metrics: list[Metric]
    metric_count: int
    days: list[Day]
    bars: Bars
    spikes: list[Spike]
    spike_count: int
    corrections: list[Correction]
    letters: list[Letter]
    others: list[tuple[str, Days]]
    hours_of: dt.date | None
    hours: list[Step]
    curve: Curve | None
    timezone: str


def metric_of(given: Mapping[str, str]) -> str | None:
    """The metric that an address asks for, if it does.

    Raises:
        SettingsError: it can be none.
    """
    metric = given.get("metric") or None
    if metric is not None and (problem := why_no_metric_type(metric)):
        raise SettingsError(f"metric={shown(metric)!r} {problem}; it takes a metric type.")
    return metric


def asked_of(merchant_id: str, given: Mapping[str, str], today: dt.date) -> Asked:
    """What an address asks for: the last five weeks, unless it says otherwise.

    Raises:
        SettingsError: a date is none, or the days are in the wrong order or too many.
    """
    last = optional_date("to", given.get("to")) or today
    first = optional_date("from", given.get("from")) or last - dt.timedelta(days=DAYS - 1)
    if first > last:
        raise SettingsError(f"from={first} is after to={last}.")
    if (last - first).days >= MOST_DAYS:
        raise SettingsError(f"from={first} to={last} are more than {MOST_DAYS} days; choose fewer.")
    return Asked(merchant_id, first, last, metric_of(given), optional_date("date", given.get("date")))


#: What is stored of each metric: values, and what of them is carried, by date.
_Rows: TypeAlias = Mapping[str, Mapping[dt.date, tuple[int, int]]]


def read(conn: Connection, asked: Asked, today: dt.date, settings: Settings) -> Merchant:
    """Look at a merchant.

    Args:
        today: what is compared with earlier weeks is over, so of before it.

    Raises:
        NotThere: nothing is known of it.
        SettingsError: there is more than can be added up for a page.
    """
    rows = _rows(conn, asked)
    letters = _letters(conn, asked, settings)
    newest = newest_of(conn, [asked.merchant_id]).get(asked.merchant_id)
    if newest is None and not letters:
        raise NotThere(f"Nothing is stored of {shown(asked.merchant_id)}.")
    of_range = {
        metric: {date: value for date, value in days.items() if date >= asked.from_date}
        for metric, days in rows.items()
    }
    spikes = _spikes(rows, asked, today)
    metrics = sorted(
        (
            Metric(
                metric,
                sum(value for value, _ in days.values()),
                len(days),
                sum(each.metric_type == metric for each in spikes),
            )
            for metric, days in of_range.items()
        ),
        key=lambda each: (-each.total, each.metric_type),
    )
    chosen = asked.metric_type or (metrics[0].metric_type if metrics else None)
    corrections = _corrections(conn, asked)
    days = _days(conn, asked, rows.get(chosen or "", {}), today, {each.date for each in corrections})
    hours_of = asked.date or max((day.date for day in days if day.value is not None), default=None)
    steps = steps_of(conn, asked.merchant_id, hours_of, chosen)
    return Merchant(
        asked,
        newest,
        chosen,
        metrics[:MOST_METRICS],
        len(metrics),
        days,
        bars.draw([day.value for day in days]),
        spikes[:MOST_NAMED],
        len(spikes),
        corrections,
        letters,
        _others(asked, today),
        hours_of,
        by_hours(steps, settings.timezone),
        curve.draw(steps, settings.timezone),
        settings.timezone.key,
    )


def _parameters(asked: Asked, limit: int) -> dict[str, object]:
    return {
        "merchant_id": asked.merchant_id,
        "from_date": asked.from_date,
        "to_date": asked.to_date,
        "metric_type": None,
        "limit": limit,
    }


def _rows(conn: Connection, asked: Asked) -> _Rows:
    """What is stored of the days, and of the weeks before that they are compared with."""
    parameters = _parameters(asked, MOST_ROWS + 1) | {"from_date": asked.from_date - WEEKS * WEEK}
    found = conn.execute(query("merchant_days"), parameters).fetchall()
    if len(found) > MOST_ROWS and asked.metric_type is not None:
        found = conn.execute(query("merchant_days"), parameters | {"metric_type": asked.metric_type}).fetchall()
    if len(found) > MOST_ROWS:
        raise SettingsError(
            f"{shown(asked.merchant_id)} has more than {MOST_ROWS:,} counters from {asked.from_date} to "
            f"{asked.to_date} and in the four weeks before; choose fewer days, or one metric."
        )
    rows: dict[str, dict[dt.date, tuple[int, int]]] = defaultdict(dict)
    for date, metric, value, carried in found:
        rows[metric][date] = (value, carried)
    return rows


def _usual(days: Mapping[dt.date, tuple[int, int]], date: dt.date) -> int | None:
    return usual_of(
        days[before][0] if before in days else None for before in (date - n * WEEK for n in range(1, WEEKS + 1))
    )


def _unlike(days: Mapping[dt.date, tuple[int, int]], date: dt.date, today: dt.date) -> Unlike | None:
    """How a day that is over is unlike those before."""
    value = days[date][0] if date in days else None
    return compare(value, _usual(days, date)) if date < today else None


def _spikes(rows: _Rows, asked: Asked, today: dt.date) -> list[Spike]:
    found = [
        Spike(date, metric, days[date][0] if date in days else None, unlike)
        for metric, days in rows.items()
        for date in asked.dates
        if (unlike := _unlike(days, date, today))
    ]
    return sorted(found, key=lambda each: (-each.unlike.share, -each.date.toordinal(), each.metric_type))


def _days(
    conn: Connection, asked: Asked, rows: Mapping[dt.date, tuple[int, int]], today: dt.date, corrected: set[dt.date]
) -> list[Day]:
    sealed = ledger.sealed_dates(conn, asked.dates)
    days = []
    for date in asked.dates:
        value, carried = rows.get(date, (None, 0))
        usual, unlike = _usual(rows, date), _unlike(rows, date, today)
        days.append(Day(date, value, carried, usual, unlike, date < today, date in sealed, date in corrected))
    return days


def _corrections(conn: Connection, asked: Asked) -> list[Correction]:
    found = conn.execute(query("merchant_corrections"), _parameters(asked, MOST_METRICS))
    return [Correction(*row[:4], *map(int, row[4:])) for row in found]


def _letters(conn: Connection, asked: Asked, settings: Settings) -> list[Letter]:
    start = f"{settings.key_prefix}:{asked.merchant_id}:".encode()
    found = conn.execute(query("merchant_letters"), _parameters(asked, MOST_METRICS) | {"start": start})
    letters = []
    for raw, *others in found:
        key = parse_key(raw, settings.key_prefix)
        letters.append(Letter(key.metric_type if isinstance(key, CounterKey) else None, *others))
    return letters


def steps_of(conn: Connection, merchant_id: str, date: dt.date | None, metric_type: str | None) -> list[Step]:
    """How a counter grew, by readings; nothing where no date or metric is known."""
    if date is None or metric_type is None:
        return []
    parameters = {"merchant_id": merchant_id, "date": date, "metric_type": metric_type, "limit": MOST_STEPS}
    return [Step(*row) for row in conn.execute(query("merchant_hours"), parameters)]
