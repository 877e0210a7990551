"""Runs the DAG with `dag.test()`, in a process of its own: one request a line on stdin, one answer a line on stdout.

Airflow reads its configuration once a process, so tests in which connections and settings differ cannot share theirs.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from typing import Any
from unittest.mock import patch


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Run the DAG once, as the request says, and tell how each task ended."""
    from airflow.dag_processing.dagbag import DagBag
    from airflow.models import dagrun

    for name in [name for name in os.environ if name.startswith(("USAGE_", "AIRFLOW_CONN_USAGE_"))]:
        del os.environ[name]
    os.environ.update(request["environ"])
    bag = DagBag(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    if bag.import_errors:
        raise ValueError(bag.import_errors)
    dag = bag.dags["usage_aggregation"]
    # 3.3.2: dag.test() of a DAG with a deadline crashes at its end.
    if getattr(dag, "deadline", None):
        dag.deadline = None
    if request["no_retries"]:
        for task in dag.tasks:
            task.retries = 0

    create = dagrun.get_or_create_dagrun

    def create_scheduled(*, session: Any, **arguments: Any) -> Any:
        """dag.test() knows manual runs only: make it one of the scheduler's."""
        start = dt.datetime.fromisoformat(request["scheduled"])
        created = create(session=session, **arguments)
        created.run_type = "scheduled"
        created.data_interval_start, created.data_interval_end = start, start + dt.timedelta(hours=1)
        session.commit()
        return created

    if request["scheduled"]:
        with patch.object(dagrun, "get_or_create_dagrun", create_scheduled):
            ended = dag.test(run_conf=request["conf"])
    else:
        ended = dag.test(run_conf=request["conf"])
    instances = sorted(ended.get_task_instances(), key=lambda ti: (ti.task_id, ti.map_index))
    return {
        "run_id": ended.run_id,
        "state": str(ended.state),
        "tasks": [[ti.task_id, str(ti.state), ti.rendered_map_index] for ti in instances],
    }


def main() -> None:
    """Answer until stdin ends. All that Airflow prints goes to stderr."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        for line in sys.stdin:
            answer = run(json.loads(line))
            sys.stdout.flush()
            print(json.dumps(answer), file=answers, flush=True)
    # The API server that dag.test() runs in this process leaves a thread that would never end.
    os._exit(0)


if __name__ == "__main__":
    main()
