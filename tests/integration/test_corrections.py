"""What changed of a date after it was sealed is a line with its date: the views, and what `explain` tells of it."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Final

import pytest
from psycopg import Connection

from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL
from merchant_usage.model.seal import Seal
from merchant_usage.sink import schema, seals
from merchant_usage.steps.cleanup import delete_stale
from merchant_usage.steps.resolve import Decision, Ruling, decide
from merchant_usage.steps.seal import sealed_anew
from tests import docs
from tests.support import NOW, YESTERDAY, Usage, key, raw

MONTH: Final = YESTERDAY.replace(day=1)
DAY_BEFORE: Final = YESTERDAY - dt.timedelta(days=1)
LATER: Final = NOW + dt.timedelta(days=1)
CALLS: Final = "calls"


def corrections(conn: Connection) -> list[tuple[Any, ...]]:
    return conn.execute(
        "SELECT merchant_id, usage_date, version, reason, before, after, difference FROM merchant_usage_corrections"
        " ORDER BY merchant_id, usage_date, version"
    ).fetchall()


def monthly(conn: Connection, merchant_id: str = "acme") -> dict[str, tuple[Any, ...]]:
    """The rows of a merchant by metric: value, what of it was corrected, and when."""
    rows = conn.execute(
        "SELECT metric_type, value, merchant_corrected, merchant_corrected_at FROM merchant_usage_monthly"
        " WHERE merchant_id = %s AND month = %s",
        [merchant_id, MONTH],
    ).fetchall()
    found = {metric: tuple(rest) for metric, *rest in rows}
    assert len(found) == len(rows), "a metric of a month is one row"
    return found


def newest(usage: Usage, date: dt.date = YESTERDAY) -> Seal:
    return seals.newest(usage.conn, [date])[date]


@pytest.fixture
def late(usage: Usage) -> Usage:
    """A date that was sealed, and then got more of a merchant, and another merchant."""
    usage.write({key("acme"): 5, key("acme", metric_type=CALLS): 1, key("zeta"): 7})
    usage.aggregate()
    assert corrections(usage.conn) == []
    assert monthly(usage.conn)["queries"] == (5, 0, None)
    usage.write({key("acme"): 9, key("a new one"): 2})
    usage.aggregate()
    return usage


def test_late_usage_is_a_line_for_each_merchant_that_changed(late: Usage) -> None:
    assert corrections(late.conn) == [
        ("a new one", YESTERDAY, 2, "late", 0, 2, 2),
        ("acme", YESTERDAY, 2, "late", 6, 10, 4),
    ]
    found = late.conn.execute("SELECT DISTINCT month, corrected_at FROM merchant_usage_corrections").fetchall()
    assert found == [(MONTH, newest(late).sealed_at)]


def test_the_month_holds_the_new_value_and_tells_what_of_it_came_after(late: Usage) -> None:
    at = newest(late).sealed_at
    assert monthly(late.conn) == {"queries": (9, 4, at), CALLS: (1, 4, at)}
    assert monthly(late.conn, "zeta") == {"queries": (7, 0, None)}


def test_corrections_of_a_month_add_up_and_those_of_another_do_not_count(late: Usage) -> None:
    other = MONTH - dt.timedelta(days=1)
    late.write({key("acme", DAY_BEFORE): 100, key("acme", other): 100})
    late.aggregate(DAY_BEFORE, other)
    late.write({key("acme", DAY_BEFORE): 130, key("acme", other): 400, key("acme"): 10})
    late.aggregate(DAY_BEFORE, other, YESTERDAY)
    assert [row[1:3] + row[-1:] for row in corrections(late.conn) if row[0] == "acme"] == [
        (other, 2, 300),
        (DAY_BEFORE, 2, 30),
        (YESTERDAY, 2, 4),
        (YESTERDAY, 3, 1),
    ]
    assert monthly(late.conn)["queries"] == (140, 35, newest(late).sealed_at)


def test_decision_about_a_sealed_date_is_a_line_with_who_and_why(late: Usage) -> None:
    late.write({key("acme"): 3})
    late.aggregate()
    assert len(corrections(late.conn)) == 2, "nobody has decided yet"
    ruling = Ruling(Decision.ACCEPT, "anna", "a test of theirs")
    decide(late.client, late.conn, ruling, "usage", key=raw(key("acme")))
    late.aggregate(now=LATER)
    assert corrections(late.conn)[-1] == ("acme", YESTERDAY, 3, "accept by anna: a test of theirs", 10, 4, -6)
    assert monthly(late.conn)["queries"] == (3, -2, newest(late).sealed_at)


def test_clean_up_corrects_nothing(late: Usage) -> None:
    before = corrections(late.conn)
    with sealed_anew(late.conn, [YESTERDAY], "clean", None):
        assert delete_stale(late.client, late.conn, [key("acme")], [YESTERDAY], "usage").deleted == 1
    assert newest(late).reason == "clean-up"
    assert corrections(late.conn) == before


def test_merchants_are_found_wherever_their_page_is(usage: Usage) -> None:
    """A merchant that comes first moves all others by one, over the edges of pages of a thousand."""
    usage.write({key(f"m{n:04}"): n + 1 for n in range(2500)})
    usage.aggregate()
    usage.write({key("a"): 3, key("m0999"): 1007, key("m2400"): 2500})
    usage.aggregate()
    assert [(row[0], *row[4:]) for row in corrections(usage.conn)] == [
        ("a", 0, 3, 3),
        ("m0999", 1000, 1007, 7),
        ("m2400", 2401, 2500, 99),
    ]


def test_explain_tells_the_correction_with_its_date(
    late: Usage, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(POSTGRES_URL, database_url)
    assert main(["explain", "acme", str(YESTERDAY)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "  correction, " in line]
    assert lines == [
        f"{newest(late).sealed_at:%Y-%m-%d %H:%M:%S} UTC  correction, the whole day: 6 -> 10. The day had been sealed "
        "before (late, version 2): an invoice that is out is corrected by +4."
    ]
    assert main(["explain", "zeta", str(YESTERDAY)]) == 0
    assert "  correction, " not in capsys.readouterr().out


# Bills


def test_invoice_that_is_out_is_corrected_metric_by_metric_as_the_docs_say(usage: Usage) -> None:
    """Once for each correction, however often it is asked for."""
    (bill,) = (block.text for block in docs.blocks("sql") if "INSERT INTO invoice_line" in block.text)
    make, insert = bill.split("\n\n")
    usage.conn.execute(make.encode())
    days = [MONTH + dt.timedelta(days=n) for n in range(30)]
    usage.write({key("acme", day): 10 for day in days} | {key("acme", MONTH, CALLS): 1})
    in_december = dt.datetime(2026, 12, 1, 3, tzinfo=dt.UTC)

    def billed() -> list[tuple[Any, ...]]:
        usage.conn.execute(insert.replace("2026-11-01", str(MONTH)).encode())
        return usage.conn.execute(
            "SELECT metric_type, quantity FROM invoice_line ORDER BY invoiced_at, metric_type"
        ).fetchall()

    usage.aggregate(*days[:-1], now=in_december)
    assert billed() == []
    usage.aggregate(days[-1], now=in_december)
    invoice = [(CALLS, 1), ("queries", 300)]
    assert billed() == invoice
    assert billed() == invoice
    usage.write({key("acme", days[-2]): 17})
    usage.aggregate(days[-2], now=in_december)
    assert billed() == [*invoice, ("queries", 7)]
    usage.write({key("acme", days[-1], CALLS): 3})
    usage.aggregate(days[-1], now=in_december)
    assert billed() == [*invoice, ("queries", 7), (CALLS, 3)]
    assert billed() == [*invoice, ("queries", 7), (CALLS, 3)]


# The schema

#: As it was before there were corrections.
OLD_MONTHS: Final = """
CREATE VIEW merchant_usage_monthly AS
SELECT merchant_id, date_trunc('month', date::timestamp)::date AS month, metric_type, sum(metric_value) AS value,
       31 AS days, 0 AS days_sealed, false AS closed
FROM merchant_usage
GROUP BY 1, 2, 3
"""


def test_versions_of_before_there_were_corrections_are_made_up_for(late: Usage) -> None:
    """What an upgrade finds is what would have been noted."""
    late.write({key("acme"): 12, key("b"): 1})
    late.aggregate(run_id="by a worker that knows corrections")
    noted = corrections(late.conn)
    assert {row[2] for row in noted} == {2, 3}
    late.conn.execute("SET session_replication_role = replica")
    for forgotten in ("version = 2", "version = 3", "true"):
        late.conn.execute(f"DELETE FROM usage_correction WHERE {forgotten}".encode())  # noqa: S608 - of this test
        assert corrections(late.conn) != noted
        schema.migrate(late.conn)
        assert corrections(late.conn) == noted
    late.conn.execute("DROP TABLE usage_correction CASCADE; RESET session_replication_role")
    schema.migrate(late.conn)
    assert corrections(late.conn) == noted


def test_views_of_before_are_made_anew_and_stand_then(late: Usage) -> None:
    told = re.compile("an invoice that is out")
    late.conn.execute("DROP VIEW merchant_usage_corrections CASCADE")
    late.conn.execute(OLD_MONTHS)
    late.conn.execute(
        'CREATE VIEW usage_explained AS SELECT merchant_id COLLATE "C" AS merchant_id, date,'
        " metric_type COLLATE \"C\" AS metric_type, updated_at AS happened_at, '' AS kind, '' AS by_whom,"
        " 0::numeric AS value_before, 0::numeric AS value_after, '' AS told FROM merchant_usage"
    )
    schema.migrate(late.conn)
    made = late.conn.execute("SELECT oid::regclass::text, xmin::text FROM pg_class WHERE relkind = 'v'").fetchall()
    assert monthly(late.conn)["queries"][:2] == (9, 4)
    rows = late.conn.execute("SELECT told FROM usage_explained WHERE merchant_id = 'acme'").fetchall()
    assert [bool(told.search(row[0])) for row in rows].count(True) == 1
    schema.migrate(late.conn)
    again = late.conn.execute("SELECT oid::regclass::text, xmin::text FROM pg_class WHERE relkind = 'v'").fetchall()
    assert sorted(again) == sorted(made), "readers are not held up"


@pytest.mark.parametrize("collation", ["C", "default", "C.utf8"])
def test_any_collation_of_the_application_will_do(empty_database: Connection, collation: str) -> None:
    empty_database.execute(
        f'CREATE TABLE merchant_usage (merchant_id text COLLATE "{collation}", date date, metric_type text,'
        " metric_value bigint NOT NULL, created_at timestamptz, updated_at timestamptz,"
        " PRIMARY KEY (merchant_id, date, metric_type))".encode()
    )
    schema.migrate(empty_database)
    empty_database.execute("INSERT INTO merchant_usage VALUES ('acme', %s, 'queries', 9, now(), now())", [YESTERDAY])
    for version, total in ((1, 5), (2, 9)):
        empty_database.execute(
            "INSERT INTO usage_seal VALUES (%s, %s, %s, %s, 'r', 1, %s, '', '', NULL, 'late')",
            [version, YESTERDAY, version, NOW, total],
        )
        empty_database.execute(
            "INSERT INTO usage_seal_page VALUES (%s, %s, 0, '{acme}', ARRAY[%s]::numeric[], %s)",
            [YESTERDAY, version, total, str(total).encode()],
        )
    schema.migrate(empty_database)
    assert monthly(empty_database) == {"queries": (9, 4, NOW)}
