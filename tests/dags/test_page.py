"""The usage page in a real Airflow: nobody sees any of it without a login, and who may only look changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import quote

import httpx
import psycopg
import pytest
import redis
from fastapi.routing import APIRoute
from psycopg import Connection

from local.airflow import LocalAirflow
from local.connections import postgres_connection, redis_connection
from local.servers import Postgres, Valkey
from local.servers.processes import free_port
from merchant_usage.connections import prepare
from merchant_usage.orchestration import page
from merchant_usage.orchestration.names import PAGE_PATH
from merchant_usage.orchestration.page import make_app
from merchant_usage.page.access import TooSlow
from merchant_usage.page.app import STATIC
from merchant_usage.settings import DAG_ID
from merchant_usage.sink import schema
from tests.people import PEOPLE, AirflowWithPeople, ApiAsAda, log_in, with_people
from tests.support import YESTERDAY, Connect, Usage, key

#: What a proxy puts before every address: of Airflow and of the page.
PREFIX: Final = "/behind/a/proxy"


class ApiBehindProxy(ApiAsAda):
    """Airflow's API, by the addresses that a proxy gives it."""

    PREFIX = PREFIX


class AirflowBehindProxy(AirflowWithPeople):
    """It stands behind one."""

    API = ApiBehindProxy


class Site:
    """The page, and what lies behind it."""

    def __init__(self, airflow: LocalAirflow, usage: Usage) -> None:
        self.airflow, self.usage = airflow, usage
        self.root = f"{airflow.url}{PREFIX}"
        self._headers: dict[str, dict[str, str]] = {}

    def ask(self, method: str, address: str, person: str | None, **options: Any) -> httpx.Response:
        """Ask for an address of the page, as a person who has logged in or as nobody."""
        if person is not None:
            self._headers.setdefault(person, log_in(self.root, person))
            options["headers"] = {**self._headers[person], **options.get("headers", {})}
        return httpx.request(method, f"{self.root}/{PAGE_PATH}/{address}", trust_env=False, timeout=60, **options)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="usage-page-"))).resolve()
        folder.chmod(0o711)  # PostgreSQL runs as another user than root
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        postgres = stack.enter_context(Postgres(folder / "postgres", settings={"fsync": "off"}))
        conn: Connection[Any] = prepare(stack.enter_context(psycopg.connect(postgres.url, autocommit=True)))
        schema.migrate(conn)
        port = free_port()
        airflow = AirflowBehindProxy(
            folder / "airflow",
            postgres.create_database("airflow"),
            {
                "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}{PREFIX}",
                **with_people(folder),
                "AIRFLOW_CONN_USAGE_REDIS": redis_connection(valkey.url),
                "AIRFLOW_CONN_USAGE_POSTGRES": postgres_connection(postgres.url),
            },
            components=["api-server"],
            port=port,
        )
        stack.enter_context(airflow)
        # What the DAG processor does.
        airflow.cli("dags", "reserialize")
        client = stack.enter_context(redis.Redis.from_url(valkey.url))
        usage = Usage(client, conn, count(1))
        usage.write({key("acme"): 5})
        usage.aggregate()
        yield Site(airflow, usage)


def routes() -> list[tuple[str, str]]:
    """All that the page answers to: a method and an address."""
    found = [
        (method, re.sub(r"^/", "", route.path))
        for route in make_app().routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods)
    ]
    return [
        (method, address.replace("{name}", name))
        for method, address in found
        for name in (sorted(STATIC) if "{name}" in address else [""])
    ]


ROUTES: Final = routes()


def test_the_page_has_no_other_kind_of_route() -> None:
    app = make_app()
    assert all(isinstance(route, APIRoute) for route in app.routes)
    assert not any("{" in address for _, address in ROUTES)
    assert {("GET", ""), ("GET", "static/usage.css"), ("POST", "do/decide")} <= {*ROUTES}


@pytest.mark.parametrize(("method", "address"), ROUTES)
def test_nobody_sees_anything_without_a_login(site: Site, method: str, address: str) -> None:
    answer = site.ask(method, address, None)
    assert answer.status_code == 401
    assert "Log in" in answer.text
    assert "acme" not in answer.text


def test_a_login_that_is_none_is_refused(site: Site) -> None:
    answer = site.ask("GET", "", None, headers={"Authorization": "Bearer made-up"})
    assert answer.status_code in {401, 403}


@pytest.mark.parametrize("person", PEOPLE)
def test_who_may_see_the_dag_sees_how_dates_stand(site: Site, person: str) -> None:
    answer = site.ask("GET", "", person)
    assert answer.status_code == 200
    assert str(YESTERDAY) in answer.text


def test_it_is_the_dag_of_ours_that_one_must_be_allowed_to_see(site: Site) -> None:
    """Airflow takes the DAG's id from the address, unless it is told."""
    assert site.ask("GET", "?dag_id=another", None).status_code == 401


def test_airflow_s_navigation_and_the_dag_show_it(site: Site) -> None:
    headers = log_in(site.root, "ada")
    answer = httpx.get(f"{site.root}/api/v2/plugins", headers=headers, trust_env=False, timeout=60)
    (ours,) = [plugin for plugin in answer.json()["plugins"] if plugin["name"] == "usage"]
    assert {view["destination"]: view["href"] for view in ours["external_views"]} == dict.fromkeys(
        ["nav", "dag"], f"{PAGE_PATH}/"
    )
    assert [app["url_prefix"] for app in ours["fastapi_apps"]] == [f"/{PAGE_PATH}"]
    icon = ours["external_views"][0]["icon"].removeprefix(f"{PAGE_PATH}/")
    assert site.ask("GET", icon, "vic").headers["content-type"] == "image/svg+xml"


DOING: Final = [address for method, address in ROUTES if method == "POST"]


@pytest.mark.parametrize("address", DOING)
def test_who_may_only_see_the_dag_does_nothing(site: Site, address: str) -> None:
    before = site.usage.everything()
    answer = site.ask("POST", address, "vic", json={"from_date": str(YESTERDAY)})
    assert answer.status_code == 403
    assert "does not let you" in answer.json()["error"]
    assert site.usage.everything() == before


def test_only_who_may_edit_the_dag_sees_buttons(site: Site) -> None:
    regress(site.usage)
    for person, role in PEOPLE.items():
        assert ("data-do" in site.ask("GET", "decisions", person).text) is (role != "viewer")


def regress(usage: Usage) -> None:
    """Let a counter go backwards."""
    usage.conn.execute("TRUNCATE merchant_usage, usage_dead_letter, usage_run, usage_decision")
    usage.write({key("acme"): 100})
    usage.aggregate()
    usage.write({key("acme"): 5})
    usage.aggregate()


def test_an_editor_decides_in_their_own_name(site: Site) -> None:
    regress(site.usage)
    body = {"date": str(YESTERDAY), "waiting": 1, "decision": "accept", "reason": "a correction"}
    answer = site.ask("POST", "do/decide", "ed", json=body)
    assert answer.status_code == 200, answer.text
    found = site.usage.conn.execute("SELECT decision, decided_by, reason FROM usage_decision").fetchall()
    assert found == [("accept", "ed", "a correction")]
    assert site.usage.rows() == {key("acme"): 5}


def test_an_editor_starts_a_run_in_their_own_name(site: Site) -> None:
    body = {"from_date": str(YESTERDAY), "merchant_ids": ["acme"]}
    headers = log_in(site.root, "ed")
    api = f"{site.root}/api/v2/dags/{DAG_ID}"
    answer = site.ask("POST", "do/aggregate", "ed", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    run = httpx.get(f"{api}/dagRuns/{told['run_id']}", headers=headers, trust_env=False, timeout=60).json()
    asked = {"from_date": str(YESTERDAY), "to_date": str(YESTERDAY), "merchant_ids": ["acme"]}
    assert run["conf"] == asked
    assert (run["triggering_user_name"], run["triggered_by"], run["run_type"]) == ("ed", "ui", "manual")
    assert told["address"] == f"../dags/{DAG_ID}/runs/{quote(told['run_id'], safe='')}"


def test_a_dag_that_is_paused_is_not_started(site: Site) -> None:
    headers = log_in(site.root, "ada")
    api = f"{site.root}/api/v2/dags/{DAG_ID}"
    httpx.patch(api, json={"is_paused": True}, headers=headers, trust_env=False, timeout=60).raise_for_status()
    try:
        answer = site.ask("POST", "do/aggregate", "ed", json={"from_date": str(YESTERDAY)})
    finally:
        httpx.patch(api, json={"is_paused": False}, headers=headers, trust_env=False, timeout=60).raise_for_status()
    assert answer.status_code == 409
    assert "is paused" in answer.json()["error"]


def test_an_editor_compares(site: Site) -> None:
    for what in ("verify", "preview"):
        answer = site.ask("POST", f"do/{what}", "ed", json={"date": str(YESTERDAY)})
        assert answer.status_code == 200, answer.text
        assert str(YESTERDAY) in answer.json()["said"]


def test_comparing_ends_when_its_time_is_over(usage: Usage, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    conn, moments = connect(), [0.0]
    monkeypatch.setattr(page, "time", SimpleNamespace(monotonic=lambda: moments[-1]))
    page._bound(usage.client, conn, 50)
    moments.append(49.0)
    assert usage.client.ping()
    assert conn.execute("SELECT 1").fetchone() == (1,)
    moments.append(51.0)
    for ask in (usage.client.ping, lambda: conn.execute("SELECT 1"), lambda: next(usage.client.scan_iter())):
        with pytest.raises(TooSlow, match="more than 50 seconds"):
            ask()
