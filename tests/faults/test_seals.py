"""What a superuser does to sealed dates and to the seals themselves is named by `audit`; what nobody did is not."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from psycopg import Connection

from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL
from merchant_usage.model.audit import Audit, MerchantAudit, MerchantChange, MerchantState, SealState, format_merchant
from merchant_usage.model.seal import NOTHING, Seal
from merchant_usage.sink import seals
from merchant_usage.steps.audit import audit, audit_merchant, read_checkpoints
from merchant_usage.steps.seal import hash_of
from tests.faults.visible import back_up, restore
from tests.support import NOW, YESTERDAY, Usage, key

DAYS = [YESTERDAY - dt.timedelta(days=day) for day in (3, 2, 1, 0)]
MERCHANTS = 10_000
METRICS = 10


def as_superuser(conn: Connection, *statements: str, date: dt.date = YESTERDAY) -> None:
    """Triggers do not hold one who may switch them off."""
    with conn.transaction():
        conn.execute("SET LOCAL session_replication_role = replica")
        for statement in statements:
            conn.execute(statement.encode(), {"date": date})


def audited(usage: Usage, checkpoints: list[Seal] | None = None) -> Audit:
    return audit(usage.conn, DAYS[0], DAYS[-1], checkpoints or ())


def states(found: Audit) -> dict[dt.date, str]:
    return {each.date: str(each.state) for each in found.dates}


def exported(conn: Connection) -> list[Seal]:
    """What somebody kept elsewhere."""
    with conn.transaction():
        lines = [json.dumps(seal.to_json()) for seal in seals.every(conn)]
    return read_checkpoints(lines, "kept.jsonl")


@pytest.fixture
def sealed(usage: Usage) -> Usage:
    """Four days that are sealed, one seal each."""
    usage.write({key(who, day): 10 + n for n, day in enumerate(DAYS) for who in ("acme", "b:2", "zeta\n")})
    for day in DAYS:
        usage.aggregate(day)
    assert audited(usage, exported(usage.conn)).is_intact
    return usage


@pytest.fixture
def large(usage: Usage) -> Usage:
    """A day of a hundred thousand counters, sealed as a run would."""
    usage.conn.execute(
        "INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value)"
        " SELECT 'merchant ' || m, %s, 'metric ' || k, m * k"
        " FROM generate_series(1, %s) AS m, generate_series(1, %s) AS k",
        [YESTERDAY, MERCHANTS, METRICS],
    )
    usage.write({key(f"merchant {m}", metric_type=f"metric {k}"): m * k for m in (1,) for k in (1,)})
    total = usage.conn.execute("SELECT sum(metric_value) FROM merchant_usage").fetchone()
    assert total is not None
    usage.conn.execute(
        "INSERT INTO usage_run"
        " (run_id, usage_date, run_type, settled, started_at, finished_at, postgres_total, verdict, complete)"
        " VALUES ('r', %s, 'manual', true, %s, %s, %s, 'verified', true)",
        [YESTERDAY, NOW, NOW, total[0]],
    )
    usage.write({key("other", NOW.date()): 1})
    usage.aggregate(NOW.date())
    assert states(audited(usage)) == {YESTERDAY: SealState.INTACT}
    return usage


def test_one_row_of_many_is_named(large: Usage) -> None:
    as_superuser(
        large.conn,
        "UPDATE merchant_usage SET metric_value = metric_value - 1"
        " WHERE merchant_id = 'merchant 4711' AND metric_type = 'metric 3'",
    )
    (found,) = audited(large).dates
    before = 4711 * sum(range(1, METRICS + 1))
    assert found.state is SealState.CHANGED
    assert found.merchants == [MerchantChange("merchant 4711", before, before - 1)]
    assert not found.leaves_changed


def test_swapped_values_are_named(large: Usage) -> None:
    """All sums are the same, of the day and of the metric."""
    as_superuser(
        large.conn,
        "UPDATE merchant_usage SET metric_value = 3 * (18 - split_part(merchant_id, ' ', 2)::bigint)"
        " WHERE merchant_id IN ('merchant 7', 'merchant 11') AND metric_type = 'metric 3'",
    )
    (found,) = audited(large).dates
    assert {change.merchant_id for change in found.merchants} == {"merchant 7", "merchant 11"}


def test_row_taken_away_and_row_added_are_named(large: Usage) -> None:
    as_superuser(
        large.conn,
        "DELETE FROM merchant_usage WHERE merchant_id = 'merchant 5'",
        "INSERT INTO merchant_usage (merchant_id, date, metric_type, metric_value)"
        " VALUES ('merchant 5a', %(date)s, 'metric 1', 1)",
    )
    (found,) = audited(large).dates
    assert found.merchants == [
        MerchantChange("merchant 5", 5 * sum(range(1, METRICS + 1)), None),
        MerchantChange("merchant 5a", None, 1),
    ]


def test_change_of_the_kept_leaves_too_is_told(sealed: Usage) -> None:
    """Who covers the tracks in the leaves cannot make the root fit."""
    as_superuser(sealed.conn, "UPDATE merchant_usage SET metric_value = 1 WHERE date = %(date)s")
    with sealed.conn.transaction():
        pages = [*seals.stored_leaves(sealed.conn, YESTERDAY)]
    with sealed.conn.transaction():
        sealed.conn.execute("SET LOCAL session_replication_role = replica")
        sealed.conn.execute(
            "UPDATE usage_seal_page SET leaves = %s, totals = %s WHERE usage_date = %s",
            [pages[0].leaves, pages[0].totals, YESTERDAY],
        )
    found = audited(sealed).dates[-1]
    assert (found.state, found.merchants, found.leaves_changed) == (SealState.CHANGED, [], True)


def audited_merchant(usage: Usage, merchant: str = "acme") -> MerchantAudit:
    with usage.conn.transaction():
        return audit_merchant(usage.conn, merchant, YESTERDAY)


def test_a_merchant_of_many_is_audited_by_its_own_leaf(large: Usage) -> None:
    """Wherever it stands: on the first page of leaves, on the last, and between."""
    as_superuser(large.conn, "UPDATE merchant_usage SET metric_value = 0 WHERE merchant_id = 'merchant 4711'")
    for number in (1, 9999, 4712, 1000, 1001):
        found = audited_merchant(large, f"merchant {number}")
        total = number * sum(range(1, METRICS + 1))
        assert (found.state, found.change) == (MerchantState.INTACT, (f"merchant {number}", total, total))
    found = audited_merchant(large, "merchant 4711")
    assert (found.state, found.change.before, found.change.after) == (MerchantState.CHANGED, 4711 * 55, 0)


CHANGES = [
    ("UPDATE merchant_usage SET metric_value = 1 WHERE merchant_id = 'acme'", "acme had 13, and has 1"),
    ("UPDATE merchant_usage SET carried = 1", "acme has 13 in all as it had, in other counters"),
    ("DELETE FROM merchant_usage WHERE merchant_id = 'acme'", "acme had 13, and is not there"),
    ("INSERT INTO merchant_usage VALUES ('acme', %(date)s, 'more', 2)", "acme had 13, and has 15"),
]


@pytest.mark.parametrize(("statement", "told"), CHANGES)
def test_a_merchant_that_changed_is_told_with_both_sums(sealed: Usage, statement: str, told: str) -> None:
    as_superuser(sealed.conn, statement)
    found = audited_merchant(sealed)
    assert found.state is MerchantState.CHANGED
    assert format_merchant(found).endswith(f" on {YESTERDAY} is not what was sealed as version 1: {told}.")
    assert found.to_json()["state"] == "changed"


def test_a_merchant_that_was_added_or_never_was_is_told_apart(sealed: Usage) -> None:
    as_superuser(sealed.conn, "INSERT INTO merchant_usage VALUES ('new', %(date)s, 'queries', 2)")
    assert format_merchant(audited_merchant(sealed, "new")).endswith("version 1: new was not there, and has 2.")
    found = audited_merchant(sealed, "nobody")
    assert (found.state, found.change.after) == (MerchantState.NOT_SEALED, None)
    assert format_merchant(found).endswith("is nothing, and none of the leaves beside version 1 bears its id.")


UNKNOWN = [
    ("DELETE FROM usage_seal WHERE usage_date = %(date)s", "was sealed as version 1, and that seal is gone"),
    ("UPDATE usage_seal SET root = sha256(root)", "does not fit into the chain of seals"),
    ("DELETE FROM usage_seal WHERE seal_number = 3", "does not fit into the chain of seals"),
    ("UPDATE usage_seal_page SET leaves = sha256('') || substr(leaves, 33)", "are not those of its root"),
    ("DELETE FROM usage_seal_page", "are not those of its root"),
]


@pytest.mark.parametrize(("statement", "told"), UNKNOWN)
def test_a_seal_that_cannot_be_relied_on_says_nothing_of_a_merchant(sealed: Usage, statement: str, told: str) -> None:
    as_superuser(sealed.conn, statement)
    found = audited_merchant(sealed)
    assert found.state is MerchantState.NOT_KNOWN
    assert format_merchant(found).startswith("Nobody can tell whether what is stored of acme was sealed: ")
    assert format_merchant(found).endswith(f"{told}.")


def test_a_merchant_of_a_date_without_a_seal_is_not_compared(sealed: Usage) -> None:
    as_superuser(sealed.conn, "DELETE FROM usage_seal", "DELETE FROM usage_seal_page")
    found = audited_merchant(sealed)
    assert (found.state, found.seal) == (MerchantState.NOT_SEALED, None)
    assert format_merchant(found).endswith("cannot be compared with a seal: there is none of this date.")


def test_a_merchant_is_compared_with_the_newest_version(sealed: Usage) -> None:
    sealed.write({key("acme"): 20})
    sealed.aggregate()
    assert format_merchant(audited_merchant(sealed)).endswith("is what was sealed as version 2.")
    as_superuser(sealed.conn, "DELETE FROM usage_seal WHERE version = 2")
    assert audited_merchant(sealed).why == f"{YESTERDAY} was sealed as version 2, and that seal is gone"


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("UPDATE usage_seal SET total = 0 WHERE seal_number = 2", "seal 2 .* the chain breaks there"),
        ("UPDATE usage_seal SET reason = 'late' WHERE seal_number = 1", "seal 1 .* the chain breaks there"),
        ("DELETE FROM usage_seal WHERE seal_number = 2", "the chain has no 2 before seal 3"),
        ("DELETE FROM usage_seal WHERE seal_number < 3", "the chain has no 1 to 2 before seal 3"),
        ("UPDATE usage_seal SET chain = sha256(chain) WHERE seal_number = 4", "seal 4 .* the chain breaks there"),
    ],
)
def test_where_the_chain_breaks_is_named(sealed: Usage, statement: str, told: str) -> None:
    as_superuser(sealed.conn, statement)
    found = audited(sealed)
    assert any(re.search(told, problem) for problem in found.chain), found.chain


def test_newest_seals_that_are_deleted_are_named(sealed: Usage) -> None:
    kept = exported(sealed.conn)
    as_superuser(
        sealed.conn,
        "DELETE FROM usage_seal WHERE seal_number > 2",
        "DELETE FROM usage_seal_page WHERE usage_date > %(date)s",
        date=DAYS[1],
    )
    found = audited(sealed, kept)
    assert states(found) == dict(zip(DAYS, ["intact", "intact", "not sealed", "not sealed"], strict=True))
    assert found.chain == []
    assert [problem.split(" was cut off")[0] for problem in found.against] == [seal.name for seal in kept[2:]]


def forge(conn: Connection) -> None:
    """Bill somebody else, and make all seals anew over it, in the same number and form."""
    with conn.transaction():
        conn.execute("SET LOCAL session_replication_role = replica")
        conn.execute("UPDATE merchant_usage SET metric_value = metric_value + 1 WHERE merchant_id = 'acme'")
        conn.execute("UPDATE merchant_usage SET metric_value = metric_value - 1 WHERE merchant_id = 'b:2'")
        chain = NOTHING
        forged = []
        for old in [*seals.every(conn)]:
            pages = [*seals.stored_leaves(conn, old.date)]
            new = replace(old, root=hash_of(pages).root, previous=chain)
            chain = new.expected_chain
            forged.append(replace(new, chain=chain))
            conn.execute(
                "UPDATE usage_seal_page SET leaves = %s, totals = %s WHERE usage_date = %s",
                [pages[0].leaves, pages[0].totals, old.date],
            )
        for new in forged:
            conn.execute(
                "UPDATE usage_seal SET root = %s, chain = %s WHERE seal_number = %s", [new.root, new.chain, new.number]
            )


def test_chain_that_is_made_anew_is_named_beside_a_checkpoint(sealed: Usage) -> None:
    kept = exported(sealed.conn)
    forge(sealed.conn)
    assert audited(sealed).is_intact, "nothing within the database can tell"
    found = audited(sealed, kept[-1:])
    assert not found.is_intact
    (problem,) = found.against
    assert problem.startswith(f"{kept[-1].name} was made anew: ")


def test_older_backup_is_named_beside_a_checkpoint(sealed: Usage) -> None:
    backup = back_up(sealed.conn)
    sealed.write({key("acme", YESTERDAY): 99})
    sealed.aggregate(YESTERDAY)
    kept = exported(sealed.conn)
    restore(sealed.conn, backup)
    assert audited(sealed).is_intact, "nothing within the database can tell"
    found = audited(sealed, kept)
    assert found.against == [f"{kept[-1].name} was cut off: it is not there any more"]
    # The next run seals what it finds; it is not what was sealed then.
    sealed.aggregate(YESTERDAY)
    (problem,) = audited(sealed, kept).against
    assert problem.startswith(f"{kept[-1].name} was made anew: ")


def test_thousand_honest_seals_raise_no_alarm(usage: Usage) -> None:
    """Late usage and new merchants, over and over; each version is proven and sealed."""
    for number in range(250):
        usage.write({key(f"merchant {number % 7}", day): 1000 + number for day in DAYS})
        usage.aggregate(*DAYS, now=NOW + dt.timedelta(seconds=number))
    with usage.conn.transaction():
        assert sum(1 for _ in seals.every(usage.conn)) == 1000
    assert audited(usage, exported(usage.conn)).is_intact


def test_late_usage_of_a_run_that_was_killed_before_it_sealed_is_late_all_the_same(
    usage: Usage, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate()
    usage.write({key("acme"): 9})
    monkeypatch.setattr("merchant_usage.pipeline.seal_dates", mock.Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        usage.aggregate(run_id="killed")
    monkeypatch.undo()
    assert usage.ledger("killed")[YESTERDAY] == ("verified", None)
    (found,) = audit(usage.conn, YESTERDAY, YESTERDAY).dates
    assert (found.state, found.total) == (SealState.CHANGED, 9)
    usage.aggregate()
    newest = seals.newest(usage.conn, [YESTERDAY])[YESTERDAY]
    assert (newest.version, newest.reason, newest.total) == (2, "late", 9)
    assert audited(usage).is_intact


Tell = Callable[..., tuple[int, str, str]]


@pytest.fixture
def tell(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tell:
    """Run a command: its exit code, what it answered, and its complaint."""
    monkeypatch.setenv(POSTGRES_URL, database_url)

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run


RANGE = ("--from", str(DAYS[0]), "--to", str(DAYS[-1]))


def test_command_answers_with_its_exit_code(sealed: Usage, tell: Tell, tmp_path: Path) -> None:
    code, checkpoints, _ = tell("seals", "--export")
    assert code == 0
    kept = tmp_path / "kept.jsonl"
    kept.write_text(checkpoints, encoding="utf-8")
    code, out, err = tell("audit", *RANGE, "--against", str(kept))
    assert (code, err) == (0, "")
    assert out.count("intact") == 4
    assert "The chain of seals is whole." in out
    assert [line.split()[1] for line in tell("seals")[1].splitlines() if line.startswith("|    ")] == [
        "1",
        "2",
        "3",
        "4",
    ]

    as_superuser(
        sealed.conn,
        "UPDATE merchant_usage SET metric_value = 1 WHERE merchant_id = 'acme' AND date = %(date)s",
        "DELETE FROM usage_seal WHERE seal_number = 3",
    )
    code, out, err = tell("audit", *RANGE, "--against", str(kept))
    assert code == 1
    assert f"{YESTERDAY} is not what was sealed. Merchants that changed: acme had 13, and has 1." in err
    assert f"Not sealed: {DAYS[2]}." in err
    assert "The chain has no 3 before seal 4" in err
    assert "was cut off" in err
    code, out, _ = tell("audit", *RANGE, "--json")
    answer: dict[str, Any] = json.loads(out)
    assert (code, answer["intact"]) == (1, False)
    assert [each["state"] for each in answer["dates"]] == ["intact", "intact", "not sealed", "changed"]
    assert answer["dates"][-1]["merchants"] == [{"merchant_id": "acme", "sealed": "13", "stored": "1"}]


@pytest.mark.parametrize("content", ["", "no json", "{}", '{"seal_number": 1}', "\\xff"])
def test_file_of_no_checkpoints_is_refused(sealed: Usage, tell: Tell, tmp_path: Path, content: str) -> None:
    del sealed
    kept = tmp_path / "kept.jsonl"
    kept.write_bytes(content.encode().replace(b"\\xff", b"\xff"))
    code, _, err = tell("audit", "--against", str(kept))
    assert code == 2
    assert str(kept) in err


def test_what_was_not_sealed_is_not_proven(sealed: Usage, tell: Tell) -> None:
    assert tell("prove", "acme", str(YESTERDAY))[0] == 0
    assert "nothing sealed" in tell("prove", "nobody", str(YESTERDAY))[2]
    assert "is not sealed" in tell("prove", "acme", "2020-01-01")[2]
    as_superuser(sealed.conn, "UPDATE merchant_usage SET carried = 1 WHERE merchant_id = 'acme'")
    assert "is not what was sealed" in tell("prove", "acme", str(YESTERDAY))[2]
