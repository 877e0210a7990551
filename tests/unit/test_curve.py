"""Steps of a curve put together by hours, as clocks of the place show them."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from merchant_usage.model.curve import Step, by_hours

BERLIN = ZoneInfo("Europe/Berlin")
DELAY = dt.timedelta(seconds=20)


def steps_of(date: dt.date, zone: ZoneInfo, every: dt.timedelta) -> list[Step]:
    """A day that is read again and again, shortly after each interval, and grows by one each time."""
    begin, end = (dt.datetime.combine(date + dt.timedelta(days=n), dt.time(), zone).astimezone(dt.UTC) for n in (0, 1))
    readings = [begin + every * n + DELAY for n in range(1, (end - begin) // every + 1)]
    return [Step(date, "queries", a, b, 1, correction=False) for a, b in pairwise([begin, *readings])]


@pytest.mark.parametrize("minutes", [1, 5, 20, 60])
@pytest.mark.parametrize(
    ("zone", "date", "hours"),
    [
        (ZoneInfo("UTC"), dt.date(2026, 11, 24), 24),
        (BERLIN, dt.date(2026, 3, 29), 23),
        (BERLIN, dt.date(2026, 10, 25), 25),
        (ZoneInfo("Asia/Kathmandu"), dt.date(2026, 11, 24), 24),
        (ZoneInfo("America/New_York"), dt.date(2026, 11, 1), 25),
    ],
    ids=str,
)
def test_a_day_has_as_many_hours_as_clocks_show(zone: ZoneInfo, date: dt.date, hours: int, minutes: int) -> None:
    steps = steps_of(date, zone, dt.timedelta(minutes=minutes))
    found = by_hours(steps, zone)
    assert len(found) == hours
    assert {step.value for step in found} == {60 // minutes}
    assert [a.to_at for a in found[:-1]] == [b.from_at for b in found[1:]]


def test_an_outage_is_one_step() -> None:
    steps = steps_of(dt.date(2026, 11, 24), BERLIN, dt.timedelta(hours=1))
    gap = steps[9]._replace(to_at=steps[13].to_at, value=5)
    found = by_hours([*steps[:9], gap, *steps[14:]], BERLIN)
    assert found == [*steps[:9], gap, *steps[14:]]


def test_metrics_dates_and_corrections_stay_apart() -> None:
    step = steps_of(dt.date(2026, 11, 24), BERLIN, dt.timedelta(minutes=5))[0]
    others = [
        step._replace(metric_type="searches"),
        step._replace(date=dt.date(2026, 11, 25)),
        step._replace(correction=True),
    ]
    for other in others:
        assert by_hours([step, other], BERLIN) == [step, other]
        assert by_hours([other, step], BERLIN) == [other, step]
    assert by_hours([others[2], others[2]], BERLIN) == [others[2], others[2]]
