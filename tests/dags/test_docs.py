"""Commands and settings of the docs are those of the Airflow that is installed."""

from __future__ import annotations

import argparse
import json
import re
import shlex

import pytest
from airflow.providers.common.compat.sdk import Connection
from psycopg.conninfo import conninfo_to_dict

from merchant_usage.connections import POSTGRES_URL, REDIS_URL
from merchant_usage.orchestration.connections import check_redis_connection, read_extra
from merchant_usage.settings import DAG_ID, DECISIONS_DAG_ID, VARIABLES, load_settings
from merchant_usage.source.options import parse_redis_urls
from tests import docs
from tests.dags.versions import AIRFLOW_3

ELSEWHERE = "airflow dags backfill" if AIRFLOW_3 else "airflow backfill create"
COMMANDS = [command for command in docs.commands() if command.startswith("airflow ")]
#: Of each DAG of ours, that of examples/ too.
PARAMS = {
    DAG_ID: {"from_date", "to_date", "merchant_ids", "dry_run"},
    DECISIONS_DAG_ID: set(),
    "invoice_month": {"month", "unsealed_days"},
}
#: What an `ini` block may set besides our own settings, connections and Airflow's options.
OTHERS = {"PYTHONPATH", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"}
OTHERS |= {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"}
TYPES = {
    "page": "postgres",
    "pagerduty": "pagerduty_events",
    "postgres": "postgres",
    "redis": "redis",
    "slack": "slackwebhook",
}


def parsed(command: str) -> argparse.Namespace:
    from airflow.cli.cli_parser import get_parser

    return get_parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("command", [command for command in COMMANDS if not command.startswith(ELSEWHERE)])
def test_airflow_knows_the_command(command: str) -> None:
    arguments = parsed(command)
    taken = PARAMS[arguments.dag_id]
    if conf := getattr(arguments, "conf", None):
        assert set(json.loads(conf)) <= taken


def test_every_way_to_run_it_is_taught() -> None:
    taught = {" ".join(command.split()[1:3]) for command in COMMANDS}
    assert {"dags trigger", "dags backfill", "backfill create"} <= taught


def test_the_other_version_s_backfill_is_none_of_this_one() -> None:
    (other,) = [command for command in COMMANDS if command.startswith(ELSEWHERE)]
    with pytest.raises(SystemExit):
        parsed(other)


def known_to_airflow(name: str) -> bool:
    """Whether AIRFLOW__SECTION__OPTION is an option of the installed Airflow."""
    from airflow.configuration import conf

    _, section, option = name.lower().split("__")
    return bool(conf.has_option(section, option))


@pytest.mark.parametrize(("page", "name", "value"), docs.variables(), ids=lambda text: text[:40])
def test_variable_and_value_are_accepted(page: str, name: str, value: str) -> None:
    if name in VARIABLES:
        load_settings({name: value})
    elif name == REDIS_URL:
        assert parse_redis_urls(value)
    elif name == POSTGRES_URL:
        assert conninfo_to_dict(value)["dbname"]
    elif re.match("AIRFLOW_CONN_USAGE_", name):
        connection = Connection.from_json(value)
        assert connection.conn_type == TYPES[name.split("_")[3].lower()]
        read_extra(connection)
        if connection.conn_type == "redis":
            check_redis_connection(connection)
    elif name.startswith("AIRFLOW__"):
        of_2 = page == "airflow-2.md" or name in {"AIRFLOW__METRICS__OTEL_HOST", "AIRFLOW__METRICS__OTEL_PORT"}
        assert known_to_airflow(name) or (of_2 and AIRFLOW_3)
    else:
        assert name in OTHERS
