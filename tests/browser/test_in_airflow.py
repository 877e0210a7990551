"""The page inside a real Airflow, as people with different rights see it after logging in."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
import redis
from playwright.sync_api import Browser, Page, expect
from psycopg import Connection

from local.connections import postgres_connection, redis_connection
from local.servers import Postgres, Valkey
from merchant_usage import clock
from merchant_usage.connections import prepare
from merchant_usage.orchestration.names import PAGE_PATH
from merchant_usage.settings import DAG_ID
from merchant_usage.sink import schema
from tests.browser.conftest import PATIENCE_MS
from tests.browser.pages import InAirflow
from tests.browser.watched import Watch
from tests.people import PEOPLE, AirflowWithPeople, with_people
from tests.places import folder_in_memory
from tests.support import Usage, key

START_SECONDS = 180
# Airflow's own UI gives its frames two rights that undo each other, and the browser says so.
OF_AIRFLOW = "both allow-scripts and allow-same-origin"


@dataclass
class World:
    """Airflow, and what it aggregates."""

    airflow: AirflowWithPeople
    usage: Usage
    #: Over and settled.
    day: dt.date


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as stack:
        temporary = TemporaryDirectory(prefix="usage-browser-", dir=folder_in_memory())
        folder = Path(stack.enter_context(temporary)).resolve()
        folder.chmod(0o711)  # PostgreSQL runs as another user than root
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        postgres = stack.enter_context(Postgres(folder / "postgres", settings={"fsync": "off"}))
        conn: Connection[Any] = prepare(stack.enter_context(psycopg.connect(postgres.url, autocommit=True)))
        schema.migrate(conn)
        usage = Usage(stack.enter_context(redis.Redis.from_url(valkey.url)), conn, count(1))
        day = clock.now().date() - dt.timedelta(days=2)
        for value in (500, 5):
            usage.write({key("acme", day): value, key("beta", day): 7})
            usage.aggregate(day, now=clock.now())
        airflow = AirflowWithPeople(
            folder / "airflow",
            postgres.create_database("airflow"),
            {
                **with_people(folder),
                "AIRFLOW_CONN_USAGE_REDIS": redis_connection(valkey.url),
                "AIRFLOW_CONN_USAGE_POSTGRES": postgres_connection(postgres.url),
                # Runs by hand only, so that nothing comes in between.
                "ENABLE_USAGE_AGGREGATION": "false",
            },
            components=["api-server", "scheduler", "dag-processor"],
        )
        stack.enter_context(airflow)
        airflow.wait_until(lambda: airflow.api.has_dag(DAG_ID), "the DAG is there", START_SECONDS)
        yield World(airflow, usage, day)


Enter = Callable[[str], InAirflow]


@pytest.fixture
def enter(browser: Browser, world: World) -> Iterator[Enter]:
    """Log somebody in, in a browser of their own, that is watched."""
    watches = []
    with ExitStack() as stack:

        def enter(person: str) -> InAirflow:
            context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 800})
            stack.callback(context.close)
            context.set_default_timeout(PATIENCE_MS)
            seen = InAirflow(context.new_page(), world.airflow.url)
            seen.log_in(person)
            watches.append(Watch(context, world.airflow.url))
            return seen

        yield enter
    assert [problem for watch in watches for problem in watch.problems if OF_AIRFLOW not in problem] == []


def shows_the_overview(usage: Any) -> None:
    expect(usage.get_by_role("heading", level=1)).to_have_text("Usage, and whether it is proven", timeout=PATIENCE_MS)


@pytest.mark.parametrize("person", PEOPLE)
def test_who_has_logged_in_sees_it_in_the_navigation_and_on_the_dag(enter: Enter, person: str) -> None:
    seen = enter(person)
    shows_the_overview(seen.open_by_navigation())
    shows_the_overview(seen.open_by_dag(DAG_ID))


def test_a_view_in_the_frame_can_be_loaded_again(world: World, enter: Enter) -> None:
    seen = enter("vic")
    seen.open_by_navigation().get_by_role("link", name=str(world.day)).first.click()
    heading = seen.usage.get_by_role("heading", level=1)
    expect(heading).to_contain_text(str(world.day))
    seen.page.wait_for_url(f"**date?date={world.day}")
    seen.page.reload()
    expect(heading).to_contain_text(str(world.day), timeout=PATIENCE_MS)


def test_who_has_not_logged_in_is_told_to(world: World, browser: Browser) -> None:
    page: Page = browser.new_page()
    answer = page.goto(f"{world.airflow.url}/{PAGE_PATH}/")
    assert answer is not None
    assert answer.status == 401
    expect(page.get_by_text("Log in")).to_be_visible()
    page.close()


def test_who_may_only_look_has_no_buttons_and_a_forged_request_does_nothing(world: World, enter: Enter) -> None:
    seen = enter("vic")
    seen.open_alone(f"decisions?date={world.day}")
    expect(seen.page.get_by_role("row").filter(has_text="acme")).to_be_visible()
    expect(seen.page.get_by_role("main").get_by_role("button")).to_have_count(0)
    before = world.usage.everything()
    forged = {"date": str(world.day), "decision": "accept", "reason": "forged", "waiting": 1}
    for action in ("decide", "aggregate", "verify", "preview"):
        # With all that the browser has of the login.
        answer = seen.page.request.post(
            f"{world.airflow.url}/{PAGE_PATH}/do/{action}", data=forged, headers={"Origin": world.airflow.url}
        )
        assert answer.status == 403, action
    assert world.usage.everything() == before
    assert world.airflow.api.runs(DAG_ID) == []


def test_an_editor_decides_and_aggregates_again_in_their_own_name(world: World, enter: Enter) -> None:
    seen = enter("ed")
    usage = seen.open_by_navigation()
    usage.get_by_role("link", name=str(world.day)).first.click()
    usage.get_by_role("link", name="Decide what waits").click()
    usage.get_by_role("row").filter(has_text="acme").get_by_role("button", name="Accept").click()
    usage.get_by_label("Why").fill("Redis was restored")
    usage.get_by_role("dialog").get_by_role("button", name="Do it").click()
    expect(usage.get_by_role("status")).to_contain_text("1 counter was decided", timeout=PATIENCE_MS)
    decided = world.usage.conn.execute("SELECT decided_by, decision, reason FROM usage_decision").fetchall()
    assert decided == [("ed", "accept", "Redis was restored")]

    seen.open_alone(f"date?date={world.day}")
    seen.page.get_by_role("button", name="Aggregate again").click()
    seen.page.get_by_role("dialog").get_by_role("button", name="Do it").click()
    expect(seen.page.get_by_role("status")).to_contain_text("A run was started", timeout=PATIENCE_MS)

    def ended() -> bool:
        return all(run.finished for run in world.airflow.api.runs(DAG_ID))

    world.airflow.wait_until(ended, "the run has ended", START_SECONDS)
    (run,) = world.airflow.api.runs(DAG_ID)
    assert run.state == "success"
    newest = "SELECT verdict, requested_by FROM usage_run WHERE run_id = %s"
    assert world.usage.conn.execute(newest, [run.run_id]).fetchall() == [("verified", "ed")]


def test_a_run_leads_to_airflow_s_own_page_of_it(world: World, enter: Enter) -> None:
    (run,) = world.airflow.api.runs(DAG_ID)
    seen = enter("vic")
    usage = seen.open_by_navigation()
    usage.get_by_role("link", name=str(world.day)).first.click()
    usage.get_by_role("link", name=run.run_id).first.click()
    seen.page.wait_for_url(f"{world.airflow.url}/dags/{DAG_ID}/runs/**")
