"""The usage page without Airflow and without a browser: asked over HTTP, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient
from psycopg import Connection

from merchant_usage.page import date_routes
from merchant_usage.page.access import Doors, Visitor
from merchant_usage.page.app import create_app
from tests.support import NOW, Usage, settings


def anna() -> Visitor:
    return Visitor("anna", may_act=True)


@pytest.fixture
def doors(usage: Usage) -> Doors:
    @contextmanager
    def reading() -> Iterator[Connection]:
        yield usage.conn

    return Doors(settings, reading, anna)


@pytest.fixture(autouse=True)
def then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks does so at the moment at which tests' runs are made; what is sealed and decided has its real time."""
    monkeypatch.setattr(date_routes, "clock", SimpleNamespace(now=lambda: NOW))


@pytest.fixture
def site(doors: Doors) -> TestClient:
    return TestClient(create_app(doors))


@pytest.fixture
def at_noon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is looked at when the runs of the tests are: at `NOW`."""
    monkeypatch.setattr("merchant_usage.clock.now", lambda: NOW)
