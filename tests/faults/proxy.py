"""A TCP proxy on loopback that cuts a connection in the middle of an answer."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class CuttingProxy:
    """Passes everything on, until the server has sent so many bytes; then it cuts that connection, once."""

    def __init__(self, url: str, cut_after: int) -> None:
        self._parts = urlsplit(url)
        self._left = cut_after
        self.has_cut = False
        #: How many were made so far.
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        host = f"{self._parts.username or ''}:{self._parts.password}@127.0.0.1:{self._listener.getsockname()[1]}"
        return urlunsplit(self._parts._replace(netloc=host))

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection((self._parts.hostname, self._parts.port))
            self._sockets += [client, server]
            for source, target, counted in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._pass_on, args=(source, target, counted))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    cut = counted and not self.has_cut and len(data) >= self._left
                    if cut:
                        self.has_cut = True
                        data = data[: self._left]
                    elif counted:
                        self._left -= len(data)
                target.sendall(data)
                if cut:
                    break
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


class LosingProxy(CuttingProxy):
    """Passes everything on, until the client says something; that, and all after it, is lost. It may hang then."""

    def __init__(self, url: str, moment: str, *, hangs: bool) -> None:
        super().__init__(url, 0)
        self._moment = moment.encode()
        self._over = threading.Event()
        self._heard = threading.Event()
        if not hangs:
            self._over.set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        super().__exit__(kind, error, trace)

    def wait_until_cut(self, seconds: float) -> bool:
        """Whether the client says it within this time."""
        return self._heard.wait(seconds)

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not counted and self._moment in data:
                    self.has_cut = True
                    self._heard.set()
                    self._over.wait()
                    break
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
