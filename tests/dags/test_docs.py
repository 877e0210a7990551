"""The commands that the README teaches are commands of the Airflow that is installed."""

from __future__ import annotations

import argparse
import json
import re
import shlex

import pytest

from merchant_usage.settings import DAG_ID
from tests.dags.versions import AIRFLOW_3
from tests.support import PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")
ELSEWHERE = "airflow dags backfill" if AIRFLOW_3 else "airflow backfill create"
COMMANDS = sorted(set(re.findall(rf"`(airflow [^`]*{DAG_ID}[^`]*)`", README)))


def parsed(command: str) -> argparse.Namespace:
    from airflow.cli.cli_parser import get_parser

    return get_parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith(ELSEWHERE)])
def test_airflow_knows_the_command(command: str) -> None:
    arguments = parsed(command)
    assert arguments.dag_id == DAG_ID
    if conf := getattr(arguments, "conf", None):
        assert set(json.loads(conf)) <= {"from_date", "to_date", "merchant_ids", "dry_run"}


def test_every_way_to_run_it_is_taught() -> None:
    taught = {" ".join(command.split()[1:3]) for command in COMMANDS}
    assert taught == {"dags trigger", "dags backfill", "backfill create"}


def test_the_other_version_s_backfill_is_none_of_this_one() -> None:
    (other,) = [command for command in COMMANDS if command.startswith(ELSEWHERE)]
    with pytest.raises(SystemExit):
        parsed(other)
