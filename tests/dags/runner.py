"""Runs the DAG with `dag.test()`, in a process of its own: one request a line on stdin, one answer a line on stdout.

Airflow reads its configuration once a process, so tests in which connections and settings differ cannot share theirs.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import tempfile
from contextlib import nullcontext
from typing import Any
from unittest import mock

# A variable of these that a request does not name is not there.
OF_A_REQUEST = ("USAGE_", "AIRFLOW_CONN_USAGE_", "AIRFLOW__METRICS__STAT", "AIRFLOW__METRICS__OTEL_", "OTEL_")


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run the DAG once, as the request says, and tell how each task ended."""
    from airflow.utils.session import create_session

    from merchant_usage import clock
    from merchant_usage.orchestration.compat import pushed
    from merchant_usage.orchestration.run_notes import note_of
    from tests.dags.versions import (
        asset_events,
        dag_bag,
        end_metrics,
        made_scheduled,
        named_last,
        start_metrics,
        triggered,
    )

    for name in [name for name in os.environ if name.startswith(OF_A_REQUEST)]:
        del os.environ[name]
    os.environ.update(request["environ"])
    tempfile.tempdir = None  # asked for once a process, otherwise
    start_metrics()
    ahead = dt.timedelta(seconds=request["clock_ahead"])

    def wrong_clock() -> dt.datetime:
        return dt.datetime.now(dt.UTC) + ahead

    bag = dag_bag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    if bag.import_errors:
        raise ValueError(bag.import_errors)
    dag = bag.dags[request["dag_id"]]
    # 3.3.2: dag.test() of a DAG with a deadline crashes at its end.
    if getattr(dag, "deadline", None):
        dag.deadline = None
    if request["no_retries"]:
        for task in dag.tasks:
            task.retries = 0

    # dag.test() knows manual runs only.
    with (
        made_scheduled(request["scheduled"]) if request["scheduled"] else nullcontext(),
        named_last(request["last"]) if request["last"] else nullcontext(),
        mock.patch.object(clock, "now", wrong_clock),
    ):
        ended = dag.test(run_conf=request["conf"], **triggered(request["at"]))
    end_metrics()
    with create_session() as session:
        mapped_over = pushed(session, ended, "scan_usage", "return_value")
        # There is no scheduler here to write it.
        note = note_of(session, ended)
        events = asset_events(session, ended)
    instances = sorted(ended.get_task_instances(), key=lambda ti: (ti.task_id, ti.map_index))
    return {
        "run_id": ended.run_id,
        "state": str(ended.state),
        "note": note,
        "mapped_bytes": len(json.dumps(mapped_over)),
        "events": events,
        "tasks": [[ti.task_id, str(ti.state), ti.rendered_map_index] for ti in instances],
    }


def main() -> None:
    """Answer until stdin ends. All that Airflow prints goes to stderr."""
    from tests.dags.versions import keep_api_server

    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        keep_api_server()
        for line in sys.stdin:
            answer = run(json.loads(line))
            sys.stdout.flush()
            print(json.dumps(answer), file=answers, flush=True)
    # The API server that dag.test() runs in this process leaves a thread that would never end.
    os._exit(0)


if __name__ == "__main__":
    main()
