"""What is hashed of a date, byte by byte: the leaf of a merchant, the tree over all of them, the chain of seals. Pure.

docs/reference/seals.md has the same in words, and `verify_seal.py` beside it checks it without this package.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

#: What stands before the bytes of a leaf, and of a node of two: else one could be taken for the other (RFC 6962).
LEAF: Final = b"\x00"
NODE: Final = b"\x01"
#: Bytes of a SHA-256.
SIZE: Final = 32
#: What the first seal follows.
NOTHING: Final = bytes(SIZE)
#: The first field of a row's bytes: what it is, and in which form.
FORM: Final = "usage_seal 1"


class Counter(NamedTuple):
    """What is sealed of a counter, besides whose it is."""

    metric_type: str
    metric_value: int
    carried: int


def text_bytes(text: str) -> bytes:
    """A text with its length before it, so that what follows cannot be taken for a part of it."""
    raw = text.encode()
    return b"%d:%s," % (len(raw), raw)


def leaf_of(merchant_id: str, counters: Iterable[Counter]) -> bytes:
    """The leaf of a merchant, with its counters by metric, in the order of their bytes."""
    ordered = sorted(counters, key=lambda counter: counter.metric_type.encode())
    held = (text_bytes(metric) + b"%d %d;" % (value, carried) for metric, value, carried in ordered)
    return hashlib.sha256(LEAF + text_bytes(merchant_id) + b"".join(held)).digest()


def node_of(left: bytes, right: bytes) -> bytes:
    """The node above two."""
    return hashlib.sha256(NODE + left + right).digest()


def _node_over(leaves: bytes) -> bytes:
    """The node over a power of two of leaves: level by level, which takes half the time of node by node."""
    sha256, nodes, pair = hashlib.sha256, leaves, 2 * SIZE
    while len(nodes) > SIZE:
        nodes = b"".join([sha256(NODE + nodes[at : at + pair]).digest() for at in range(0, len(nodes), pair)])
    return nodes


class Tree:
    """The root of a tree whose leaves come one by one; holds one node a level.

    A node without a neighbour is taken one level up as it is: no two lists of leaves have one root.
    """

    def __init__(self) -> None:
        self._nodes: list[tuple[int, bytes]] = []
        self._leaves = 0

    def add(self, leaves: bytes) -> None:
        """Add leaves, in their order."""
        start = 0
        while left := (len(leaves) - start) // SIZE:
            # As many as make one whole node where the tree stands now: a power of two that it is a multiple of.
            level = left.bit_length() - 1
            if self._leaves:
                level = min(level, (self._leaves & -self._leaves).bit_length() - 1)
            end = start + (SIZE << level)
            self._add_node(_node_over(leaves[start:end]), level)
            self._leaves += 1 << level
            start = end

    def _add_node(self, node: bytes, level: int) -> None:
        while self._nodes and self._nodes[-1][0] == level:
            node = node_of(self._nodes.pop()[1], node)
            level += 1
        self._nodes.append((level, node))

    @property
    def root(self) -> bytes:
        """Of the leaves so far; without any the SHA-256 of nothing."""
        if not self._nodes:
            return hashlib.sha256(b"").digest()
        *others, (_, root) = self._nodes
        for _, node in reversed(others):
            root = node_of(node, root)
        return root


class Step(NamedTuple):
    """What a node is hashed with on the way to the root. `is_left`: it stands before the node."""

    is_left: bool
    hash: bytes


def path_of(leaves: bytes, index: int) -> list[Step]:
    """The way from one leaf of a tree up to its root."""
    path: list[Step] = []
    level = leaves
    while len(level) > SIZE:
        neighbour = index ^ 1
        if beside := level[neighbour * SIZE : (neighbour + 1) * SIZE]:
            path.append(Step(neighbour < index, beside))
        level = b"".join(
            node_of(pair[:SIZE], pair[SIZE:]) if len(pair) > SIZE else pair
            for pair in (level[start : start + 2 * SIZE] for start in range(0, len(level), 2 * SIZE))
        )
        index //= 2
    return path


def root_by(leaf: bytes, path: Iterable[Step]) -> bytes:
    """The root to which a path leads."""
    node = leaf
    for is_left, beside in path:
        node = node_of(beside, node) if is_left else node_of(node, beside)
    return node


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal: what a version of a date held. `previous` is the chain of the seal before it."""

    number: int
    date: dt.date
    version: int
    sealed_at: dt.datetime
    run_id: str
    counters: int
    total: int
    root: bytes
    reason: str
    previous: bytes
    chain: bytes = b""
    signature: bytes | None = None

    @property
    def row_bytes(self) -> bytes:
        """What the chain takes in of it: each field as a text, in this order."""
        fields = (
            FORM,
            str(self.number),
            self.date.isoformat(),
            str(self.version),
            format_moment(self.sealed_at),
            self.run_id,
            str(self.counters),
            str(self.total),
            self.root.hex(),
            self.reason,
        )
        return b"".join(map(text_bytes, fields))

    @property
    def expected_chain(self) -> bytes:
        """What its chain has to be."""
        return hashlib.sha256(self.previous + self.row_bytes).digest()

    @property
    def name(self) -> str:
        """For people: which seal it is."""
        return f"seal {self.number:,} ({self.date}, version {self.version})"

    def to_json(self) -> dict[str, Any]:
        """A checkpoint: all that it takes to tell later that this seal is still there. Numbers may be large: texts."""
        return {
            "seal_number": self.number,
            "usage_date": self.date.isoformat(),
            "version": self.version,
            "sealed_at": format_moment(self.sealed_at),
            "run_id": self.run_id,
            "counters": self.counters,
            "total": str(self.total),
            "root": self.root.hex(),
            "reason": self.reason,
            "previous": self.previous.hex(),
            "chain": self.chain.hex(),
            "signature": None if self.signature is None else self.signature.hex(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Seal:
        """The seal of a checkpoint.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        return cls(
            int(data["seal_number"]),
            dt.date.fromisoformat(data["usage_date"]),
            int(data["version"]),
            dt.datetime.fromisoformat(data["sealed_at"]),
            str(data["run_id"]),
            int(data["counters"]),
            int(data["total"]),
            bytes.fromhex(data["root"]),
            str(data["reason"]),
            bytes.fromhex(data["previous"]),
            bytes.fromhex(data["chain"]),
            None if data.get("signature") is None else bytes.fromhex(data["signature"]),
        )


def format_moment(moment: dt.datetime) -> str:
    """A moment as it is hashed: UTC, to the microsecond that PostgreSQL keeps."""
    return f"{moment.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
