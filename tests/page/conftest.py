"""The usage page without Airflow and without a browser: asked over HTTP, on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient
from psycopg import Connection

from merchant_usage.page.access import Doors, Visitor
from merchant_usage.page.app import create_app
from tests.support import Usage, settings


def anna() -> Visitor:
    return Visitor("anna", may_act=True)


@pytest.fixture
def doors(usage: Usage) -> Doors:
    @contextmanager
    def reading() -> Iterator[Connection]:
        yield usage.conn

    return Doors(settings, reading, anna)


@pytest.fixture
def site(doors: Doors) -> TestClient:
    return TestClient(create_app(doors))
