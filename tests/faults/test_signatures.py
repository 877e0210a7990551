"""Seals that somebody made anew, or whose signatures were taken away, do not pass an audit with the public key."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg import Connection

from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL
from tests.support import YESTERDAY, Usage, key

DAYS = [YESTERDAY - dt.timedelta(days=day) for day in (3, 2, 1, 0)]
Tell = Callable[..., tuple[int, str, str]]


class Keys(NamedTuple):
    """Two files of a key."""

    private: str
    public: str


def make_keys(folder: Path, name: str, private_key: Any) -> Keys:
    pem = serialization.Encoding.PEM
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(private_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    public.write_bytes(private_key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return Keys(str(private), str(public))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """The key of this pipeline."""
    return make_keys(tmp_path, "seal", Ed25519PrivateKey.generate())


@pytest.fixture
def signed(usage: Usage, keys: Keys) -> Usage:
    """Four days, a seal each: the first was made when there was no key yet."""
    usage.write({key("acme", day): 10 + n for n, day in enumerate(DAYS)})
    usage.aggregate(DAYS[0])
    for day in DAYS[1:]:
        usage.aggregate(day, seal_key_file=keys.private)
    return usage


@pytest.fixture
def tell(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tell:
    """Audit these days: the exit code, the answer, and the complaint."""
    monkeypatch.setenv(POSTGRES_URL, database_url)

    def run(*options: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["audit", "--from", str(DAYS[0]), "--to", str(DAYS[-1]), *options])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def as_superuser(conn: Connection, statement: str) -> None:
    with conn.transaction():
        conn.execute("SET LOCAL session_replication_role = replica")
        conn.execute(statement.encode())


def test_seals_that_are_signed_pass(signed: Usage, keys: Keys, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    del signed
    said = "Seals that are signed: 3. Those before the first of them are not: 1."
    code, out, err = tell("--public-key", keys.public)
    assert (code, out.splitlines()[-1], err) == (0, said, "")
    code, out, err = tell()
    assert (code, err) == (0, "")
    assert "signed" not in out, "nobody looked"
    monkeypatch.setenv("USAGE_SEAL_KEY_FILE", keys.private)
    code, out, err = tell()
    assert (code, out.splitlines()[-1], err) == (0, said, "")


@pytest.mark.parametrize("by_the_setting", [False, True])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("signature = NULL WHERE seal_number = 3", "is not signed, and seals before it are"),
        ("signature = sha512(chain) WHERE seal_number = 3", "is not signed with this key"),
        ("signature = chain WHERE seal_number = 3", "is not signed with this key"),
        (
            "signature = (SELECT signature FROM usage_seal WHERE seal_number = 2) WHERE seal_number = 3",
            "is not signed with this key",
        ),
    ],
)
def test_signature_that_is_gone_or_wrong_is_named(
    signed: Usage, keys: Keys, tell: Tell, monkeypatch: pytest.MonkeyPatch, change: str, told: str, by_the_setting: bool
) -> None:
    as_superuser(signed.conn, f"UPDATE usage_seal SET {change}")  # noqa: S608 - of this test
    if by_the_setting:
        monkeypatch.setenv("USAGE_SEAL_KEY_FILE", keys.private)
    options = () if by_the_setting else ("--public-key", keys.public)
    code, out, err = tell(*options)
    assert (code, err) == (1, f"error: Seal 3 ({DAYS[2]}, version 1) {told}.\n")
    assert "The chain of seals is whole." in out, "nothing else can tell"
    answer = json.loads(tell(*options, "--json")[1])
    assert (answer["intact"], answer["signed"], answer["unsigned"]) == (False, 2, 1)
    assert answer["signatures"] == [f"seal 3 ({DAYS[2]}, version 1) {told}"]
    if not by_the_setting:
        assert tell()[0] == 0


def test_all_signatures_taken_away_are_told_to_who_brings_the_key(signed: Usage, keys: Keys, tell: Tell) -> None:
    as_superuser(signed.conn, "UPDATE usage_seal SET signature = NULL")
    code, _, err = tell("--public-key", keys.public)
    assert (code, err) == (1, "error: No seal is signed.\n")


def test_key_that_is_new_raises_no_alarm_before_a_seal_is_signed_with_it(
    usage: Usage, keys: Keys, tell: Tell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USAGE_SEAL_KEY_FILE", keys.private)
    assert tell("--public-key", keys.public)[0] == 0
    usage.write({key("acme", DAYS[0]): 1})
    usage.aggregate(DAYS[0])
    code, out, err = tell()
    assert (code, out.splitlines()[-1], err) == (
        0,
        "Seals that are signed: 0. Those before the first of them are not: 1.",
        "",
    )


def test_keys_of_before_and_after_a_change_are_given_together(
    signed: Usage, keys: Keys, tell: Tell, tmp_path: Path
) -> None:
    other = make_keys(tmp_path, "other", Ed25519PrivateKey.generate())
    signed.write({key("acme", DAYS[0]): 99})
    signed.aggregate(DAYS[0], seal_key_file=other.private)
    code, _, err = tell("--public-key", keys.public)
    assert (code, err) == (1, f"error: Seal 5 ({DAYS[0]}, version 2) is not signed with this key.\n")
    assert tell("--public-key", keys.public, "--public-key", other.public)[0] == 0


def test_file_that_holds_no_public_key_is_one_error(
    signed: Usage, keys: Keys, tell: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del signed
    other = make_keys(tmp_path, "other", generate_private_key(SECP256R1()))
    for path, told in (
        (str(tmp_path / "none.pem"), "cannot be read"),
        (keys.private, "is no key"),
        (other.public, "is a key of another kind"),
    ):
        code, _, err = tell("--public-key", path)
        assert code == 2
        assert f"--public-key='{path}' {told}" in err
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    code, _, err = tell("--public-key", keys.public)
    assert code == 2
    assert "needs the package `cryptography`" in err
