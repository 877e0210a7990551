"""A date that is verified is sealed: once, again when it changes for a reason, and never when nobody has proven it."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Barrier

import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg import Connection

from merchant_usage.errors import NotSealed, SettingsError, UsageMismatch
from merchant_usage.model.seal import NOTHING, Seal
from merchant_usage.sink import seals
from merchant_usage.steps.cleanup import delete_stale
from merchant_usage.steps.resolve import Decision, Ruling, decide
from merchant_usage.steps.seal import sealed_anew
from tests.support import NOW, TODAY, YESTERDAY, Connect, Usage, key, raw

DAY_BEFORE = YESTERDAY - dt.timedelta(days=1)
TOMORROW = NOW + dt.timedelta(days=1)


def sealed(conn: Connection) -> list[Seal]:
    with conn.transaction():
        return [*seals.every(conn)]


def versions(conn: Connection) -> list[tuple[dt.date, int, str]]:
    return [(seal.date, seal.version, seal.reason) for seal in sealed(conn)]


def test_date_that_is_over_is_sealed_and_a_live_one_is_not(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("acme", metric_type="bytes"): 7, key("zeta"): 1, key("acme", TODAY): 3})
    proof = usage.aggregate(YESTERDAY, TODAY, run_id="the run")
    (seal,) = sealed(usage.conn)
    assert proof.seals == [seal]
    assert (seal.number, seal.date, seal.version, seal.run_id, seal.reason) == (1, YESTERDAY, 1, "the run", "first")
    assert (seal.counters, seal.total, seal.previous, seal.signature) == (3, 13, NOTHING, None)
    assert seal.chain == seal.expected_chain


def test_date_that_is_proven_again_unchanged_gets_no_other_seal(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate()
    assert usage.aggregate().seals == []
    assert len(sealed(usage.conn)) == 1


def test_seals_are_one_chain(usage: Usage) -> None:
    usage.write({key("acme", YESTERDAY - dt.timedelta(days=day)): day + 1 for day in range(4)})
    for day in (2, 0, 3, 1):
        usage.aggregate(YESTERDAY - dt.timedelta(days=day))
    found = sealed(usage.conn)
    assert [seal.number for seal in found] == [1, 2, 3, 4]
    assert all(later.previous == earlier.chain for earlier, later in pairwise(found))


def test_late_usage_is_sealed_as_the_next_version(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("zeta"): 1})
    usage.aggregate()
    usage.write({key("acme"): 9, key("new"): 2})
    usage.aggregate()
    assert versions(usage.conn) == [(YESTERDAY, 1, "first"), (YESTERDAY, 2, "late")]


@pytest.mark.parametrize(("decision", "stored"), [(Decision.ACCEPT, 3), (Decision.CARRY, 8)])
def test_decision_is_the_reason_of_the_next_version(usage: Usage, decision: Decision, stored: int) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate()
    usage.write({key("acme"): 3})
    usage.aggregate()
    assert len(sealed(usage.conn)) == 1, "a date that waits for a decision is not sealed"
    decide(usage.client, usage.conn, Ruling(decision, "anna", "Redis was restarted"), "usage", key=raw(key("acme")))
    usage.aggregate(now=TOMORROW)
    first, second = sealed(usage.conn)
    assert (second.version, second.reason) == (2, f"{decision} by anna: Redis was restarted")
    assert (first.total, second.total) == (5, stored)


def test_decision_to_keep_changes_nothing(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate()
    usage.write({key("acme"): 3})
    usage.aggregate()
    decide(usage.client, usage.conn, Ruling(Decision.KEEP, "anna"), "usage", key=raw(key("acme")))
    usage.aggregate(now=TOMORROW)
    assert len(sealed(usage.conn)) == 1


def test_decision_of_a_date_that_has_expired_meanwhile_is_sealed(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("zeta"): 1})
    usage.aggregate()
    usage.write({key("acme"): 3})
    usage.aggregate()
    usage.client.flushall()
    decide(usage.client, usage.conn, Ruling(Decision.ACCEPT, "anna", "tests"), "usage", key=raw(key("acme")))
    usage.aggregate(now=NOW + dt.timedelta(days=9))
    assert versions(usage.conn) == [(YESTERDAY, 1, "first"), (YESTERDAY, 2, "accept by anna: tests")]


def test_what_others_do_to_a_date_that_has_expired_is_not_sealed(usage: Usage) -> None:
    """Of the two values that were swapped the sum is the same, so that the ledger sees nothing."""
    usage.write({key("acme"): 5, key("zeta"): 1})
    usage.aggregate()
    usage.client.flushall()
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 6 - metric_value")
    usage.aggregate(now=NOW + dt.timedelta(days=9))
    assert len(sealed(usage.conn)) == 1


def test_mismatch_and_some_merchants_are_not_sealed(usage: Usage) -> None:
    usage.write({key("acme"): 5, key("zeta"): 1})
    usage.aggregate(merchants=("acme",))
    assert sealed(usage.conn) == []
    stored = usage.store_only()
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 0")
    with pytest.raises(UsageMismatch):
        usage.prove(stored)
    assert sealed(usage.conn) == []


def test_date_that_was_verified_and_has_no_seal_gets_one(usage: Usage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process was killed between the two, or there were no seals yet."""
    usage.write({key("acme"): 5, key("acme", DAY_BEFORE): 4})
    monkeypatch.setattr("merchant_usage.pipeline.seal_dates", lambda *_: [])
    usage.aggregate(DAY_BEFORE, YESTERDAY)
    assert sealed(usage.conn) == []
    monkeypatch.undo()
    usage.write({key("acme", TODAY): 1})
    usage.aggregate(TODAY)
    assert versions(usage.conn) == [(DAY_BEFORE, 1, "first"), (YESTERDAY, 1, "first")]


def test_date_whose_rows_are_not_those_that_were_verified_gets_none(
    usage: Usage, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage.write({key("acme"): 5, key("acme", TODAY): 1})
    monkeypatch.setattr("merchant_usage.pipeline.seal_dates", lambda *_: [])
    usage.aggregate()
    monkeypatch.undo()
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 4")
    usage.aggregate(TODAY)
    assert sealed(usage.conn) == []


def test_run_that_cannot_seal_fails_and_a_repetition_seals(usage: Usage) -> None:
    usage.write({key("acme"): 5})
    usage.conn.execute("ALTER TABLE usage_seal ADD CONSTRAINT full_disk CHECK (seal_number = 0)")
    with pytest.raises(NotSealed, match=r"is in the ledger, but could not be sealed: .*full_disk") as raised:
        usage.aggregate(run_id="first")
    assert raised.value.heals
    assert usage.ledger("first")[YESTERDAY] == ("verified", None)
    usage.conn.execute("ALTER TABLE usage_seal DROP CONSTRAINT full_disk")
    usage.aggregate()
    assert len(sealed(usage.conn)) == 1


def test_runs_at_once_make_one_chain(usage: Usage, connect: Connect) -> None:
    days = [YESTERDAY - dt.timedelta(days=day) for day in range(4)]
    usage.write({key("acme", day): 7 for day in days})
    together = Barrier(4)

    def run(number: int) -> None:
        conn = connect()
        together.wait()
        usage.aggregate(*days[number:], *days[:number], conn=conn, run_id=f"at once {number}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    found = sealed(usage.conn)
    assert sorted(seal.date for seal in found) == sorted(days)
    assert [seal.number for seal in found] == [1, 2, 3, 4]
    assert all(later.previous == earlier.chain for earlier, later in pairwise(found))


@pytest.mark.parametrize("table", ["usage_seal", "usage_seal_page", "usage_correction"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET version = 2", "DELETE FROM {}", "TRUNCATE {}"])
def test_seals_are_append_only(usage: Usage, table: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match=f"{table} is append only"):
        usage.conn.execute(statement.format(table).encode())


def pem(path: Path, private_key: object) -> str:
    kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(private_key.private_bytes(*kinds))  # type: ignore[attr-defined]
    return str(path)


def test_seal_is_signed_with_the_key(usage: Usage, tmp_path: Path) -> None:
    private_key = Ed25519PrivateKey.generate()
    usage.write({key("acme"): 5})
    usage.aggregate(seal_key_file=pem(tmp_path / "key.pem", private_key))
    (seal,) = sealed(usage.conn)
    assert seal.signature is not None
    private_key.public_key().verify(seal.signature, seal.chain)


def test_key_that_cannot_be_used_is_one_error(usage: Usage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage.write({key("acme"): 5})
    text = tmp_path / "text.pem"
    text.write_text("no key")
    other = pem(tmp_path / "other.pem", generate_private_key(SECP256R1()))
    for path, said in (
        (str(tmp_path / "none.pem"), "cannot be read"),
        (str(text), "is no key"),
        (other, "is a key of another kind"),
    ):
        with pytest.raises(SettingsError, match=f"USAGE_SEAL_KEY_FILE='{path}' {said}"):
            usage.aggregate(seal_key_file=path)
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(SettingsError, match="needs the package `cryptography`"):
        usage.aggregate(seal_key_file=other)
    assert sealed(usage.conn) == []


def test_clean_up_of_an_intact_date_is_sealed_and_of_another_is_not(usage: Usage) -> None:
    old = YESTERDAY - dt.timedelta(days=20)
    usage.write({key("acme", old): 5, key("zeta", old): 1})
    usage.aggregate(old)

    def clean() -> None:
        with sealed_anew(usage.conn, [old], "clean", None):
            assert delete_stale(usage.client, usage.conn, [key("acme", old)], [old], "usage").deleted == 1

    clean()
    assert versions(usage.conn) == [(old, 1, "first"), (old, 2, "clean-up")]
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 6 WHERE merchant_id = 'zeta'")
    usage.write({key("acme", old): 0})
    clean()
    assert len(sealed(usage.conn)) == 2


def test_clean_up_that_was_cut_short_is_sealed_by_the_next_run(usage: Usage) -> None:
    old = YESTERDAY - dt.timedelta(days=20)
    usage.write({key("acme", old): 5, key("acme"): 1})
    usage.aggregate(old)
    usage.conn.execute(
        "INSERT INTO usage_deletion (merchant_id, date, metric_type, value) VALUES ('acme', %s, 'queries', 5)", [old]
    )
    usage.client.delete(raw(key("acme", old)))
    usage.aggregate()
    assert versions(usage.conn)[:2] == [(old, 1, "first"), (old, 2, "clean-up")]
