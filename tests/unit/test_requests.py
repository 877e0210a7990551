"""What `merchant-usage aggregate --due` asks for, before the ledger is asked what is owed."""

from __future__ import annotations

import datetime as dt

import pytest

from merchant_usage.cli.parser import build_parser
from merchant_usage.cli.requests import due_run, run_of
from tests.support import NOW, TODAY, YESTERDAY, settings

WEEK = tuple(TODAY - dt.timedelta(days=days) for days in range(7, 0, -1))


@pytest.mark.parametrize(
    ("time", "dates"),
    [
        pytest.param("00:05", (*WEEK, TODAY), id="the first of a day sweeps"),
        pytest.param("01:05", (YESTERDAY, TODAY), id="yesterday settles"),
        pytest.param("02:05", (TODAY,), id="yesterday is settled, and owed if it is not sealed"),
        pytest.param("23:59", (TODAY,), id="the last minute is today's"),
    ],
)
def test_the_dates_of_a_moment(time: str, dates: tuple[dt.date, ...]) -> None:
    now = dt.datetime.combine(TODAY, dt.time.fromisoformat(time), dt.UTC)
    run = due_run(build_parser().parse_args(["aggregate", "--due"]), now, settings())
    assert run.dates == dates
    assert (run.run_type, run.merchant_ids, run.interval) == ("cli", None, (now, now))


def test_who_asked_is_the_user_of_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "caf\udce9")
    assert run_of([], NOW).requested_by == "caf\\udce9", "as PostgreSQL takes it"
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**30)
    assert run_of([], NOW).requested_by is None, "a container's user need not have a name"
