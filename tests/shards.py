"""Three Redis servers that are no cluster: a client of theirs chooses one for each key, as the API would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import redis

from local.servers import Valkey
from merchant_usage.model.keys import CounterKey
from tests.support import raw


@dataclass
class ThreeServers:
    """The servers, and the application that counts into them."""

    servers: list[Valkey]
    clients: list[redis.Redis]

    @property
    def url(self) -> str:
        """All of them, as the command line takes them."""
        return ",".join(server.url for server in self.servers)

    def owner(self, counter: CounterKey) -> int:
        """Which of them the application counts a key in."""
        return crc32(raw(counter)) % len(self.clients)

    def write(self, counters: Mapping[CounterKey, int | str | bytes]) -> None:
        """Set counters, as the API would have counted them."""
        for number, client in enumerate(self.clients):
            of_it = {raw(counter): value for counter, value in counters.items() if self.owner(counter) == number}
            assert of_it or len(counters) < 10 * len(self.clients), "no server is to be without any"
            if of_it:
                client.mset(of_it)

    def everything(self) -> dict[bytes, int]:
        """How many of them hold a key, by its name."""
        names = [bytes(name) for client in self.clients for name in client.scan_iter()]
        return {name: names.count(name) for name in names}


@contextmanager
def three_servers(folder: Path) -> Iterator[ThreeServers]:
    """Start them."""
    with ExitStack() as stack:
        servers = [stack.enter_context(Valkey(folder / f"shard-{n}", extra_config=["appendonly no"])) for n in range(3)]
        clients = [stack.enter_context(redis.Redis.from_url(server.url)) for server in servers]
        yield ThreeServers(servers, clients)
