"""What may happen to usage in Redis before it is read."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple


class RiskKind(StrEnum):
    """What the danger is."""

    EVICTED = "evicted"
    MAY_EVICT = "may_evict"
    WITHOUT_TTL = "without_ttl"
    SHORT_TTL = "short_ttl"


class Risk(NamedTuple):
    """A danger, and what was seen of it in one sentence."""

    kind: RiskKind
    seen: str


class ServerState(NamedTuple):
    """What a Redis server says of its memory.

    `run_id` is new whenever it is started, and from then on it counts the keys it evicts, to make room.
    """

    server: str
    run_id: str
    evicted_keys: int
    #: Which keys it may evict (`allkeys-lru`); None if none.
    eviction: str | None = None


class SourceState(NamedTuple):
    """What a scan saw of the servers it read, and of the dangers."""

    servers: tuple[ServerState, ...] = ()
    risks: tuple[Risk, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"servers": list(map(list, self.servers)), "risks": [[str(risk.kind), risk.seen] for risk in self.risks]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SourceState:
        """The state that `to_json` wrote down."""
        risks = tuple(Risk(RiskKind(kind), seen) for kind, seen in data["risks"])
        return cls(tuple(ServerState(*server) for server in data["servers"]), risks)
