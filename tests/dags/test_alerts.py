"""Bad news goes out, or the log says why not; whatever becomes of it, the run's own result stands."""

from __future__ import annotations

import datetime as dt
import json
import logging
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.orchestration import callbacks
from include.orchestration.alerts import fallback, pagerduty, shared, slack
from include.orchestration.alerts.slack import NotSent
from include.usage import clock
from include.usage.alerts.register import AT_MOST
from local.servers.processes import free_port
from tests.dags.support import Dag
from tests.support import Usage, key, raw
from tests.webhooks import Receiver, make_certificate

DAY = clock.now().date() - dt.timedelta(days=3)
CONF = {"from_date": str(DAY), "to_date": str(DAY)}
TOKEN = "T000/B000/a-secret-of-slack"
BODY = {"text": "hello"}


def connection(port: int, **fields: Any) -> str:
    to_slack = {"conn_type": "slackwebhook", "host": f"127.0.0.1:{port}/services", "schema": "http", "password": TOKEN}
    return json.dumps({**to_slack, **fields})


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """What stands in Slack's place."""
    with Receiver().running() as running:
        monkeypatch.setenv("AIRFLOW_CONN_USAGE_SLACK", connection(running.port))
        yield running


@pytest.fixture
def on_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Receiver]:
    """What stands in PagerDuty's place."""
    certificate = make_certificate(tmp_path / "pagerduty.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with Receiver(202, b'{"dedup_key": "told"}', certificate).running() as running:
        to_pagerduty = {"conn_type": "pagerduty_events", "host": "127.0.0.1", "port": running.port, "password": "key"}
        monkeypatch.setenv("AIRFLOW_CONN_USAGE_PAGERDUTY", json.dumps(to_pagerduty))
        yield running


def test_a_message_arrives_once(receiver: Receiver) -> None:
    slack.post(BODY)
    ((path, body),) = receiver.messages
    assert path == f"/services/{TOKEN}"
    assert json.loads(body) == BODY


def test_patience_is_kept_as_slack_asks(receiver: Receiver) -> None:
    receiver.answers = [(429, {"Retry-After": "1"})]
    slack.post(BODY)
    assert len(receiver.messages) == 2


@pytest.mark.parametrize(
    ("answers", "attempts", "told"),
    [
        pytest.param([(429, {"Retry-After": "60"})], 1, "asks for 60 s of patience", id="too much patience"),
        pytest.param([(429, {"Retry-After": "soon"})], 1, "Slack answered 429", id="no number"),
        pytest.param([(500, {}), (503, {})], 2, "Slack answered 503", id="down"),
        pytest.param([(404, {})], 1, "Slack answered 404", id="webhook is gone"),
    ],
)
def test_what_slack_refuses_is_not_sent(
    receiver: Receiver, answers: list[tuple[int, dict[str, str]]], attempts: int, told: str
) -> None:
    receiver.answers = list(answers)
    with pytest.raises(NotSent, match=told):
        slack.post(BODY)
    assert len(receiver.messages) == attempts


def test_a_passing_error_of_slack_is_tried_once_more(receiver: Receiver) -> None:
    receiver.answers = [(500, {})]
    slack.post(BODY)
    assert len(receiver.messages) == 2


def test_slack_that_hangs_is_left(receiver: Receiver) -> None:
    over = threading.Event()
    receiver.before = over.wait
    try:
        with pytest.raises(NotSent, match="did not answer within"):
            slack.post(BODY, budget=0.5)
    finally:
        over.set()


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="refused"),
        pytest.param({"host": "127.0.0.1:1/a b", "password": f"{TOKEN} \n"}, id="no address"),
        pytest.param({"schema": "gopher"}, id="no scheme"),
        pytest.param({"password": ""}, id="no token"),
        pytest.param({"password": f"http://127.0.0.1:notaport/{TOKEN}"}, id="no port"),
    ],
)
def test_a_connection_that_cannot_be_used_is_told_without_its_secret(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    fields: dict[str, str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_SLACK", connection(free_port(), **fields))
    with pytest.raises(NotSent) as refused:
        slack.post(BODY)
    captured = capfd.readouterr()
    for said in (str(refused.value), captured.out, captured.err, caplog.text):
        assert "a-secret-of-slack" not in said


def test_an_incident_is_opened_and_closed_by_one_key(on_call: Receiver) -> None:
    pagerduty.trigger("Usage runs keep failing", {"run": "r"}, ("Log", "https://airflow.example/log"))
    pagerduty.resolve("Run r is verified")
    opened, closed = [json.loads(body) for _, body in on_call.messages]
    assert opened["event_action"] == "trigger"
    assert opened["payload"]["summary"] == "Usage runs keep failing"
    assert opened["payload"]["severity"] == "critical"
    assert opened["links"] == [{"href": "https://airflow.example/log", "text": "Log"}]
    assert (closed["event_action"], closed["dedup_key"]) == ("resolve", opened["dedup_key"])


def test_pagerduty_that_refuses_is_told_without_its_key(on_call: Receiver) -> None:
    on_call.answers = [(400, {})]
    with pytest.raises(NotSent) as refused:
        pagerduty.resolve("Run r is verified")
    assert "on the way to PagerDuty" in str(refused.value)
    assert "key" not in str(refused.value)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PostgreSQL is down; what is kept in a file lies where no other test looks."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", f"postgresql://u:p@127.0.0.1:{free_port()}/x")


def titles(receiver: Receiver) -> list[str]:
    return [json.loads(body)["text"] for _, body in receiver.messages]


@pytest.mark.usefixtures("outage")
def test_while_postgresql_is_down_a_storm_is_a_handful_and_somebody_is_called_once(
    receiver: Receiver, on_call: Receiver, usage: Usage, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        callbacks.notify_failure({"run_id": f"r{number}", "reason": "task_failure"})
    assert len(receiver.messages) == AT_MOST
    assert titles(receiver)[-1].startswith("Still failing, 3 runs in a row")
    assert [json.loads(body)["event_action"] for _, body in on_call.messages] == ["trigger"]

    # It is up again: what was told meanwhile is known, and its end is told.
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    usage.write({key("acme", DAY): 5})
    usage.aggregate(DAY, now=clock.now(), run_id="good")
    callbacks.notify_success({"run_id": "good"})
    assert titles(receiver)[-1] == f"Usage runs are verified again: {DAY}"
    assert [json.loads(body)["event_action"] for _, body in on_call.messages] == ["trigger", "resolve"]
    assert fallback.kept() == []
    callbacks.notify_success({"run_id": "good"})
    assert len(receiver.messages) == AT_MOST + 1
    assert len(on_call.messages) == 2


@pytest.mark.usefixtures("outage")
def test_a_file_that_somebody_else_could_write_is_not_used(receiver: Receiver) -> None:
    fallback.folder().mkdir()
    fallback.folder().chmod(0o777)
    callbacks.notify_failure({"run_id": "r", "reason": "task_failure"})
    assert receiver.messages == []


def test_a_run_that_verified_nothing_ends_no_alert(
    receiver: Receiver, usage: Usage, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    callbacks.notify_failure({"run_id": "r", "reason": "task_failure"})
    usage.write({key("acme", DAY): 5})
    usage.aggregate(DAY, now=clock.now(), run_id="of one", merchants=("acme",))
    for run_id in ("unknown", "of one"):
        callbacks.notify_success({"run_id": run_id})
    assert len(receiver.messages) == 1


def test_what_slack_refused_is_told_by_the_next_failure(
    receiver: Receiver, database: object, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    receiver.answers = [(404, {})]
    callbacks.notify_failure({"run_id": "first", "reason": "task_failure"})
    callbacks.notify_failure({"run_id": "second", "reason": "task_failure"})
    assert b"1 more of this kind" in receiver.messages[1][1]


def test_late_is_who_keeps_people_waiting(
    receiver: Receiver, database: object, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    now = clock.now()

    def late(run_id: str, run_type: str, state: str, hours_ago: float) -> None:
        end = now - dt.timedelta(hours=hours_ago)
        interval = {
            "data_interval_start": (end - dt.timedelta(hours=1)).isoformat(),
            "data_interval_end": end.isoformat(),
        }
        callbacks.notify_late({"dag_run_id": run_id, "run_type": run_type, "state": state, "conf": {}, **interval})

    for hours in range(2, 168):
        late(f"caught up {hours}", "scheduled", "running", hours)
    late("old dates", "backfill", "running", 0.1)
    late("told as failed", "scheduled", "failed", 0.1)
    assert receiver.messages == []
    for _ in range(2):
        late("newest", "scheduled", "running", 0.1)
    (message,) = receiver.messages
    assert b"Run newest is still running after more than 300 s. No run was verified yet." in message[1]


def test_the_memory_is_shared_with_what_postgresql_has(
    database: object, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    now = clock.now()
    with shared.memory([], now) as memory:
        memory.register.set_incident(now, is_open=True)
    with shared.memory([], now) as memory:
        assert memory.conn is not None
        assert memory.register.has_incident()


def test_slack_being_down_changes_no_runs_result(dag: Dag, usage: Usage) -> None:
    usage.write({key("acme", DAY): 5, key("b", DAY): 5})
    down = connection(free_port())
    assert dag.run(CONF, AIRFLOW_CONN_USAGE_SLACK=down).state == "success"
    usage.client.set(raw(key("acme", DAY)), 4)
    ended = dag.run(CONF, AIRFLOW_CONN_USAGE_SLACK=down)
    assert ended.state == "success"
    assert "Slack could not be told: URLError on the way to Slack. It was: Usage counters went backwards" in ended.log
    assert "a-secret-of-slack" not in ended.log

    usage.client.incr(raw(key("b", DAY)))
    usage.conn.execute("ALTER TABLE merchant_usage ADD CONSTRAINT no_b CHECK (merchant_id <> 'b') NOT VALID")
    ended = dag.run(CONF, no_retries=True, AIRFLOW_CONN_USAGE_SLACK=down)
    assert ended.state == "failed"
    assert "It was: Usage run failed" in ended.log


def test_without_a_connection_nothing_is_told_and_the_log_says_so(dag: Dag, usage: Usage) -> None:
    usage.write({key("acme", DAY): "1.5"})
    ended = dag.run(CONF)
    assert "Slack is told nothing: there is no connection usage_slack" in ended.log
    row = usage.conn.execute("SELECT count(*) FROM usage_dead_letter WHERE told_at IS NULL").fetchone()
    assert row == (1,), "it is news still when there is a connection one day"
