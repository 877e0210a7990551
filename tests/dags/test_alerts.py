"""Bad news goes out, or the log says why not; whatever becomes of it, the run's own result stands."""

from __future__ import annotations

import asyncio
import datetime as dt
import html
import json
import logging
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from local.servers.processes import free_port
from merchant_usage import clock
from merchant_usage.alerts.alert import Alert
from merchant_usage.alerts.register import AT_MOST, Notification
from merchant_usage.alerts.slack_message import render
from merchant_usage.model.dates import Scope
from merchant_usage.model.report import DateReport, DateVerdict
from merchant_usage.model.run import Plan
from merchant_usage.model.verdict import Difference, Proof, Verdict
from merchant_usage.orchestration import callbacks, lateness
from merchant_usage.orchestration.alerts import circuit_breaker, file_store, pagerduty, runs, slack_webhook, store
from merchant_usage.orchestration.alerts.failure_notes import failure_noted
from merchant_usage.orchestration.alerts.slack_webhook import NotSent, Unanswered
from merchant_usage.orchestration.alerts.verified import notify_proof
from merchant_usage.orchestration.compat import ASKS_PEOPLE
from merchant_usage.orchestration.connections import airflow_errors
from merchant_usage.orchestration.names import TASK_IDS
from merchant_usage.orchestration.requests import requested_run
from merchant_usage.settings import load_settings
from tests.dags.support import Dag, airflow_environment
from tests.faults.proxy import LosingProxy
from tests.support import PROJECT, Usage, key, raw
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
    slack_webhook.post(BODY)
    ((path, body),) = receiver.messages
    assert path == f"/services/{TOKEN}"
    assert json.loads(body) == BODY


def test_patience_is_kept_as_slack_asks(receiver: Receiver) -> None:
    receiver.answers = [(429, {"Retry-After": "1"})]
    slack_webhook.post(BODY)
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
        slack_webhook.post(BODY)
    assert len(receiver.messages) == attempts


def test_a_passing_error_of_slack_is_tried_once_more(receiver: Receiver) -> None:
    receiver.answers = [(500, {})]
    slack_webhook.post(BODY)
    assert len(receiver.messages) == 2


def test_slack_that_hangs_is_left(receiver: Receiver) -> None:
    over = threading.Event()
    receiver.before = over.wait
    try:
        with pytest.raises(NotSent, match="did not answer within"):
            slack_webhook.post(BODY, budget=2)
    finally:
        over.set()


def test_what_was_sent_whole_and_not_answered_may_have_arrived(receiver: Receiver) -> None:
    over = threading.Event()
    receiver.before = lambda: over.wait(5)
    try:
        with pytest.raises(Unanswered):
            slack_webhook.post(BODY, budget=2)
    finally:
        over.set()
    assert len(receiver.messages) == 1


def test_what_found_nobody_to_answer_has_not_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        port = server.getsockname()[1]
        # The queue of a server that accepts nobody: who comes then is not even connected.
        for _ in range(3):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
        monkeypatch.setenv("AIRFLOW_CONN_USAGE_SLACK", connection(port))
        with pytest.raises(NotSent) as refused:
            slack_webhook.post(BODY, budget=2)
    assert not isinstance(refused.value, Unanswered)


def test_slack_that_answers_byte_by_byte_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def drip(server: socket.socket) -> None:
        with server.accept()[0] as client, suppress(OSError):
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nX-Patience: ")
            # Who waits for the end of it gets one, too late.
            for _ in range(200):
                if over.wait(0.05):
                    break
                client.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        monkeypatch.setenv("AIRFLOW_CONN_USAGE_SLACK", connection(server.getsockname()[1]))
        try:
            with pytest.raises(NotSent, match="did not answer within"):
                slack_webhook.post(BODY, budget=1)
            assert thread.is_alive(), "nobody waited for all of it"
        finally:
            over.set()
            thread.join()


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
        slack_webhook.post(BODY)
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
def postgresql(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    """PostgreSQL is up."""
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL is down."""
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
    assert file_store.read_entries() == []
    callbacks.notify_success({"run_id": "good"})
    assert len(receiver.messages) == AT_MOST + 1
    assert len(on_call.messages) == 2


def test_168_runs_that_fail_at_once_are_a_handful_in_whichever_process(
    receiver: Receiver, usage: Usage, database_url: str, tmp_path: Path
) -> None:
    """As after a catch-up of a week, told by several processes at a time, as the DAG processor has them."""
    tell = (
        "import sys; from merchant_usage.orchestration import callbacks\n"
        "for run_id in sys.argv[1:]: callbacks.notify_failure({'run_id': run_id, 'reason': 'task_failure'})"
    )
    environment = airflow_environment(tmp_path) | {
        "AIRFLOW_CONN_USAGE_POSTGRES": database_url,
        "AIRFLOW_CONN_USAGE_SLACK": connection(receiver.port),
    }
    failed = [f"r{number}" for number in range(168)]
    processes = [
        subprocess.Popen([sys.executable, "-c", tell, *failed[first::4]], cwd=PROJECT, env=environment)
        for first in range(4)
    ]
    assert [process.wait(120) for process in processes] == [0] * 4
    assert sorted(title.split(":")[0].split(",")[0] for title in titles(receiver)) == [
        "Still failing",
        "Usage run failed",
        "Usage run failed",
    ]
    noted = usage.conn.execute(
        "SELECT count(DISTINCT run_id), count(*) FILTER (WHERE told) FROM usage_alert"
    ).fetchone()
    assert noted == (168, AT_MOST)


def test_a_batch_of_callbacks_waits_once_for_each_that_hangs(
    receiver: Receiver, on_call: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DAG processor kills a batch that takes more than 50 s, and the rest of it is told by nobody."""
    over = threading.Event()
    receiver.before = on_call.before = lambda: over.wait(30)
    monkeypatch.setattr(slack_webhook, "ATTEMPT_SECONDS", 1.0)
    monkeypatch.setattr(pagerduty, "BUDGET_SECONDS", 1.0)
    monkeypatch.setattr(store, "CONNECT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as postgresql:
        monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", f"postgresql://u:p@127.0.0.1:{postgresql.getsockname()[1]}/x")
        try:
            for number in range(6):
                callbacks.notify_failure({"run_id": f"r{number}", "reason": "task_failure"})
        finally:
            over.set()
        postgresql.settimeout(0)
        with postgresql.accept()[0], pytest.raises(BlockingIOError):
            postgresql.accept()
    assert (len(receiver.messages), len(on_call.messages)) == (1, 1)


@pytest.mark.parametrize("moment", ["SELECT alert_key", "INSERT INTO usage_alert", "COMMIT"])
@pytest.mark.parametrize("how", ["cut", "hangs"])
def test_a_failure_is_told_whenever_postgresql_goes(
    receiver: Receiver,
    usage: Usage,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    how: str,
) -> None:
    monkeypatch.setattr(store, "ANSWER_SECONDS", 1.0)
    with LosingProxy(database_url, moment, hangs=how == "hangs") as proxy:
        monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", proxy.url)
        callbacks.notify_failure({"run_id": "r", "reason": "task_failure"})
        assert proxy.has_cut
        assert len(receiver.messages) == 1
        assert [entry.key for entry in file_store.read_entries()] == ["run r"]
        before = proxy.connections
        callbacks.notify_failure({"run_id": "r", "reason": "task_failure"})
        assert how == "cut" or proxy.connections == before, "nobody waits for it again"
    # It is back, and knows what was told meanwhile.
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    callbacks.notify_failure({"run_id": "r", "reason": "task_failure"})
    assert len(receiver.messages) == 1
    assert file_store.read_entries() == []
    assert usage.conn.execute("SELECT alert_key, told FROM usage_alert").fetchall() == [("run r", True)]


@pytest.mark.parametrize("moment", ["SELECT alert_key", "COMMIT"])
def test_a_session_that_hangs_is_closed_by_the_thread_that_waits_in_it(
    receiver: Receiver, database_url: str, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Closed by another one it is gone under that thread's feet: now and then the process crashes."""
    closing: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
    close = psycopg.Connection.close

    def noted(conn: psycopg.Connection) -> None:
        closing.put(threading.current_thread())
        close(conn)

    monkeypatch.setattr(psycopg.Connection, "close", noted)
    monkeypatch.setattr(store, "ANSWER_SECONDS", 1.0)
    with LosingProxy(database_url, moment, hangs=True) as proxy:
        monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", proxy.url)
        callbacks.notify_failure({"run_id": "r", "reason": "task_failure"})
        assert closing.get(timeout=10) is not threading.current_thread()
    assert closing.empty()
    assert len(receiver.messages) == 1


@pytest.mark.usefixtures("outage")
def test_a_file_that_somebody_else_could_write_is_not_used(
    receiver: Receiver, database: object, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database
    file_store.folder().mkdir()
    file_store.folder().chmod(0o777)
    assert_told_once(receiver)
    assert list(file_store.folder().iterdir()) == []
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    assert_told_once(receiver)


def test_a_full_disk_keeps_no_news_back(receiver: Receiver, tmp_path: Path) -> None:
    """PostgreSQL is down, and no file can grow."""
    tell = (
        "import resource; from merchant_usage.orchestration import callbacks\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))\n"
        "for _ in range(2): callbacks.notify_failure({'run_id': 'r', 'reason': 'task_failure'})"
    )
    environment = airflow_environment(tmp_path) | {
        "AIRFLOW_CONN_USAGE_POSTGRES": f"postgresql://u:p@127.0.0.1:{free_port()}/x",
        "AIRFLOW_CONN_USAGE_SLACK": connection(receiver.port),
    }
    subprocess.run([sys.executable, "-c", tell], cwd=PROJECT, env=environment, check=True, stdout=subprocess.PIPE)
    assert len(receiver.messages) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "5",
        "{}",
        '[1, {"key": "a"}]',
        '[{"key": "a", "kind": "of tomorrow", "raised_at": "2026-11-24T00:00:00Z"}]',
    ],
    ids=["empty", "cut short", "no list", "no rows", "odd rows", "another version's"],
)
@pytest.mark.parametrize("is_down", [True, False], ids=["down", "up"])
def test_a_file_that_is_not_understood_keeps_no_news_back(
    receiver: Receiver, database_url: str, monkeypatch: pytest.MonkeyPatch, text: str, is_down: bool
) -> None:
    nowhere = f"postgresql://u:p@127.0.0.1:{free_port()}/x"
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", nowhere if is_down else database_url)
    file_store.folder().mkdir(mode=0o700)
    (file_store.folder() / "alerts.json").write_text(text)
    assert_told_once(receiver)


def assert_told_once(receiver: Receiver) -> None:
    for _ in range(2):
        callbacks.notify_failure({"run_id": "r", "reason": "task_failure"})
    assert len(receiver.messages) == 1


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


def test_a_recovery_that_slack_refused_is_told_by_the_next_verified_run(
    receiver: Receiver, on_call: Receiver, usage: Usage, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    for number in range(3):
        callbacks.notify_failure({"run_id": f"r{number}", "reason": "task_failure"})
    usage.write({key("acme", DAY): 5})
    for run_id in ("first", "second", "third"):
        usage.aggregate(DAY, now=clock.now(), run_id=run_id)
    receiver.answers = [(404, {})]
    for run_id in ("first", "second", "third"):
        callbacks.notify_success({"run_id": run_id})
    refused, told = [body.decode() for _, body in receiver.messages[AT_MOST:]]
    assert "Run first is verified" in refused
    assert "Run second is verified" in told
    assert "3 failed" in told
    assert "more of this kind" not in told
    assert [json.loads(body)["event_action"] for _, body in on_call.messages] == ["trigger", "resolve"]


def test_failures_with_a_verified_run_in_between_do_not_escalate(
    receiver: Receiver, on_call: Receiver, usage: Usage, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    usage.write({key("acme", DAY): 5})
    usage.aggregate(DAY, now=clock.now(), run_id="good")
    for number in range(2):
        callbacks.notify_failure({"run_id": f"r{number}", "reason": "task_failure"})
    callbacks.notify_success({"run_id": "good"})
    callbacks.notify_failure({"run_id": "r2", "reason": "task_failure"})
    assert [title.split(":")[0] for title in titles(receiver)] == [
        "Usage run failed",
        "Usage run failed",
        "Usage runs are verified again",
        "Usage run failed",
    ]
    assert on_call.messages == []


def test_an_incident_that_pagerduty_refused_is_opened_by_the_next_failure_and_closed_by_the_next_success(
    receiver: Receiver, on_call: Receiver, usage: Usage, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    usage.write({key("acme", DAY): 5})
    usage.aggregate(DAY, now=clock.now(), run_id="good")
    on_call.answers = [(400, {}), (202, {}), (400, {})]
    for number in range(5):
        callbacks.notify_failure({"run_id": f"r{number}", "reason": "task_failure"})
    for _ in range(3):
        callbacks.notify_success({"run_id": "good"})
    actions = [json.loads(body)["event_action"] for _, body in on_call.messages]
    assert actions == ["trigger", "trigger", "resolve", "resolve"]
    assert len(receiver.messages) == AT_MOST + 1


def test_without_a_connection_nobody_is_called_and_slack_is_told_all_the_same(
    receiver: Receiver,
    usage: Usage,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    usage.write({key("acme", DAY): 5})
    usage.aggregate(DAY, now=clock.now(), run_id="good")
    for number in range(4):
        callbacks.notify_failure({"run_id": f"r{number}", "reason": "task_failure"})
    callbacks.notify_success({"run_id": "good"})
    assert titles(receiver)[-2].startswith("Still failing")
    assert titles(receiver)[-1].startswith("Usage runs are verified again")
    captured = capfd.readouterr()
    said = caplog.text + captured.out + captured.err
    assert "PagerDuty" not in said
    assert "could not" not in said


class Notes:
    """A task instance, as far as notes are left with it and read."""

    task_id, dag_id, run_id, map_index, log_url = "scan_usage", "usage_aggregation", "r", -1, "http://localhost/log"

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self._values[self.task_id, key] = value

    def xcom_pull(self, task_ids: list[str], key: str) -> list[Any]:
        return [self._values.get((task_id, key)) for task_id in task_ids]


REFUSED = {
    "no merchant": {**CONF, "merchant_ids": [""]},
    "a day to come": {"from_date": "2999-01-01"},
    "reversed": {"from_date": str(DAY), "to_date": str(DAY - dt.timedelta(days=1))},
    "misspelt": {**CONF, "merchants": ["acme"]},
}


@pytest.mark.usefixtures("postgresql")
@pytest.mark.parametrize("conf", REFUSED.values(), ids=REFUSED)
def test_arguments_that_were_refused_are_no_outage(
    receiver: Receiver, on_call: Receiver, usage: Usage, conf: dict[str, Any]
) -> None:
    for number in range(4):
        ti, run = Notes(), SimpleNamespace(run_type="manual", conf=conf, run_id=f"r{number}")
        context: Any = {"ti": ti, "dag_run": run, "params": conf, "run_id": run.run_id, "reason": "task_failure"}
        with pytest.raises(AirflowFailException), failure_noted(context), airflow_errors():
            requested_run(context, load_settings({}), clock.now())
        callbacks.notify_failure(context)
    assert {title.partition(":")[0] for title in titles(receiver)} == {"A usage run was refused"}
    assert len(receiver.messages) == AT_MOST
    assert on_call.messages == []
    found = usage.conn.execute("SELECT DISTINCT kind, resolved_at IS NULL FROM usage_alert").fetchall()
    assert found == [("refused", False)]


def failed_run(conf: dict[str, Any], run_type: str = "manual", **fields: Any) -> dict[str, Any]:
    """What the callback is told of a run that failed before it left any notes."""
    run = SimpleNamespace(run_type=run_type, conf=conf, **fields)
    return {"run_id": "r", "reason": "task_failure", "dag_run": run}


def command_of(alert: Alert) -> tuple[list[str], dict[str, Any]]:
    """What a shell makes of the command as it stands in Slack: its words, and the conf."""
    sections = [block["text"]["text"] for block in render(Notification(alert))["blocks"] if block["type"] == "section"]
    (command,) = [html.unescape(text) for text in sections if text.startswith("airflow ")]
    pasted = ["sh", "-c", f"airflow() {{ printf '%s\\0' \"$@\"; }}; {command}"]
    words = subprocess.run(pasted, capture_output=True, check=True).stdout.decode().split("\0")[:-1]
    return words[:-1], json.loads(words[-1])


def test_the_command_runs_the_same_merchants_again_whatever_they_are_called() -> None:
    merchants = [
        "o'brien",
        'say "hi"',
        "$(touch x) `y` \\",
        "<!channel> & co",
        "line\nbreak\x7f\x1b",
        "\u202eevil",
        "🥐",
    ]
    alert = runs.failed(failed_run({**CONF, "merchant_ids": merchants}), load_settings({}), clock.now())
    words, conf = command_of(alert)
    assert words == ["dags", "trigger", "usage_aggregation", "-c"]
    assert conf == {**CONF, "merchant_ids": merchants}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({"merchant_ids": [], "dry_run": False}, {}, id="all"),
        pytest.param({"dry_run": True}, {"dry_run": True}, id="dry"),
        pytest.param({"merchant_ids": ["&" * 1024]}, {}, id="too long to show"),
        pytest.param({"merchant_ids": "acme"}, {}, id="no list"),
        pytest.param({"merchant_ids": [1]}, {}, id="no ids"),
    ],
)
def test_the_command_repeats_what_can_be_repeated(given: dict[str, Any], expected: dict[str, Any]) -> None:
    alert = runs.failed(failed_run({**CONF, **given}), load_settings({}), clock.now())
    assert command_of(alert)[1] == CONF | expected


@pytest.mark.parametrize("conf", [{"from_date": "<!channel>"}, {"from_date": 5}, {"to_date": ["x"]}], ids=str)
def test_a_run_whose_conf_is_the_error_is_told_all_the_same(conf: dict[str, Any]) -> None:
    alert = runs.failed(failed_run(conf), load_settings({}), clock.now())
    assert alert.title == "Usage run failed: r"
    assert alert.command is None


def test_usage_about_to_expire_comes_with_what_to_type(receiver: Receiver, usage: Usage) -> None:
    lost = key("acme", DAY)
    usage.write({lost: 5})
    usage.client.expire(raw(lost), dt.timedelta(hours=1))
    report = DateReport(DAY, settled=True, verdict=DateVerdict.MISMATCH, keys={Verdict.MISSING: 1})
    proof = Proof([report], [Difference(lost, Verdict.MISSING, None, 0, None, 5)], 1)
    context: Any = {"ti": SimpleNamespace(xcom_push=lambda **_: None, try_number=1, max_tries=3)}
    plan = Plan("r", (Scope(DAY, settled=True),), clock.now())
    notify_proof(usage.client, usage.conn, proof, plan, context, load_settings({}))
    assert titles(receiver) == [f"Usage of {DAY} is about to be lost"]
    shown = [block["text"]["text"] for block in json.loads(receiver.messages[0][1])["blocks"]]
    assert f"airflow dags trigger usage_aggregation -c '{json.dumps(CONF)}'" in shown


@pytest.mark.parametrize("lies_beside", [True, False])
def test_what_went_backwards_leads_to_who_asks(
    receiver: Receiver, usage: Usage, tmp_path: Path, lies_beside: bool
) -> None:
    if lies_beside:
        (tmp_path / "usage_decisions.py").touch()
    usage.write({key("acme", DAY): 5})
    usage.aggregate(DAY, now=clock.now())
    usage.write({key("acme", DAY): 4})
    proof = usage.aggregate(DAY, now=clock.now())
    context: Any = {
        "ti": SimpleNamespace(xcom_push=lambda **_: None, try_number=1, max_tries=3),
        "dag": SimpleNamespace(fileloc=str(tmp_path / "usage_aggregation.py")),
    }
    plan = Plan("r", (Scope(DAY, settled=True),), clock.now())
    notify_proof(usage.client, usage.conn, proof, plan, context, load_settings({}))
    (body,) = [body for _, body in receiver.messages if b"went backwards" in body]
    assert (b"/dags/usage_decisions|Decide in Airflow>" in body) == (lies_beside and ASKS_PEOPLE)


def test_the_first_run_of_a_day_that_fails_is_told_with_all_of_its_dates() -> None:
    now = dt.datetime(2026, 11, 24, 1, 5, tzinfo=dt.UTC)
    midnight = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
    interval = {"data_interval_start": midnight, "data_interval_end": midnight + dt.timedelta(hours=1)}
    alert = runs.failed(failed_run({}, "scheduled", **interval), load_settings({}), now)
    assert alert.title == "Usage run failed: 2026-11-17 to 2026-11-24 (8 days)"
    assert command_of(alert)[1] == {"from_date": "2026-11-17", "to_date": "2026-11-24"}


def test_what_slack_refused_is_told_by_the_next_failure(
    receiver: Receiver, database: object, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    receiver.answers = [(404, {})]
    callbacks.notify_failure({"run_id": "first", "reason": "task_failure"})
    callbacks.notify_failure({"run_id": "second", "reason": "task_failure"})
    assert b"1 more of this kind" in receiver.messages[1][1]


def test_slack_that_takes_messages_and_answers_too_late_gets_a_handful(
    receiver: Receiver, usage: Usage, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    monkeypatch.setattr(slack_webhook, "ATTEMPT_SECONDS", 0.2)
    # Each of them is tried, however slow this machine is.
    monkeypatch.setattr(circuit_breaker, "HANGS_FROM", 60.0)
    over = threading.Event()
    receiver.before = lambda: over.wait(5)
    try:
        for number in range(20):
            callbacks.notify_failure({"run_id": f"r{number}", "reason": "task_failure"})
    finally:
        over.set()
    said = [title.split(":")[0].split(",")[0] for title in titles(receiver)]
    assert said == ["Usage run failed", "Usage run failed", "Still failing", "Still failing"]
    noted = usage.conn.execute("SELECT kind, count(*) FROM usage_alert WHERE told GROUP BY kind ORDER BY kind")
    assert noted.fetchall() == [("failed", 1), ("still_failing", 1), ("unanswered", 2)]


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


RETRY, ANOTHER_TRY = ("running", {"success", "up_for_retry"}), ("running", {"success", "running"})


@pytest.mark.usefixtures("postgresql", "usage")
@pytest.mark.parametrize(
    ("states", "waits", "told"),
    [
        pytest.param([RETRY, RETRY, ("failed", {"failed", "upstream_failed"})], 2, 0, id="fails"),
        pytest.param([RETRY, ("success", {"success"})], 1, 0, id="succeeds"),
        pytest.param([("running", {"failed", "running"}), ("failed", {"failed"})], 1, 0, id="is about to fail"),
        pytest.param([RETRY, ANOTHER_TRY], 1, 1, id="hangs again"),
        pytest.param([RETRY] * 30, lateness.LOOKS, 1, id="retries without end"),
        pytest.param([ANOTHER_TRY], 0, 1, id="has not failed"),
        pytest.param([], 0, 1, id="Airflow cannot be asked"),
    ],
)
def test_late_does_not_come_just_before_the_end_of_a_run_that_waits_for_a_retry(
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    states: list[tuple[str, set[str]]],
    waits: int,
    told: int,
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    def answer(*_: str) -> tuple[str, set[str]]:
        """What Airflow says of the run: the next of these, in the end the last over and over."""
        return states.pop(0) if len(states) > 1 else states[0]

    monkeypatch.setattr(callbacks, "states_of_run", answer)
    monkeypatch.setattr(asyncio, "sleep", pause)
    run = {"dag_run_id": "by hand", "run_type": "manual", "state": "running", "conf": CONF}
    asyncio.run(lateness.notify_late({"dag_run": run}))
    assert pauses == [lateness.PAUSE_SECONDS] * waits
    assert len(receiver.messages) == told


def test_a_late_run_without_params_is_told_with_the_day_before_it_was_triggered(
    receiver: Receiver, database: object, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    triggered = dt.datetime.combine(DAY + dt.timedelta(days=1), dt.time(23, 59), dt.UTC)
    run = {"run_type": "manual", "state": "running", "conf": {}, "run_after": triggered.isoformat()}
    callbacks.notify_late({"dag_run_id": "by hand", **run})
    assert titles(receiver) == [f"Usage run is late: {DAY}"]


def test_the_memory_is_shared_with_what_postgresql_has(
    database: object, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert database
    monkeypatch.setenv("AIRFLOW_CONN_USAGE_POSTGRES", database_url)
    now = clock.now()
    with store.alert_store([], now) as alerts:
        alerts.register.set_incident(now, is_open=True)
    with store.alert_store([], now) as alerts:
        assert alerts.conn is not None
        assert alerts.register.has_incident()


# 2.11 takes the callback's context from that one, and there is none for a mapped task that was never expanded.
@pytest.mark.parametrize("task_id", TASK_IDS)
def test_a_failed_scan_is_told_whichever_task_the_database_names_last(
    dag: Dag, usage: Usage, receiver: Receiver, task_id: str
) -> None:
    slack_connection = connection(receiver.port)
    ended = dag.run({"from_date": "2999-01-01"}, last=task_id, AIRFLOW_CONN_USAGE_SLACK=slack_connection)
    assert ended.state == "failed"
    assert ended.states["upsert_merchant_usage"] == ["upstream_failed"]
    ((_, body),) = receiver.messages
    assert ended.run_id.encode() in body
    assert usage.conn.execute("SELECT run_id FROM usage_alert").fetchall() == [(ended.run_id,)]


def test_a_failed_run_without_params_is_told_with_the_day_that_it_was_to_take(dag: Dag, receiver: Receiver) -> None:
    triggered = dt.datetime.combine(DAY + dt.timedelta(days=1), dt.time(12), dt.UTC).isoformat()
    slack_connection = connection(receiver.port)
    ended = dag.run(at=triggered, without="AIRFLOW_CONN_USAGE_REDIS", AIRFLOW_CONN_USAGE_SLACK=slack_connection)
    assert ended.state == "failed"
    assert titles(receiver) == [f"Usage run failed: {DAY}"]


def test_what_a_run_remembers_in_a_file_lies_in_its_tests_own_folder(dag: Dag, temporary_folder: Path) -> None:
    nowhere = f"postgresql://u:p@127.0.0.1:{free_port()}/x"
    ended = dag.run(CONF, no_retries=True, AIRFLOW_CONN_USAGE_POSTGRES=nowhere)
    assert ended.state == "failed"
    assert [file.name for file in temporary_folder.glob("*/*")] == ["alerts.json"]


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
