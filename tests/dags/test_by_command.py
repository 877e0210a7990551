"""`airflow dags test` ends as its tasks ended."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys

from merchant_usage.settings import DAG_ID
from tests.dags.support import Dag
from tests.support import Usage, key

YESTERDAY = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


def run_by_command(dag: Dag, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "airflow", "dags", "test", DAG_ID, *options],
        env={**dag.runner.environment, **dag.connections, "TMPDIR": str(dag.temporary_folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_day_that_is_proven(dag: Dag, usage: Usage) -> None:
    counter = key("acme", YESTERDAY)
    usage.write({counter: 5})
    done = run_by_command(dag)
    assert done.returncode == 0, done.stderr[-3000:]
    assert usage.rows() == {counter: 5}


def test_a_day_that_cannot_be(dag: Dag, usage: Usage) -> None:
    """No AttributeError of Airflow's at the end; the run is red in its database."""
    done = run_by_command(dag, "-c", '{"from_date": "2099-01-01"}')
    said = done.stdout + done.stderr
    assert "from_date=2099-01-01" in said
    assert "AttributeError" not in said
    assert usage.rows() == {}
    assert done.returncode == 1
