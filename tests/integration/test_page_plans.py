"""How PostgreSQL goes about what the usage page asks: never through all of a date, of a merchant or of the ledger.

On both versions that tests run on. A year of dates with a run each half hour, days of 100 000 counters, and a flood of
dead letters: what a query reads is bounded by what it shows.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import psycopg
import pytest
from psycopg import Connection

from local.servers.programs import chosen_version
from merchant_usage.connections import prepare
from merchant_usage.page import changes, date, decisions, letters, overview
from merchant_usage.sink import schema
from merchant_usage.sink.queries import query
from merchant_usage.sink.transactions import set_limits
from tests.support import NOW, TODAY, YESTERDAY, settings

MERCHANTS: Final = 20_000
METRICS: Final = 5
DAYS: Final = 400
RUNS_A_DAY: Final = 48
LETTERS: Final = 50_000
WEEK: Final = dt.timedelta(weeks=1)

FILL: Final = (
    # As tasks at once leave it: in no order.
    """
    INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value)
    SELECT to_char(n, 'FM00000'), d, m::text, n
    FROM unnest(%(dates)s::date[]) d, generate_series(0, %(merchants)s - 1) n, generate_series(0, %(metrics)s - 1) m
    ORDER BY d, n * 7919 %% %(merchants)s, m
    """,
    """
    INSERT INTO usage_run
        (run_id, usage_date, run_type, settled, started_at, finished_at, redis_total, postgres_total, verdict)
    SELECT 'run ' || d || ' ' || r, %(today)s::date - d, 'scheduled', r > 40, at, at, 1000, 1000, 'verified'
    FROM generate_series(0, %(days)s - 1) d, generate_series(1, %(runs)s) r,
         LATERAL (SELECT (%(today)s::date - d)::timestamptz + r * interval '40 minutes' AS at) AS began
    ORDER BY at
    """,
    """
    INSERT INTO usage_seal (seal_number, usage_date, version, sealed_at, run_id, counters, total, root, chain, reason)
    SELECT row_number() OVER (ORDER BY d), d, 1, now(), 'run', 1, 1, '', '', 'first'
    FROM generate_series(%(today)s::date - %(days)s + 1, %(today)s::date - 1, interval '1 day') d
    """,
    """
    INSERT INTO usage_seal_page (usage_date, version, page, merchant_ids, totals, leaves)
    SELECT d, 1, n / 1000, array_agg(to_char(n, 'FM00000') ORDER BY n), array_agg(n::numeric ORDER BY n), ''
    FROM unnest(%(dates)s::date[]) d, generate_series(0, %(merchants)s - 1) n
    GROUP BY d, n / 1000
    """,
    # Other dates, whose merchants need not be.
    """
    INSERT INTO usage_seal_page (usage_date, version, page, merchant_ids, totals, leaves)
    SELECT %(today)s::date - d, 1, n, '{}', '{}', '' FROM generate_series(10, %(days)s - 1) d, generate_series(0, 19) n
    """,
    # A flood of one date, and a few of each other.
    """
    INSERT INTO usage_dead_letter (redis_key, reason, detail, usage_date, redis_value, postgres_value, resolved_at)
    SELECT convert_to('usage:m' || n || ':x', 'UTF8'),
           CASE WHEN n %% 2 = 0 THEN 'counter_regressed' ELSE 'negative' END, 'x',
           CASE WHEN n %% 10 < 8 THEN %(yesterday)s::date ELSE %(yesterday)s::date - n %% 300 END, 1, 2,
           CASE WHEN n / 300 %% 2 = 0 THEN now() END
    FROM generate_series(1, %(letters)s) n
    """,
    """
    INSERT INTO usage_decision (redis_key, usage_date, decision, decided_by, value_before, value_after)
    SELECT '', %(yesterday)s::date - n %% 300, 'keep', 'anna', 1, 1 FROM generate_series(1, %(letters)s) n
    """,
    """
    INSERT INTO usage_correction (merchant_id, usage_date, version, total_before, total_after)
    SELECT to_char(n, 'FM00000'), %(yesterday)s::date - n %% 300, 1, 1, n FROM generate_series(1, %(letters)s) n
    """,
)


# Where the tests run on PostgreSQL 15, both names mean the same server.
@pytest.fixture(scope="module", params=["postgres"] if chosen_version() == 15 else ["postgres", "postgres15"])
def filled(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A database in which there is much."""
    server: Any = request.getfixturevalue(request.param)
    parameters = {
        "dates": [YESTERDAY, YESTERDAY - WEEK],
        "merchants": MERCHANTS,
        "metrics": METRICS,
        "today": TODAY,
        "yesterday": YESTERDAY,
        "days": DAYS,
        "runs": RUNS_A_DAY,
        "letters": LETTERS,
    }
    with psycopg.connect(server.create_database("page_plans"), autocommit=True) as conn:
        schema.migrate(prepare(conn))
        for statement in FILL:
            conn.execute(statement.encode(), parameters)
        conn.execute("VACUUM ANALYZE")
        yield conn


class Read(NamedTuple):
    """What a query looked at: rows of each table, of those that it showed and those that it passed over."""

    rows: dict[str, int]
    nodes: list[str]

    def of(self, table: str) -> int:
        """The rows of a table."""
        return self.rows.get(table, 0)


def read_by(conn: Connection, name: str, parameters: dict[str, Any]) -> Read:
    """Run a query, and say what it looked at."""
    with conn.transaction(force_rollback=True):
        set_limits(conn, {"lock_timeout": "10s", "statement_timeout": "60s"})
        explain = b"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) " + query(name)
        row = conn.execute(explain, parameters, prepare=False).fetchone()
    assert row is not None
    found: dict[str, int] = {}
    nodes = list(_nodes(row[0][0]["Plan"]))
    for node in nodes:
        if table := node.get("Relation Name"):
            passed_over = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
            looked_at = sum(node.get(figure, 0) for figure in passed_over) * node["Actual Loops"]
            found[table] = found.get(table, 0) + round(looked_at)
    return Read(found, [node["Node Type"] for node in nodes])


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


def test_each_date_of_the_overview_is_the_end_of_an_index(filled: Connection) -> None:
    dates = [TODAY - dt.timedelta(days=number) for number in range(366)]
    seen = read_by(filled, "overview_dates", {"dates": dates})
    # The newest run, and the newest that came to a verdict; a few more where they began at the same moment.
    assert seen.of("usage_run") <= 6 * len(dates)


def test_the_oldest_date_is_the_beginning_of_an_index(filled: Connection) -> None:
    assert read_by(filled, "overview_first_date", {}).of("usage_run") <= 1


def test_dead_letters_are_counted_up_to_a_bound(filled: Connection) -> None:
    assert read_by(filled, "overview_letters", {"limit": 1000}).of("usage_dead_letter") <= 1000


@pytest.mark.parametrize("reason", ["negative", None])
def test_open_letters_are_read_a_page_at_a_time(filled: Connection, reason: str | None) -> None:
    parameters = {"reason": reason, "after": LETTERS // 2, "limit": letters.LETTERS + 1}
    seen = read_by(filled, "overview_open_letters", parameters)
    assert seen.of("usage_dead_letter") <= 4 * letters.LETTERS


@pytest.mark.parametrize("day", [YESTERDAY, YESTERDAY - 8 * dt.timedelta(days=1)], ids=["flood", "few"])
@pytest.mark.parametrize("waiting", [True, False])
def test_a_flood_of_letters_is_in_nobodys_way(filled: Connection, waiting: bool, day: dt.date) -> None:
    parameters = {"usage_date": day, "waiting": waiting, "after": 0, "limit": letters.LETTERS + 1}
    seen = read_by(filled, "date_letters", parameters)
    assert 0 < seen.of("usage_dead_letter") <= 10 * letters.LETTERS


@pytest.mark.parametrize(
    "day", [YESTERDAY, YESTERDAY - 8 * dt.timedelta(days=1), None], ids=["flood", "few", "all dates"]
)
def test_what_waits_is_read_a_page_at_a_time(filled: Connection, day: dt.date | None) -> None:
    parameters = {"usage_date": day, "after": 0, "limit": decisions.SHOWN + 1}
    seen = read_by(filled, "decisions_waiting", parameters)
    assert 0 < seen.of("usage_dead_letter") <= 10 * decisions.SHOWN


@pytest.mark.parametrize("behind", [None, f"run 1 {RUNS_A_DAY - 5}"])
def test_runs_of_a_date_are_read_a_page_at_a_time(filled: Connection, behind: str | None) -> None:
    parameters = {"usage_date": YESTERDAY, "after_run": behind, "after_attempt": 1, "limit": date.RUNS + 1}
    assert 0 < read_by(filled, "date_runs", parameters).of("usage_run") <= 2 * RUNS_A_DAY
    assert read_by(filled, "date_whole_run", {"usage_date": YESTERDAY}).of("usage_run") <= 3


@pytest.mark.parametrize(("name", "table"), [("date_seals", "usage_seal"), ("date_corrections", "usage_correction")])
def test_of_a_date_nothing_else_is_read(filled: Connection, name: str, table: str) -> None:
    seen = read_by(filled, name, {"usage_date": YESTERDAY, "limit": date.NEWEST})
    assert 0 < seen.of(table) <= LETTERS // 300 + 1
    assert seen.of("usage_seal") <= DAYS


def test_the_largest_merchants_are_found_beside_the_seal(filled: Connection) -> None:
    parameters = {"usage_date": YESTERDAY, "version": 1, "limit": changes.LARGEST}
    seen = read_by(filled, "date_largest", parameters)
    assert seen.of("usage_seal_page") == MERCHANTS // 1000
    assert not seen.of("merchant_usage")


def test_the_totals_of_a_date_are_read_beside_its_newest_seal(filled: Connection) -> None:
    seen = read_by(filled, "date_totals", {"usage_date": YESTERDAY, "limit": MERCHANTS})
    assert seen.of("usage_seal_page") <= 2 * MERCHANTS // 1000
    assert not seen.of("merchant_usage")


def test_merchants_are_compared_by_the_primary_key(filled: Connection) -> None:
    some = [f"{n:05}" for n in range(0, MERCHANTS, MERCHANTS // changes.LARGEST)]
    parameters = {"merchant_ids": some, "usage_date": YESTERDAY, "other_date": YESTERDAY - WEEK}
    assert read_by(filled, "date_compared", parameters).of("merchant_usage") == len(some) * 2 * METRICS


def test_both_pages_are_made_of_these(filled: Connection) -> None:
    """They are read whole within the limits of the page, and show what there is."""
    with filled.transaction():
        set_limits(filled, {"lock_timeout": "5s", "statement_timeout": "5s"})
        year = overview.read(filled, NOW, settings(), weeks=overview.MOST_WEEKS)
        assert len(year.days) > 360
        shown = date.read(filled, date.Asked(YESTERDAY), NOW, settings())
        assert len(shown.changes.changes) == changes.SHOWN
        assert len(shown.waiting.letters) == letters.LETTERS
