"""What holds for every answer of the page."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from merchant_usage.model.report import DateVerdict
from merchant_usage.page.access import Doors
from merchant_usage.page.app import CONTENT_SECURITY_POLICY, STATIC, create_app
from merchant_usage.page.marks import NO_RUN, mark
from merchant_usage.page.render import _environment
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


def test_the_parts_escape_whatever_an_id_holds() -> None:
    template = _environment().from_string(
        '{% import "parts.html" as parts %}{{ parts.merchant(id) }}'
        '{% call parts.table(id, "t") %}<tbody>{{ parts.count(none) }}</tbody>{% endcall %}'
        '{{ parts.fact(id, parts.badge(mark("verified")), "good") }}'
    )
    hostile = '"><script>alert(1)</script>\x1b[31m' + "x" * 60
    html = template.render(id=hostile)
    assert "<script>" not in html
    assert "\x1b" not in html
    assert '<span class="badge good"><span aria-hidden="true">✓</span> verified</span>' in html


def test_every_verdict_has_a_mark_that_needs_no_colour() -> None:
    marks = [mark(str(verdict)) for verdict in DateVerdict] + [mark(None), mark(None, "it failed"), NO_RUN]
    assert len({each.glyph for each in marks}) == len({each.word for each in marks}) == len(marks)
    assert {each.kind for each in marks} <= {"good", "wait", "bad", "none"}


def test_a_run_is_shown_by_airflow_unless_it_was_the_command_line_s(doors: Doors) -> None:
    with_airflow = replace(doors, run_address="../runs/{run_id}")
    assert with_airflow.address_of_run("scheduled__2026-11-24T00:00:00+00:00").startswith("../runs/scheduled__2026")
    assert with_airflow.address_of_run("cli__2026-11-24T00:00:00+00:00") == ""
    assert doors.address_of_run("scheduled__2026-11-24T00:00:00+00:00") == ""
