"""How PostgreSQL goes about what the page asks of merchants: by the primary key, whatever else there is.

On both versions that tests run on, with statistics and before there are any: a table that was filled just now.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, Final

import psycopg
import pytest
from psycopg import Connection

from local.servers.programs import chosen_version
from merchant_usage.connections import prepare
from merchant_usage.page import explained, merchant, merchants
from merchant_usage.page.merchant import Asked
from merchant_usage.sink import schema
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import set_limits
from merchant_usage.steps.story import Asked as Number
from tests.integration.test_page_plans import Read, read_by
from tests.support import TODAY, YESTERDAY, settings

MERCHANTS: Final = 1_000
METRICS: Final = 4
DAYS: Final = 63
#: Days whose hours are known, and readings of each.
CURVES: Final = 7
READINGS: Final = 6
RUNS_A_DAY: Final = 30
LETTERS: Final = 20_000
#: The merchant that is looked at.
ONE: Final = "m00500"

FILL: Final = (
    # As tasks at once leave it: in no order.
    """
    INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value, updated_at)
    SELECT to_char(n, '"m"FM00000'), %(today)s::date - d, 'metric ' || m, n, (%(today)s::date - d + 1)::timestamptz
    FROM generate_series(1, %(merchants)s) n, generate_series(0, %(days)s - 1) d, generate_series(1, %(metrics)s) m
    ORDER BY d, n * 7919 %% %(merchants)s, m
    """,
    """
    INSERT INTO usage_hourly_history (merchant_id, date, metric_type, metric_value, held_since, correction)
    SELECT to_char(n, '"m"FM00000'), %(today)s::date - d, 'metric ' || m, r,
           (%(today)s::date - d)::timestamptz + r * interval '3 hours', false
    FROM generate_series(1, %(merchants)s) n, generate_series(0, %(curves)s - 1) d, generate_series(1, %(metrics)s) m,
         generate_series(1, %(readings)s) r
    """,
    """
    INSERT INTO usage_run
        (run_id, usage_date, run_type, settled, started_at, finished_at, redis_total, postgres_total, verdict)
    SELECT 'run ' || d || ' ' || r, %(today)s::date - d, 'scheduled', r > 20, at, at, 1000, 1000, 'verified'
    FROM generate_series(0, %(days)s - 1) d, generate_series(1, %(runs)s) r,
         LATERAL (SELECT (%(today)s::date - d)::timestamptz + r * interval '1 hour' AS at) AS began
    """,
    """
    INSERT INTO usage_correction (merchant_id, usage_date, version, total_before, total_after)
    SELECT to_char(n, '"m"FM00000'), %(today)s::date - d, 1, 1, n
    FROM generate_series(1, %(merchants)s) n, generate_series(1, 9) d
    """,
    """
    INSERT INTO usage_dead_letter (redis_key, reason, detail, usage_date, resolved_at)
    SELECT convert_to(format('usage:%%s:%%s:x', to_char(n %% 1000, '"m"FM00000'), %(today)s::date - n %% 300), 'UTF8'),
           'negative', 'x', %(today)s::date - n %% 300, CASE WHEN n %% 2 = 0 THEN now() END
    FROM generate_series(1, %(letters)s) n
    ON CONFLICT DO NOTHING
    """,
)


# Where the tests run on PostgreSQL 15, both names mean the same server.
@pytest.fixture(scope="module", params=["postgres"] if chosen_version() == 15 else ["postgres", "postgres15"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module", params=["known", "unknown"])
def filled(request: pytest.FixtureRequest, server: Any) -> Iterator[Connection]:
    """A database in which there is much, and PostgreSQL knows that or does not."""
    parameters = {
        "today": TODAY,
        "merchants": MERCHANTS,
        "metrics": METRICS,
        "days": DAYS,
        "curves": CURVES,
        "readings": READINGS,
        "runs": RUNS_A_DAY,
        "letters": LETTERS,
    }
    name = f"page_merchant_plans_{request.param}"
    with psycopg.connect(server.create_database(name), autocommit=True) as conn:
        schema.migrate(prepare(conn))
        for statement in FILL:
            conn.execute(statement.encode(), parameters)
        if request.param == "known":
            conn.execute("VACUUM ANALYZE")
        yield conn


def of_all(seen: Read, table: str) -> int:
    """The rows of a table and of its partitions."""
    return sum(rows for name, rows in seen.rows.items() if name.startswith(table))


def of_days(**others: object) -> dict[str, object]:
    whole: dict[str, object] = {"from_date": TODAY - dt.timedelta(days=62), "to_date": TODAY, "metric_type": None}
    return {"merchant_id": ONE, **whole, "limit": merchant.MOST_ROWS + 1, **others}


@pytest.mark.parametrize(
    ("begins", "after", "found"),
    [("m00", "m00", 52), ("m00", "m00400", 52), ("m0050", "m0050", 10), ("", "", 52), ("x", "x", 0)],
)
def test_the_search_takes_a_step_a_merchant(filled: Connection, begins: str, after: str, found: int) -> None:
    parameters = {"begins": begins, "after": after, "in_bytes": True, "found": 52, "looks": merchants.LOOKS}
    seen = read_by(filled, "merchants_search", parameters)
    assert found <= of_all(seen, "merchant_usage") <= found + 2
    assert "Seq Scan" not in seen.nodes


def test_in_another_order_it_passes_so_many_and_no_more(filled: Connection) -> None:
    parameters = {"begins": "x", "after": "", "in_bytes": False, "found": 52, "looks": 300}
    assert of_all(read_by(filled, "merchants_search", parameters), "merchant_usage") == 300


def test_the_newest_date_is_the_end_of_an_index(filled: Connection) -> None:
    some = [f"m{n:05}" for n in range(1, 51)]
    assert of_all(read_by(filled, "merchants_newest", {"merchant_ids": some}), "merchant_usage") <= len(some)


@pytest.mark.parametrize("name", ["merchant_days", "merchant_count"])
def test_days_of_a_merchant_are_a_range_of_the_key(filled: Connection, name: str) -> None:
    assert of_all(read_by(filled, name, of_days()), "merchant_usage") == DAYS * METRICS
    last_week = of_days(from_date=TODAY - dt.timedelta(days=6))
    assert of_all(read_by(filled, name, last_week), "merchant_usage") == 7 * METRICS


def test_a_curve_reads_its_points_alone(filled: Connection) -> None:
    parameters = {"merchant_id": ONE, "date": YESTERDAY, "metric_type": "metric 1", "limit": merchant.MOST_STEPS}
    seen = read_by(filled, "merchant_hours", parameters)
    assert of_all(seen, "merchant_usage") == 1
    assert of_all(seen, "usage_hourly_history") == READINGS


def test_corrections_are_a_range_of_their_key(filled: Connection) -> None:
    assert read_by(filled, "merchant_corrections", of_days(limit=100)).of("usage_correction") <= 9


def test_letters_are_looked_for_among_those_of_the_days(filled: Connection) -> None:
    start = {"start": f"usage:{ONE}:".encode()}
    of_month = of_days(from_date=TODAY - dt.timedelta(days=29), limit=100) | start
    # Open ones of a tenth of the dates.
    assert read_by(filled, "merchant_letters", of_month).of("usage_dead_letter") <= LETTERS // 10


@pytest.mark.parametrize("metric", [None, "metric 1"])
def test_the_story_reads_nothing_of_other_merchants_and_days(filled: Connection, metric: str | None) -> None:
    asked = {"merchant_id": ONE, "date": YESTERDAY, "metric_type": metric, "first": 0, "limit": explained.PAGE + 1}
    seen = read_by(filled, "select_explained", asked)
    # Counters for the curve, and three times to know that there is any: for runs, decisions and seals.
    assert 0 < of_all(seen, "merchant_usage") <= 4 * METRICS
    assert 0 < of_all(seen, "usage_hourly_history") <= METRICS * READINGS
    # For its curve the time zone of each counter's day, for the runs themselves, and for the prefix of keys.
    assert seen.of("usage_run") <= (METRICS + 2) * RUNS_A_DAY
    stored = {"merchant_id": ONE, "date": YESTERDAY, "metric_type": metric}
    assert of_all(read_by(filled, "select_stored", stored), "merchant_usage") <= METRICS


def test_the_pages_are_made_of_these(filled: Connection) -> None:
    """They are read whole within the limits of the page, and show what there is."""
    with filled.transaction():
        filled.execute(query("set_snapshot"))
        set_limits(filled, {"lock_timeout": "5s", "statement_timeout": "5s"})
        found = merchants.read(filled, "m005", "")
        assert len(found.others) == merchants.PAGE
        year = Asked(ONE, TODAY - dt.timedelta(days=365), TODAY)
        shown = merchant.read(filled, year, TODAY, settings())
        assert [metric.days for metric in shown.metrics] == [DAYS] * METRICS
        assert len(shown.hours) == READINGS + 1
        story = explained.read(filled, Number(ONE, YESTERDAY), TODAY, settings())
        assert len(story.events) > RUNS_A_DAY
