"""Waits for something no longer than it is worth, and not again for what has just hung."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

Value = TypeVar("Value")

#: What fails sooner has not hung, and costs nothing to try again: a refused connection, say.
HANGS_FROM: Final = 1.0
#: So long what hung is left alone. A process has several callbacks to make, one after the other, and the DAG processor
#: kills it after 50 s: each server is waited for twice in that time at most.
OPEN_SECONDS: Final = 30.0

# Until when, by address; hashed, because an address may hold a secret. An address, and not the name of a connection:
# one that somebody has corrected is another server.
_open_until: dict[int, float] = {}


class TimedOut(Exception):
    """It took too long."""


class CircuitOpen(TimedOut):
    """It took too long a moment ago."""


@contextmanager
def circuit_breaker(address: str) -> Iterator[None]:
    """Try something that may hang, unless it has just done so.

    Raises:
        CircuitOpen: it has hung just now, and is not tried.
    """
    if time.monotonic() < _open_until.get(hash(address), 0):
        raise CircuitOpen
    with opened_by_hanging(address):
        yield


@contextmanager
def opened_by_hanging(address: str) -> Iterator[None]:
    """Go on with what may hang, and if it does, in vain, let nobody try it for a while."""
    began = time.monotonic()
    try:
        yield
    except Exception:
        if (now := time.monotonic()) - began >= HANGS_FROM:
            _open_until[hash(address)] = now + OPEN_SECONDS
        raise


def with_timeout(seconds: float, work: Callable[[], Value]) -> Value:
    """What the work returns or raises, if it does so in time.

    A socket's timeout bounds each read alone, and none bounds a name's lookup: only another thread can be left behind.

    Raises:
        TimedOut: it did not; the thread goes on, and ends with the process at the latest.
    """
    outcome: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((work(), None))
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True).start()
    try:
        value, error = outcome.get(timeout=max(seconds, 0.001))
    except queue.Empty:
        raise TimedOut from None
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]  # as work returned it
