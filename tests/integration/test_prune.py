"""Nothing grows without end: what nobody needs any more is forgotten, and what somebody decided or proved is not."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from psycopg import Connection

from merchant_usage import clock
from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL
from merchant_usage.model.run import Run
from merchant_usage.pipeline import aggregate
from merchant_usage.steps import prune as pruning
from merchant_usage.steps.prune import Prunable, prune
from tests.support import NOW, YESTERDAY, Connect, Usage, key, settings

OLD = NOW - dt.timedelta(days=401)
YOUNG = NOW - dt.timedelta(days=399)
MIDNIGHT = NOW.replace(hour=0, minute=0)


def add_letters(conn: Connection, prefix: str, resolved_at: dt.datetime | None, number: int = 1, **more: Any) -> None:
    reason, decision = more.get("reason", "malformed_key"), more.get("decision")
    conn.execute(
        "INSERT INTO usage_dead_letter (redis_key, reason, detail, usage_date, resolved_at, decision)"
        " SELECT (%s::text || n)::bytea, %s, '', %s, %s, %s FROM generate_series(1, %s) AS n",
        [prefix, reason, YESTERDAY, resolved_at, decision, number],
    )


def add_alert(conn: Connection, name: str, kind: str, raised_at: dt.datetime, resolved_at: dt.datetime | None) -> None:
    conn.execute(
        "INSERT INTO usage_alert (alert_key, kind, raised_at, told, resolved_at) VALUES (%s, %s, %s, true, %s)",
        [name, kind, raised_at, resolved_at],
    )


def add_attempts(conn: Connection, run_id: str, started_at: dt.datetime, *verdicts: str | None) -> None:
    for attempt, verdict in enumerate(verdicts, start=1):
        conn.execute(
            "INSERT INTO usage_run (run_id, attempt, usage_date, run_type, settled, started_at, verdict, complete)"
            " VALUES (%s, %s, %s, 'manual', true, %s, %s, %s)",
            [run_id, attempt, started_at.date(), started_at, verdict, verdict == "verified"],
        )


def names(conn: Connection, what: str) -> set[str]:
    return {name for (name,) in conn.execute(f"SELECT {what}")}


@pytest.fixture
def filled(database: Connection) -> Connection:
    """Old rows and young ones, of all kinds."""
    add_letters(database, "old", OLD, 25)
    add_letters(database, "young", YOUNG)
    add_letters(database, "open", None)
    add_letters(database, "decided", OLD, reason="counter_regressed", decision="keep")
    add_alert(database, "old failure, over", "failed", OLD, OLD)
    add_alert(database, "old failure, still so", "failed", OLD, None)
    add_alert(database, "old incident, still so", "incident", OLD, None)
    add_alert(database, "old date without data", "no_data", OLD, None)
    add_alert(database, "young", "no_data", YOUNG, None)
    add_attempts(database, "cleared", OLD, "verified", None, "verified")
    add_attempts(database, "cleared, and worse", OLD, "verified", "mismatch")
    add_attempts(database, "cleared, without an end", OLD, "mismatch", None)
    add_attempts(database, "young", YOUNG, "verified", "verified")
    return database


LETTERS = "convert_from(redis_key, 'UTF8') FROM usage_dead_letter"
ALERTS = "alert_key FROM usage_alert"
ATTEMPTS = "run_id || ' ' || attempt FROM usage_run"


@pytest.mark.parametrize("batch", [7, 10_000])
def test_what_is_old_and_over_is_forgotten(filled: Connection, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(pruning, "BATCH", batch)
    expected = {Prunable.DEAD_LETTERS: 25, Prunable.ALERTS: 2, Prunable.ATTEMPTS: 2}
    before = [names(filled, what) for what in (LETTERS, ALERTS, ATTEMPTS)]
    assert prune(filled, NOW, settings(), dry_run=True) == expected
    assert [names(filled, what) for what in (LETTERS, ALERTS, ATTEMPTS)] == before
    assert prune(filled, NOW, settings()) == expected
    assert names(filled, LETTERS) == {"young1", "open1", "decided1"}
    assert names(filled, ALERTS) == {"old failure, still so", "old incident, still so", "young"}
    assert names(filled, ATTEMPTS) == {
        "cleared 3",
        "cleared, and worse 1",
        "cleared, and worse 2",
        "cleared, without an end 1",
        "cleared, without an end 2",
        "young 1",
        "young 2",
    }
    assert prune(filled, NOW, settings()) == dict.fromkeys(Prunable, 0)


def test_of_young_letters_the_newest_are_kept(database: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "MAX_RESOLVED", 3)
    for number in range(5):
        add_letters(database, f"{number} ", YOUNG + dt.timedelta(hours=number))
    assert prune(database, NOW, settings())[Prunable.DEAD_LETTERS] == 1
    assert names(database, LETTERS) == {"1 1", "2 1", "3 1", "4 1"}


@pytest.mark.parametrize(
    ("start", "is_first"),
    [(MIDNIGHT, True), (MIDNIGHT + dt.timedelta(hours=1), False), (None, False)],
    ids=["first of a day", "second", "by hand"],
)
def test_the_first_scheduled_run_of_a_day_prunes(
    usage: Usage, filled: Connection, monkeypatch: pytest.MonkeyPatch, start: dt.datetime | None, is_first: bool
) -> None:
    monkeypatch.setattr(pruning, "MAX_ROWS_A_DAY", 20)
    usage.write({key("acme"): 1})
    if start is not None and not is_first:
        filled.execute(
            "INSERT INTO usage_run (run_id, usage_date, run_type, settled, started_at, verdict)"
            " VALUES ('before', %s, 'scheduled', false, %s, 'verified')",
            [NOW.date(), MIDNIGHT + dt.timedelta(hours=1)],
        )
    interval = None if start is None else (start, start + dt.timedelta(hours=1))
    run = Run("the run", "scheduled", (YESTERDAY,), NOW, interval=interval)
    aggregate(usage.client, filled, run, settings())
    # What is too much for one day is left for the next.
    assert sum(name.startswith("old") for name in names(filled, LETTERS)) == (5 if is_first else 25)
    assert usage.rows() == {key("acme"): 1}


def test_a_user_who_may_not_delete_is_told(usage: Usage, filled: Connection, logged: list[str]) -> None:
    usage.write({key("acme"): 1})
    filled.execute("CREATE ROLE usage_no_delete; GRANT ALL ON ALL TABLES IN SCHEMA public TO usage_no_delete")
    filled.execute("REVOKE DELETE ON usage_dead_letter FROM usage_no_delete; SET ROLE usage_no_delete")
    try:
        run = Run("the run", "scheduled", (YESTERDAY,), NOW, interval=(MIDNIGHT, MIDNIGHT + dt.timedelta(hours=1)))
        aggregate(usage.client, filled, run, settings())
    finally:
        filled.execute("RESET ROLE; DROP OWNED BY usage_no_delete; DROP ROLE usage_no_delete")
    assert any("not pruned: permission denied for table usage_dead_letter" in sentence for sentence in logged)
    assert usage.rows() == {key("acme"): 1}


def test_nobody_waits_for_a_locked_row(filled: Connection, connect: Connect) -> None:
    other = connect()
    with other.transaction():
        other.execute("SELECT FROM usage_dead_letter WHERE redis_key = 'old1' FOR UPDATE")
        assert prune(filled, NOW, settings())[Prunable.DEAD_LETTERS] == 24


def test_the_command(
    filled: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(POSTGRES_URL, database_url)
    monkeypatch.setattr(clock, "now", lambda: NOW)
    said = "25 dead letters, 2 alerts, 2 attempts\n"
    for arguments, expected in (
        (["--dry-run"], f"Would delete what is older than 400 days: {said}"),
        ([], f"Deleted what is older than 400 days: {said}"),
    ):
        assert main(["prune", *arguments]) == 0
        assert (
            capsys.readouterr().out
            == expected + f"{expected.split(' what ')[0]} hourly history older than 90 days: 0 weeks\n"
        )
    assert main(["prune", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "dry_run": False,
        "days": 400,
        "deleted": {"dead_letters": 0, "alerts": 0, "attempts": 0},
        "hourly_days": 90,
        "hourly_weeks": 0,
    }
    del filled
