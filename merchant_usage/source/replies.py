"""Lets a reply of Redis take few bytes here, however long the names and values in it are.

Nothing asks Redis for short names only, and MGET cannot be asked for beginnings. A reply that grows too large is
therefore taken apart as it comes: of what is too long for a usage key or a counter its beginning is kept, and a digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from typing import Any, Final

from redis.exceptions import InvalidResponse

from merchant_usage.model.long_text import HEAD, KEPT_WHOLE, LongText

#: More than a page of a thousand of the longest usage keys; up to this hiredis reads replies, which is faster.
LARGE_REPLY: Final = 4 * 2**20

# That a reply is not complete yet.
_INCOMPLETE: Final = object()

# A generator that pauses while bytes are missing, and returns what it has read.
Reading = Generator[None, None, Any]


class BoundedReader:
    """Stands in for the hiredis reader of a connection, and takes over from it when a reply becomes too large."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._plain: Any = connection._parser._reader  # noqa: SLF001  # redis-py has no other way in
        #: What hiredis answers when it needs more bytes.
        self._nothing: Any = self._plain.gets()
        #: What was read since there was nothing left to be read, and how many replies were taken from it.
        self._fed: list[bytes] = []
        self._fed_bytes = self._taken = 0
        self._cutter: _Cutter | None = None
        #: Whether a reply was cut since somebody set this to false.
        self.has_cut = False

    def feed(self, buffer: bytearray, start: int = 0, length: int = -1) -> None:
        """Take what came from the server."""
        piece = bytes(memoryview(buffer)[start : start + length] if length >= 0 else memoryview(buffer)[start:])
        if self._cutter is not None:
            self._cutter.feed(piece)
            return
        self._fed.append(piece)
        self._fed_bytes += len(piece)
        if self._fed_bytes <= LARGE_REPLY:
            self._plain.feed(piece)
            return
        self._cutter = _Cutter(self._connection._parser.parse_error)  # noqa: SLF001  # as above
        for earlier in self._fed:
            self._cutter.feed(earlier)
        for _ in range(self._taken):
            self._cutter.gets()
        self._forget()

    def gets(self, *arguments: Any) -> Any:
        """The next reply, or what hiredis says when it is not complete."""
        if self._cutter is not None:
            return self._gets_cut()
        reply = self._plain.gets(*arguments)
        if reply is not self._nothing:
            # Asked now, because of a reply that has begun hiredis keeps no bytes once it has understood them.
            if self._plain.has_data():
                self._taken += 1
            else:
                self._forget()
        return reply

    def has_data(self) -> bool:
        """Whether bytes wait that no reply was made of."""
        return bool(self._cutter.has_data() if self._cutter is not None else self._plain.has_data())

    def _gets_cut(self) -> Any:
        assert self._cutter is not None  # its caller has looked
        reply = self._cutter.gets()
        if reply is _INCOMPLETE:
            return self._nothing
        self.has_cut = True
        if not self._cutter.has_data():
            self._cutter = None
            parser = self._connection._parser  # noqa: SLF001  # as above
            # The old reader holds the beginning of what was cut.
            parser.on_connect(self._connection)
            self._plain, parser._reader = parser._reader, self  # noqa: SLF001  # as above
        return reply

    def _forget(self) -> None:
        self._fed.clear()
        self._fed_bytes = self._taken = 0


def bound_replies(connection: Any) -> BoundedReader:
    """See to it that no reply on a connected connection takes much memory, until it is connected anew."""
    parser = connection._parser  # noqa: SLF001  # redis-py has no other way in
    if not isinstance(parser._reader, BoundedReader):  # noqa: SLF001  # as above
        parser._reader = BoundedReader(connection)  # noqa: SLF001  # as above
    reader: BoundedReader = parser._reader  # noqa: SLF001  # as above
    return reader


class ScanPace:
    """How many keys SCAN is asked to look at: few after a page that was too large, and then more again.

    A server holds all of a page that it sends.
    """

    def __init__(self, most: int) -> None:
        self.count = self._most = most

    def adapt(self, replies: BoundedReader) -> None:
        """Take note of how large the page was that was read last."""
        self.count = max(1, self._most // 100) if replies.has_cut else min(self._most, self.count * 2)
        replies.has_cut = False


class _Cutter:
    """Reads the protocol piece by piece, and cuts what is too long."""

    def __init__(self, error: Any) -> None:
        self._error = error
        self._data = bytearray()
        self._reading: Reading = self._reply()

    def feed(self, piece: bytes) -> None:
        self._data += piece

    def has_data(self) -> bool:
        return bool(self._data)

    def gets(self) -> Any:
        """The next reply, or `_INCOMPLETE`."""
        try:
            next(self._reading)
        except StopIteration as end:
            self._reading = self._reply()
            return end.value
        return _INCOMPLETE

    def _reply(self) -> Reading:
        line = yield from self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return (yield from self._text(int(rest)))
        if kind in (b"*", b"~"):
            replies = []
            for _ in range(int(rest)):
                replies.append((yield from self._reply()))  # noqa: PERF401  # a comprehension cannot pause
            return replies
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"_":
            return None
        if kind == b"-":
            return self._error(rest.decode(errors="replace"))
        raise InvalidResponse(f"A reply of Redis begins with {line[:20]!r}, which is not expected here.")

    def _line(self) -> Reading:
        while (end := self._data.find(b"\r\n")) < 0:
            yield
        return self._take(end + 2)[:-2]

    def _text(self, length: int) -> Reading:
        if length < 0:
            return None
        if length <= KEPT_WHOLE:
            while len(self._data) < length + 2:
                yield
            return self._take(length + 2)[:-2]
        head, digest, left = b"", hashlib.sha256(), length
        while left:
            while not self._data:
                yield
            piece = self._take(left)
            left -= len(piece)
            digest.update(piece)
            head += piece[: HEAD - len(head)]
        while len(self._data) < 2:
            yield
        self._take(2)
        return LongText(head, length, digest.digest())

    def _take(self, most: int) -> bytes:
        taken = bytes(self._data[:most])
        del self._data[:most]
        return taken
