"""What the fault tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.usage.log import Log, send_to


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log: thousands of runs would fill memory with it."""
    before = Log.sink
    send_to(lambda *_: None)
    yield
    send_to(before)
