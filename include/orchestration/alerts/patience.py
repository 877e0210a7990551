"""Waits for something no longer than it is worth."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")


class Impatient(Exception):
    """It took too long."""


def within(seconds: float, work: Callable[[], Value]) -> Value:
    """What the work returns or raises, if it does so in time.

    A socket's timeout bounds each read alone, and none bounds a name's lookup: only another thread can be left behind.

    Raises:
        Impatient: it did not; the thread goes on, and ends with the process at the latest.
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
        raise Impatient from None
    if error is not None:
        raise error
    return value  # type: ignore[no-any-return]  # as work returned it
