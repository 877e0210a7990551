"""However a reply is cut into pieces on its way, and wherever it becomes too large, it is read as it was sent."""

from __future__ import annotations

import hashlib
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merchant_usage.model.long_text import LongText
from merchant_usage.source import replies
from merchant_usage.source.replies import bound_replies

NOTHING = object()
LARGE = 60
LONG = 20


class Failure(Exception):
    """An error as a server answers it."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Failure) and self.args == other.args

    __hash__ = Exception.__hash__


class Parser:
    """What redis-py keeps a connection's reader in."""

    def __init__(self) -> None:
        self.on_connect(None)

    def on_connect(self, _: Any) -> None:
        self._reader: Any = hiredis.Reader(notEnoughData=NOTHING, replyError=self.parse_error)

    def parse_error(self, text: str) -> Failure:
        return Failure(text)


class Connection:
    """A connection of redis-py, as far as its reader goes."""

    def __init__(self) -> None:
        self._parser = Parser()


texts = st.binary(max_size=3 * LONG) | st.binary(min_size=LARGE, max_size=5 * LARGE)
plain = texts | st.none() | st.integers(-(2**63), 2**63 - 1)
messages = st.recursive(plain, lambda inner: st.lists(inner, max_size=5), max_leaves=12)
failures = st.sampled_from(["ERR no", "WRONGTYPE of it"]).map(Failure)


def encoded(reply: Any) -> bytes:
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if isinstance(reply, Failure):
        return b"-%b\r\n" % str(reply).encode()
    return b"*%d\r\n%b" % (len(reply), b"".join(map(encoded, reply)))


def is_same(read: Any, sent: Any) -> bool:
    if isinstance(read, LongText):
        whole = len(sent) > LONG and read.length == len(sent)
        return whole and sent.startswith(read) and read.sha256 == hashlib.sha256(sent).digest()
    if isinstance(sent, list):
        return len(read) == len(sent) and all(map(is_same, read, sent))
    return bool(read == sent)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a short text exceeds."""
    monkeypatch.setattr(replies, "LARGE_REPLY", LARGE)
    monkeypatch.setattr(replies, "KEPT_WHOLE", LONG)


@pytest.mark.usefixtures("small")
@given(st.lists(messages | failures, min_size=1, max_size=6), st.lists(st.integers(1, 2 * LARGE), min_size=1))
def test_replies_are_read_as_they_were_sent(sent: list[Any], sizes: list[int]) -> None:
    stream = b"".join(map(encoded, sent))
    reader = bound_replies(Connection())
    read: list[Any] = []
    at = turn = 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        piece = bytearray(b"#" + stream[at : at + size])
        reader.feed(piece, 1, len(piece) - 1)
        at, turn = at + size, turn + 1
        while (reply := reader.gets()) is not NOTHING:
            read.append(reply)
    assert len(read) == len(sent)
    assert all(map(is_same, read, sent))
    assert not reader.has_data()
    # And goes on as before.
    reader.feed(bytearray(b"+OK\r\n"))
    assert reader.gets() == b"OK"
