"""Up to when usage is proven: from what the ledger says of each date."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from merchant_usage.sink.lag import DateProof, oldest_unproven
from tests.support import NOW, TODAY, YESTERDAY, settings

BEFORE = YESTERDAY - dt.timedelta(days=1)
DATES = [BEFORE, YESTERDAY, TODAY]


def at(date: dt.date, hour: int = 0, zone: dt.tzinfo = dt.UTC) -> dt.datetime:
    return dt.datetime.combine(date, dt.time(hour), zone)


SETTLED = at(TODAY, 3)
CLOSED = DateProof(proven_at=SETTLED, closed_at=SETTLED)
LIVE = DateProof(proven_at=at(TODAY, 12))


@pytest.mark.parametrize(
    ("proofs", "expected"),
    [
        pytest.param({}, at(BEFORE), id="nothing is proven: from the first midnight on"),
        pytest.param({BEFORE: CLOSED, YESTERDAY: CLOSED, TODAY: LIVE}, at(TODAY, 12), id="all is: up to the last run"),
        pytest.param({BEFORE: CLOSED, YESTERDAY: CLOSED}, at(TODAY), id="no run of today yet"),
        pytest.param({YESTERDAY: CLOSED, TODAY: LIVE}, at(BEFORE), id="one date was forgotten"),
        pytest.param(
            {BEFORE: CLOSED, YESTERDAY: DateProof(proven_at=at(YESTERDAY, 23)), TODAY: LIVE},
            at(YESTERDAY, 23),
            id="yesterday's last hour is not proven",
        ),
        pytest.param(
            {BEFORE: CLOSED, YESTERDAY: CLOSED._replace(refuted_at=at(TODAY, 9)), TODAY: LIVE},
            SETTLED,
            id="refuted since: proven up to its last proof",
        ),
        pytest.param(
            {BEFORE: CLOSED, YESTERDAY: CLOSED._replace(refuted_at=at(TODAY, 1)), TODAY: LIVE},
            at(TODAY, 12),
            id="refuted before: it was mended",
        ),
        pytest.param(
            {BEFORE: CLOSED, YESTERDAY: DateProof(refuted_at=at(TODAY, 9)), TODAY: LIVE},
            at(YESTERDAY),
            id="refuted, and never proven",
        ),
    ],
)
def test_oldest_unproven(proofs: dict[dt.date, DateProof], expected: dt.datetime) -> None:
    assert oldest_unproven(DATES, proofs, NOW, settings()) == expected


def test_days_begin_in_the_time_zone_of_the_keys() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    assert oldest_unproven(DATES, {}, NOW, settings(timezone=berlin)) == at(BEFORE, zone=berlin)


def test_before_the_go_live_day_there_is_no_lag() -> None:
    assert oldest_unproven([], {}, NOW, settings()) == NOW
