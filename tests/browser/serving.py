"""Serves the usage page on 127.0.0.1, by itself or behind a proxy that shows it below a path."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI

from tests.http_servers import serving

#: Where the proxy shows the page. No folder of it is known to the page.
PATH: Final = "/tools/of finance/usage".replace(" ", "%20")
# What concerns one connection only, and not what is passed on.
_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "date", "server"})


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The address of the page's folder, ending in a slash."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    # Whoever comes before the server is ready waits in this socket's queue.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


class _PassesOn(BaseHTTPRequestHandler):
    """Takes the path off and passes the rest on; elsewhere there is nothing."""

    target: tuple[str, int]

    def do_GET(self) -> None:
        if not self.path.startswith(f"{PATH}/"):
            self.send_error(404)
            return
        to = HTTPConnection(*self.target, timeout=30)
        to.request("GET", self.path.removeprefix(PATH), headers=dict(self.headers))
        answer = to.getresponse()
        body = answer.read()
        to.close()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def behind_a_path(address: str) -> Iterator[str]:
    """The address at which a proxy shows what is at another one."""
    parts = urlsplit(address)
    handler = type("PassesOn", (_PassesOn,), {"target": (parts.hostname, parts.port)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}{PATH}/"
