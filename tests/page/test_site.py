"""What holds for every answer of the page."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from merchant_usage.page.access import Doors
from merchant_usage.page.app import CONTENT_SECURITY_POLICY, STATIC, create_app
from tests.support import YESTERDAY, Usage, key


def test_the_overview_shows_how_a_date_stands(usage: Usage, site: TestClient) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate()
    answer = site.get("/")
    assert answer.status_code == 200
    assert str(YESTERDAY) in answer.text
    assert "verified" in answer.text


@pytest.mark.parametrize("name", sorted(STATIC))
def test_what_the_page_needs_is_served_by_itself(site: TestClient, name: str) -> None:
    answer = site.get(f"/static/{name}")
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY


@pytest.mark.parametrize("name", ["nothing.css", "..%2Fapp.py", "%2e%2e%2fapp.py"])
def test_no_other_file_is_served(site: TestClient, name: str) -> None:
    assert site.get(f"/static/{name}").status_code == 404


def test_a_postgresql_that_is_down_is_a_clear_page(doors: Doors) -> None:
    import psycopg

    @contextmanager
    def down():  # type: ignore[no-untyped-def]
        with psycopg.connect("host=127.0.0.1 port=1 connect_timeout=1") as conn:
            yield conn

    answer = TestClient(create_app(replace(doors, reading=down))).get("/")
    assert answer.status_code == 503
    assert "This cannot be shown" in answer.text
