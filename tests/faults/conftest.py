"""What the fault tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from merchant_usage.log import Log, find_by, send_to


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log: thousands of runs would fill memory with it."""
    before = Log.find
    send_to(lambda *_: None)
    yield
    find_by(before)
