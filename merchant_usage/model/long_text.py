"""Names and values that are too long to be kept: their beginning, their length, and a digest of the whole."""

from __future__ import annotations

import hashlib
from typing import Final, Self

#: Bytes that are kept of a name or value that is too long.
HEAD: Final = 1024
#: What is longer may be cut before anybody looks at it: no usage key is so long (a prefix has 1024 bytes at most, a
#: merchant id as well, a metric type 256), and no counter.
KEPT_WHOLE: Final = 4096


class LongText(bytes):
    """The first bytes of a name or value; `length` and `sha256` are those of the whole."""

    length: int
    sha256: bytes

    def __new__(cls, head: bytes, length: int, sha256: bytes) -> Self:
        """What is kept of it."""
        made = super().__new__(cls, head[:HEAD])
        made.length, made.sha256 = length, sha256
        return made

    @classmethod
    def of(cls, whole: bytes) -> Self:
        """Cut what is at hand."""
        return cls(whole, len(whole), hashlib.sha256(whole).digest())
