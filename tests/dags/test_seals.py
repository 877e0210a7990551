"""Seals leave PostgreSQL by themselves, and what is not as it was sealed is told once."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.servers.processes import free_port
from merchant_usage import clock
from merchant_usage.model.seal import Seal
from merchant_usage.sink import seals
from tests.dags.support import Dag
from tests.dags.versions import AIRFLOW_3
from tests.support import Usage, key
from tests.webhooks import Receiver

TODAY = clock.now().date()
DAY = TODAY - dt.timedelta(days=3)
CONF = {"from_date": str(DAY), "to_date": str(DAY)}
#: The begin of the first interval of a day, whose run sweeps.
MIDNIGHT = f"{TODAY}T00:00:00+00:00"


def slack_at(port: int) -> str:
    return json.dumps(
        {"conn_type": "slackwebhook", "host": f"127.0.0.1:{port}/s", "schema": "http", "password": "T/B/X"}
    )


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """What stands in Slack's place."""
    with Receiver().running() as running:
        yield running


def told(receiver: Receiver, about: str) -> list[str]:
    """The whole text of each message whose title has these words."""
    bodies = [json.loads(body) for _, body in receiver.messages]
    return [
        "\n".join(block["text"]["text"] for block in body["blocks"] if "text" in block)
        for body in bodies
        if about in body["text"]
    ]


def sealed(usage: Usage) -> list[Seal]:
    with usage.conn.transaction():
        return [*seals.every(usage.conn)]


def test_late_usage_is_found_by_the_sweep_stored_sealed_and_told_once(
    dag: Dag, usage: Usage, receiver: Receiver
) -> None:
    slack = slack_at(receiver.port)
    usage.write({key("acme", DAY): 5, key("zeta", DAY): 7, key("acme", TODAY): 1})
    assert dag.run(CONF, AIRFLOW_CONN_USAGE_SLACK=slack).state == "success"
    usage.write({key("acme", DAY): 9, key("new", DAY): 2})
    assert dag.run(scheduled=MIDNIGHT, AIRFLOW_CONN_USAGE_SLACK=slack).state == "success"
    assert dag.run(CONF, AIRFLOW_CONN_USAGE_SLACK=slack).state == "success"
    assert usage.rows()[key("acme", DAY)] == 9
    assert [(each.version, each.reason) for each in sealed(usage) if each.date == DAY] == [(1, "first"), (2, "late")]
    (message,) = told(receiver, "came late")
    assert f"{DAY} was sealed with 12. It is verified with 18 now" in message
    assert "acme had 5, and has 9\nnew was not there, and has 2" in message
    assert "zeta" not in message
    assert told(receiver, "is not what was sealed") == []


def test_late_usage_that_slack_did_not_hear_of_is_told_by_the_next_run(
    dag: Dag, usage: Usage, receiver: Receiver
) -> None:
    usage.write({key("acme", DAY): 5})
    dag.run(CONF)
    usage.write({key("acme", DAY): 6})
    dag.run(CONF, AIRFLOW_CONN_USAGE_SLACK=slack_at(free_port()))
    dag.run(CONF, AIRFLOW_CONN_USAGE_SLACK=slack_at(receiver.port))
    assert len(told(receiver, "came late")) == 1


def test_sealed_date_that_was_changed_is_told_once_by_the_first_run_of_a_day(
    dag: Dag, usage: Usage, receiver: Receiver
) -> None:
    slack = slack_at(receiver.port)
    usage.write({key("acme", DAY): 5, key("zeta", DAY): 7, key("acme", TODAY): 1})
    dag.run(CONF, AIRFLOW_CONN_USAGE_SLACK=slack)
    usage.client.flushall()
    usage.write({key("acme", TODAY): 1})
    usage.conn.execute("UPDATE merchant_usage SET metric_value = 12 - metric_value WHERE date = %s", [DAY])
    for _ in range(2):
        # Else the second run is not the first of the day.
        usage.conn.execute("DELETE FROM usage_run WHERE run_type = 'scheduled'")
        ended = dag.run(scheduled=MIDNIGHT, AIRFLOW_CONN_USAGE_SLACK=slack)
        assert f"{DAY} is not what was sealed. Merchants that changed: acme had 5, and has 7; zeta had 7" in ended.log
    next_hour = dag.run(scheduled=f"{TODAY}T01:00:00+00:00", AIRFLOW_CONN_USAGE_SLACK=slack)
    assert "is not what was sealed" not in next_hour.log, "once a day"
    (message,) = told(receiver, "is not what was sealed")
    assert "acme had 5, and has 7; zeta had 7, and has 5" in message
    assert len(sealed(usage)) == 1, "nobody's change is sealed"


def test_each_seal_is_written_once_to_where_the_setting_says(dag: Dag, usage: Usage, tmp_path: Path) -> None:
    folder = tmp_path / "seals"
    usage.write({key("acme", DAY): 5})
    ended = dag.run(CONF, USAGE_SEAL_EXPORT=str(folder))
    (seal,) = sealed(usage)
    (file,) = folder.iterdir()
    assert file.name == f"seal_000000000001_{DAY}_v1.json"
    assert Seal.from_json(json.loads(file.read_text(encoding="utf-8"))) == seal
    assert ended.note is not None
    assert ended.note.endswith(f"Seal 1: {DAY} version 1, chain {seal.chain.hex()}")
    if AIRFLOW_3:
        assert ended.events[0]["seals"] == [seal.to_json()]

    # One that is there stays, and one that is missing is written by the first run of a day.
    usage.write({key("acme", DAY): 6, key("acme", TODAY): 1})
    dag.run(CONF)
    written = file.read_text(encoding="utf-8")
    dag.run(scheduled=MIDNIGHT, USAGE_SEAL_EXPORT=f"file://{folder}")
    assert sorted(each.name for each in folder.iterdir()) == [file.name, f"seal_000000000002_{DAY}_v2.json"]
    assert file.read_text(encoding="utf-8") == written


def test_store_that_cannot_be_written_fails_no_run_and_is_told_once(
    dag: Dag, usage: Usage, receiver: Receiver, tmp_path: Path
) -> None:
    slack = slack_at(receiver.port)
    in_the_way = tmp_path / "seals"
    in_the_way.write_text("no folder")
    usage.write({key("acme", DAY): 5})
    for value in (5, 6):
        usage.write({key("acme", DAY): value})
        ended = dag.run(CONF, USAGE_SEAL_EXPORT=os.fspath(in_the_way), AIRFLOW_CONN_USAGE_SLACK=slack)
        assert ended.state == "success"
        assert "USAGE_SEAL_EXPORT cannot be written (" in ended.log
    assert len(told(receiver, "Seals were not written down")) == 1


def test_seal_that_was_made_anew_is_told_beside_its_file(
    dag: Dag, usage: Usage, receiver: Receiver, tmp_path: Path
) -> None:
    usage.write({key("acme", DAY): 5, key("acme", TODAY): 1})
    dag.run(CONF, USAGE_SEAL_EXPORT=str(tmp_path))
    with usage.conn.transaction():
        usage.conn.execute("SET LOCAL session_replication_role = replica")
        usage.conn.execute("TRUNCATE usage_seal, usage_seal_page")
    slack = slack_at(receiver.port)
    ended = dag.run(scheduled=MIDNIGHT, USAGE_SEAL_EXPORT=str(tmp_path), AIRFLOW_CONN_USAGE_SLACK=slack)
    assert ended.state == "success"
    assert len(told(receiver, "Seals were not written down")) == 1
    assert f"seal 1 ({DAY}, version 1) was made anew" in ended.log
