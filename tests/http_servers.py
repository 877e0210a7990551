"""Lets an HTTP server of the standard library answer, in a thread, while a block lasts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer

# How soon it notices that it is to end.
POLL_SECONDS = 0.05


@contextmanager
def serving(server: HTTPServer) -> Iterator[None]:
    """Serve, and close the server at the end."""
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
