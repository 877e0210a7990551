"""Checks what `merchant-usage seals --export` and `merchant-usage prove` write, without any of its code.

    python verify_seal.py CHECKPOINTS [PROOF] [--public-key PEM]

CHECKPOINTS is a file of seals, a line each, which must follow on each other; PROOF what one merchant had. With a public
key each seal must be signed with it, which takes the package `cryptography`. Exit code 0: all holds; 1: not.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def text(value: object) -> bytes:
    raw = str(value).encode()
    return b"%d:%s," % (len(raw), raw)


FIELDS = ("seal_number", "usage_date", "version", "sealed_at", "run_id", "counters", "total", "root", "reason")


def chain_of(seal: dict[str, Any]) -> bytes:
    row = text("usage_seal 1") + b"".join(text(seal[field]) for field in FIELDS)
    return sha256(bytes.fromhex(seal["previous"]) + row)


def check_chain(seals: list[dict[str, Any]], public_key: Any) -> Iterator[str]:
    before: dict[str, Any] = {}
    for seal in seals:
        name = f"seal {seal['seal_number']} ({seal['usage_date']})"
        if chain_of(seal).hex() != seal["chain"]:
            yield f"{name}: its chain is not that of its fields"
        if seal["seal_number"] == 1 and seal["previous"] != "00" * 32:
            yield f"{name}: something stands before the first"
        if before and seal["seal_number"] != before["seal_number"] + 1:
            yield f"{name}: follows seal {before['seal_number']}"
        if before and seal["previous"] != before["chain"]:
            yield f"{name}: does not hang on the seal before it"
        if public_key and not is_signed(seal, public_key):
            yield f"{name}: is not signed with this key"
        before = seal


def is_signed(seal: dict[str, Any], public_key: Any) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        public_key.verify(bytes.fromhex(seal["signature"] or ""), bytes.fromhex(seal["chain"]))
    except InvalidSignature:
        return False
    return True


def check_proof(proof: dict[str, Any], seals: list[dict[str, Any]]) -> Iterator[str]:
    node = b"\x00" + text(proof["merchant_id"])
    for counter in proof["counters"]:
        node += text(counter["metric_type"]) + f"{counter['metric_value']} {counter['carried']};".encode()
    node = sha256(node)
    for step in proof["path"]:
        beside = bytes.fromhex(step["hash"])
        node = sha256(b"\x01" + (beside + node if step["side"] == "left" else node + beside))
    if node.hex() != proof["seal"]["root"]:
        yield "the proof does not lead to the root of its seal"
    if proof["seal"] not in seals:
        yield f"seal {proof['seal']['seal_number']} of the proof is none of the checkpoints"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints")
    parser.add_argument("proof", nargs="?")
    parser.add_argument("--public-key")
    options = parser.parse_args()
    seals = [json.loads(line) for line in Path(options.checkpoints).read_text(encoding="utf-8").splitlines()]
    public_key: Any = None
    if options.public_key:
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        public_key = load_pem_public_key(Path(options.public_key).read_bytes())
    problems = [*check_chain(seals, public_key)] if seals else ["there is no checkpoint"]
    if options.proof:
        problems += check_proof(json.loads(Path(options.proof).read_text(encoding="utf-8")), seals)
    print("\n".join(problems) or f"{len(seals)} seals hold" + (", and so does the proof" if options.proof else ""))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
