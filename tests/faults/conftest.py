"""What the fault tests share."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest

from merchant_usage import clock
from merchant_usage.log import Log, find_by, send_to
from tests.faults.long_life import Life
from tests.support import Usage


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log: thousands of runs would fill memory with it."""
    before = Log.find
    send_to(lambda *_: None)
    yield
    find_by(before)


@pytest.fixture
def life(usage: Usage) -> Iterator[Life]:
    life = Life(usage)
    with mock.patch.object(clock, "now", life.present):
        yield life
