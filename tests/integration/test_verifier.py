"""The script of the docs, which shares no code with us, agrees with what we write, and with nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from merchant_usage.cli.main import main
from merchant_usage.connections import POSTGRES_URL
from tests.support import PROJECT, TODAY, YESTERDAY, Usage, key

SCRIPT = PROJECT / "docs" / "reference" / "verify_seal.py"
ODD = "a:b\n\té\u4e2d'\\,7:x"


def verified(*arguments: str | Path) -> tuple[int, str]:
    """Run the script where nothing of ours can be imported."""
    command = [sys.executable, "-I", str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


@pytest.fixture
def written(
    usage: Usage, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Path]:
    """Write what a command answers into a file."""
    private_key = Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    (tmp_path / "key.pem").write_bytes(
        private_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public = private_key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pub").write_bytes(public)
    monkeypatch.setenv(POSTGRES_URL, database_url)
    for value in (1, 2, 3):
        counters = {key(f"m{n}", metric_type=metric): value * n for n in range(1, 12) for metric in ("a", "b c")}
        usage.write({**counters, key(ODD): value})
        usage.aggregate(seal_key_file=str(tmp_path / "key.pem"))

    def write(*arguments: str) -> Path:
        capsys.readouterr()
        assert main(arguments) == 0
        path = tmp_path / f"{arguments[0]}.json"
        path.write_text(capsys.readouterr().out, encoding="utf-8")
        return path

    return write


def test_script_is_short_and_stands_alone() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 100
    assert "import merchant_usage" not in text
    assert "from merchant_usage" not in text


@pytest.mark.parametrize("merchant", [ODD, "m1", "m11", "m9"])
def test_script_takes_what_we_write(written: Callable[..., Path], merchant: str, tmp_path: Path) -> None:
    checkpoints = written("seals", "--export")
    proof = written("prove", merchant, str(YESTERDAY))
    assert verified(checkpoints) == (0, "3 seals hold")
    assert verified(checkpoints, proof) == (0, "3 seals hold, and so does the proof")
    assert verified(checkpoints, proof, "--public-key", tmp_path / "key.pub")[0] == 0


def forged(path: Path, change: Callable[[Any], None]) -> Path:
    documents = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change(documents)
    path.write_text("".join(json.dumps(document) + "\n" for document in documents), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "field", ["usage_date", "version", "sealed_at", "run_id", "counters", "total", "root", "reason"]
)
def test_script_refuses_a_seal_of_which_any_field_is_another(written: Callable[..., Path], field: str) -> None:
    def change(seals: Any) -> None:
        seals[1][field] = f"{seals[1][field]}1"

    code, told = verified(forged(written("seals", "--export"), change))
    assert (code, told) == (
        1,
        f"seal 2 ({YESTERDAY}{'1' * (field == 'usage_date')}): its chain is not that of its fields",
    )


def test_script_refuses_a_gap_and_another_key(written: Callable[..., Path], tmp_path: Path) -> None:
    checkpoints = forged(written("seals", "--export"), lambda seals: seals.pop(1))
    assert "seal 3 " in verified(checkpoints)[1]
    other = Ed25519PrivateKey.generate().public_key()
    (tmp_path / "other.pub").write_bytes(
        other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    code, told = verified(written("seals", "--export"), "--public-key", tmp_path / "other.pub")
    assert code == 1
    assert told.count("is not signed with this key") == 3


def test_script_refuses_a_proof_of_another_number(written: Callable[..., Path]) -> None:
    checkpoints, path = written("seals", "--export"), written("prove", "m1", str(YESTERDAY))
    proof = json.loads(path.read_text(encoding="utf-8"))
    proof["counters"][0]["metric_value"] = "4"
    path.write_text(json.dumps(proof), encoding="utf-8")
    assert verified(checkpoints, path) == (1, "the proof does not lead to the root of its seal")
    proof["counters"][0]["metric_value"] = "3"
    proof["seal"]["run_id"] = str(TODAY)
    path.write_text(json.dumps(proof), encoding="utf-8")
    assert verified(checkpoints, path) == (1, "seal 3 of the proof is none of the checkpoints")
