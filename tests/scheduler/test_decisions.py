"""People with names answer what the DAG `usage_decisions` asks them, and each answer is carried out once."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Final
from urllib.parse import quote

import httpx
import psutil
import psycopg
import pytest
import redis
from psycopg import Connection

from local.airflow_api import AirflowApi, DagRun, TaskInstance
from local.connections import postgres_connection, redis_connection
from local.servers import Postgres, Valkey
from merchant_usage.connections import prepare
from merchant_usage.settings import DECISIONS_DAG_ID
from merchant_usage.sink import schema
from tests.faults.leftovers import wait_until
from tests.scheduler.airflow3 import Airflow3
from tests.scheduler.world import RUN_SECONDS
from tests.support import YESTERDAY, Usage, key, raw

PASSWORDS: Final = {"alice": "a-password-of-alice", "bob": "a-password-of-bob"}
#: Whatever a key may hold is text to who reads the question.
ODD = key("![x](http://evil.example/x.png) {{ 7 * 7 }} <b> | ` #")
COUNTERS: Final = {key("acme"): 100, ODD: 200, key("beta"): 300}
ASK, APPLY = "decide.ask", "decide.apply_answer"
ASK_SECOND, APPLY_SECOND = "decide.ask_second_person", "decide.apply_second_answer"


class As(httpx.Auth):
    """Logs a person in, with a password, and shows the token from then on."""

    requires_response_body = True

    def __init__(self, url: str, person: str) -> None:
        self._url, self._person = url, person
        self._headers: dict[str, str] = {}

    def auth_flow(self, request: httpx.Request) -> Any:
        if not self._headers:
            login = {"username": self._person, "password": PASSWORDS[self._person]}
            given = yield httpx.Request("POST", f"{self._url}/auth/token", json=login)
            given.raise_for_status()
            self._headers = {"Authorization": f"Bearer {given.json()['access_token']}"}
        request.headers.update(self._headers)
        yield request


class Person(AirflowApi):
    """Somebody who has logged in."""

    NAME: ClassVar[str]

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._http.auth = As(url, self.NAME)

    def questions(self, run: DagRun) -> list[dict[str, Any]]:
        """All questions of a run, answered or not."""
        return list(
            self._get(f"/dags/{DECISIONS_DAG_ID}/dagRuns/{quote(run.run_id, safe='')}/hitlDetails")["hitl_details"]
        )

    def answer(self, run: DagRun, task_id: str, option: str, reason: str = "") -> httpx.Response:
        """Answer a question, as the form of the UI does."""
        path = f"/dags/{DECISIONS_DAG_ID}/dagRuns/{quote(run.run_id, safe='')}/taskInstances/{task_id}/0/hitlDetails"
        return self._http.patch(path, json={"chosen_options": [option], "params_input": {"reason": reason}})


class Alice(Person):
    NAME = "alice"


class Bob(Person):
    NAME = "bob"


class AirflowWithUsers(Airflow3):
    """It wants a login; what the test itself does, alice does."""

    API = Alice


@dataclass
class World:
    """Airflow, and three counters that were stored."""

    airflow: AirflowWithUsers
    usage: Usage
    alice: Person
    bob: Person

    def fall(self) -> None:
        """Store the counters anew, then let Redis lose most of them."""
        self.usage.conn.execute("TRUNCATE merchant_usage, usage_dead_letter, usage_run, usage_decision, usage_proposal")
        self.usage.client.flushall()
        self.usage.write(COUNTERS)
        self.usage.aggregate()
        self.usage.write(dict.fromkeys(COUNTERS, 5))
        self.usage.aggregate()

    def trigger(self) -> DagRun:
        return self.alice.trigger(DECISIONS_DAG_ID, {})

    def asked(self, run: DagRun, task_id: str) -> Mapping[str, Any]:
        """Wait for a question."""

        def look() -> dict[str, Any] | None:
            tasks = self.alice.tasks(DECISIONS_DAG_ID, run.run_id)
            for task in tasks:
                assert task.state != "up_for_retry", self.alice.log(DECISIONS_DAG_ID, run.run_id, task)
            assert not self.alice.run(DECISIONS_DAG_ID, run.run_id).finished, tasks
            waiting = {task.task_id for task in tasks if task.state == "awaiting_input"}
            found = [each for each in self.alice.questions(run) if each["task_instance"]["task_id"] == task_id]
            return found[0] if found and task_id in waiting and self.is_settled(run, task_id) else None

        return self.airflow.wait_until(look, f"{task_id} asks", RUN_SECONDS)

    def is_settled(self, run: DagRun, task_id: str) -> bool:
        """Whether the scheduler knows that the process which asked has ended.

        It takes an answer that comes before that for a task that was lost, and asks again. No person is so quick.
        """
        heard = f"state success for task instance TaskInstanceKey(dag_id='{DECISIONS_DAG_ID}', task_id='{task_id}'"
        lines = (self.airflow.logs / "scheduler.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return any(heard in line and f"run_id='{run.run_id}'" in line for line in lines)

    def ended(self, run: DagRun) -> DagRun:
        def look() -> DagRun | None:
            now = self.alice.run(DECISIONS_DAG_ID, run.run_id)
            return now if now.finished else None

        return self.airflow.wait_until(look, "the run has ended", RUN_SECONDS)

    def tasks(self, run: DagRun) -> dict[str, TaskInstance]:
        return {task.task_id: task for task in self.alice.tasks(DECISIONS_DAG_ID, run.run_id)}

    def decisions(self) -> list[tuple[Any, ...]]:
        return self.usage.conn.execute(
            "SELECT DISTINCT decision, decided_by, reason, approved_by, approval_reason, count(*) OVER ()"
            " FROM usage_decision"
        ).fetchall()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="usage-decisions-"))).resolve()
        folder.chmod(0o711)  # PostgreSQL runs as another user than root
        valkey = stack.enter_context(Valkey(folder / "valkey"))
        postgres = stack.enter_context(Postgres(folder / "postgres", settings={"fsync": "off"}))
        conn: Connection[Any] = prepare(stack.enter_context(psycopg.connect(postgres.url, autocommit=True)))
        schema.migrate(conn)
        passwords = folder / "passwords.json"
        passwords.write_text(json.dumps(PASSWORDS), encoding="utf-8")
        airflow = AirflowWithUsers(
            folder / "airflow",
            postgres.create_database("airflow"),
            {
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:admin" for name in PASSWORDS),
                "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
                "AIRFLOW_CONN_USAGE_REDIS": redis_connection(valkey.url),
                "AIRFLOW_CONN_USAGE_POSTGRES": postgres_connection(postgres.url),
                # Runs by hand only, so that nothing comes in between.
                "ENABLE_USAGE_AGGREGATION": "false",
                "USAGE_APPROVALS": "2",
            },
        )
        stack.enter_context(airflow)
        client = stack.enter_context(redis.Redis.from_url(valkey.url))
        alice, bob = Alice(airflow.url), Bob(airflow.url)
        stack.callback(alice.close)
        stack.callback(bob.close)
        airflow.wait_until(lambda: alice.has_dag(DECISIONS_DAG_ID), "the DAG is there", RUN_SECONDS)
        yield World(airflow, Usage(client, conn, count(1)), alice, bob)


def process_of(conn: Connection) -> int:
    """The process that waits in PostgreSQL for a lock."""
    waits = (
        "SELECT client_port FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND pid <> pg_backend_pid()"
    )
    wait_until(conn, f"SELECT count(*) = 1 FROM ({waits}) AS w")  # noqa: S608
    row = conn.execute(waits.encode()).fetchone()
    assert row is not None
    (pid,) = {each.pid for each in psutil.net_connections("tcp") if each.laddr and each.laddr.port == row[0]}
    assert pid is not None
    return int(pid)


def test_nothing_is_asked_while_nothing_waits(world: World) -> None:
    run = world.ended(world.trigger())
    assert run.state == "success"
    assert world.alice.questions(run) == []


def test_two_persons_lower_a_value_once_though_the_process_is_killed(world: World) -> None:
    world.fall()
    rows = world.usage.row_versions()
    run = world.trigger()
    asked = world.asked(run, ASK)
    assert asked["subject"] == f"3 usage counters of {YESTERDAY} went backwards: keep, accept or carry?"
    assert asked["options"] == ["keep", "accept", "carry", "not now"]
    assert "\\!\\[x\\](http\\://evil.example/x.png)" in asked["body"].replace("\\\\", "\\")
    assert "{{ 7 \\* 7 }} \\<b\\> \\|" in asked["body"]
    assert len(world.alice.questions(run)) == 1
    assert world.alice.answer(run, ASK, "accept", "a test").is_success
    assert world.bob.answer(run, ASK, "carry").status_code == httpx.codes.CONFLICT

    asked = world.asked(run, ASK_SECOND)
    assert "alice has proposed to accept 3 of them (a test): 600 → 15." in asked["body"]
    assert (world.usage.row_versions(), world.decisions()) == (rows, [])
    with world.usage.conn.transaction():
        world.usage.conn.execute("SELECT FROM merchant_usage FOR UPDATE")
        assert world.bob.answer(run, ASK_SECOND, "accept", "I looked").is_success
        info = world.usage.conn.info
        with psycopg.connect(info.dsn, password=info.password, autocommit=True) as other:
            os.kill(process_of(other), signal.SIGKILL)
    assert world.bob.answer(run, ASK_SECOND, "keep").status_code == httpx.codes.CONFLICT
    assert world.ended(run).state == "success"
    assert world.tasks(run)[APPLY_SECOND].try_number == 2
    assert world.usage.rows() == dict.fromkeys(COUNTERS, 5)
    assert world.decisions() == [("accept", "alice", "a test", "bob", "I looked", 3)]

    world.alice.clear(DECISIONS_DAG_ID, run.run_id, [(APPLY_SECOND, 0)])
    assert world.ended(run).state == "success"
    assert world.decisions() == [("accept", "alice", "a test", "bob", "I looked", 3)]
    assert world.usage.verdicts(world.usage.aggregate()) == {YESTERDAY: "verified"}


def test_the_same_person_is_no_second_one(world: World) -> None:
    world.fall()
    run = world.trigger()
    world.asked(run, ASK)
    assert world.alice.answer(run, ASK, "accept").is_success
    world.asked(run, ASK_SECOND)
    assert world.alice.answer(run, ASK_SECOND, "accept").is_success
    assert world.ended(run).state == "failed"
    (error,) = world.alice.errors(DECISIONS_DAG_ID, run.run_id, world.tasks(run)[APPLY_SECOND])
    assert error == "alice has proposed this, so another person has to approve it. The next run asks again."
    assert world.decisions() == []

    run = world.trigger()
    assert "alice has proposed to accept 3 of them: 600 → 15." in world.asked(run, ASK)["body"]
    assert world.bob.answer(run, ASK, "accept").is_success
    assert world.ended(run).state == "success"
    assert world.tasks(run)[APPLY_SECOND].state == "skipped"
    assert world.decisions() == [("accept", "alice", None, "bob", None, 3)]


def test_what_one_person_may_say_is_done_at_once(world: World) -> None:
    world.fall()
    run = world.trigger()
    world.asked(run, ASK)
    assert world.bob.answer(run, ASK, "carry", "Redis was restarted").is_success
    assert world.ended(run).state == "success"
    assert {key.merchant_id: value for key, value in world.usage.rows().items()} == {
        counter.merchant_id: value + 5 for counter, value in COUNTERS.items()
    }
    assert world.decisions() == [("carry", "bob", "Redis was restarted", None, None, 3)]


def test_not_now_changes_nothing(world: World) -> None:
    world.fall()
    before = world.usage.everything()
    run = world.trigger()
    world.asked(run, ASK)
    assert world.bob.answer(run, ASK, "not now").is_success
    assert world.ended(run).state == "success"
    assert world.tasks(run)[APPLY].state == "skipped"
    assert world.usage.everything() == before
    assert raw(ODD) in before["redis"]
