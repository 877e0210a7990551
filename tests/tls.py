"""TLS in front of servers that know none: the Valkey of the tests is built without."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

CHUNK = 65536
# How a client of PostgreSQL asks for TLS.
SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)


@contextmanager
def tls_in_front_of(ports: Sequence[int], certificate: Path, *, postgres: bool = False) -> Iterator[list[int]]:
    """Take TLS connections on 127.0.0.1, one new port for each of these, and pass on what they carry.

    Args:
        postgres: as PostgreSQL takes them, whose clients ask in plain text whether they may begin TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    ready, over = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    fronts: list[int] = []

    async def serve() -> None:
        at_once = None if postgres else context
        servers = [
            await asyncio.start_server(
                partial(_pass_on, port, context if postgres else None),
                "127.0.0.1",
                0,
                ssl=at_once,
                ssl_shutdown_timeout=1 if at_once else None,
            )
            for port in ports
        ]
        fronts.extend(server.sockets[0].getsockname()[1] for server in servers)
        ready.set()
        await over.wait()
        for server in servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(10), "it could not listen"
        yield fronts
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


async def _pass_on(
    port: int, begin_tls: ssl.SSLContext | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        if begin_tls is not None:
            assert await reader.readexactly(len(SSL_REQUEST)) == SSL_REQUEST
            writer.write(b"S")
            await writer.start_tls(begin_tls)
        await asyncio.gather(_pump(reader, to_writer), _pump(to_reader, writer))
    except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
        pass  # one side is gone, or the test is over
    finally:
        for one in (writer, to_writer):
            one.close()
            with suppress(OSError, asyncio.CancelledError):
                await one.wait_closed()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(CHUNK):
        target.write(data)
        await target.drain()
    target.close()
