"""A PostgreSQL that falls silent, while its machine still acknowledges all it is sent, keeps no task for ever."""

from __future__ import annotations

import datetime as dt

from merchant_usage import clock
from tests.dags.support import Dag
from tests.faults.proxy import LosingProxy
from tests.support import Usage, key

DAY = clock.now().date() - dt.timedelta(days=3)
CONF = {"from_date": str(DAY), "to_date": str(DAY)}


def test_task_that_waits_for_a_silent_server_is_ended_and_its_retry_is_exact(
    dag: Dag, usage: Usage, database_url: str
) -> None:
    counters = {key("acme", DAY): 5, key("other", DAY): 6}
    usage.write(counters)
    with LosingProxy(database_url, "COPY", hangs=True) as proxy:
        ended = dag.run(
            CONF,
            no_retries=True,
            USAGE_MAX_MAPPED_TASKS="1",
            USAGE_TASK_TIMEOUT_SECONDS="10",
            AIRFLOW_CONN_USAGE_POSTGRES=proxy.url,
        )
        assert proxy.has_cut
    assert ended.state == "failed"
    assert ended.states["upsert_merchant_usage"] == ["failed"]
    assert "it took longer than USAGE_TASK_TIMEOUT_SECONDS allows" in ended.log
    assert "That was attempt 1 of 1: when it has passed, clear this task with its downstream tasks." in ended.log
    assert dag.run(CONF).state == "success"
    assert usage.rows() == counters
