"""docker-compose.yml, as far as can be told without Docker: by the schema of Compose, and by what it leads to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from psycopg.conninfo import conninfo_to_dict

from local.airflow import COMPONENTS
from local.airflow_environment import airflow_environment
from local.connections import postgres_connection, redis_connection
from tests.support import PROJECT

#: Of github.com/compose-spec/compose-spec, of June 2026.
SCHEMA = Path(__file__).with_name("compose-spec.json")
FILES = ("docker-compose.yml", "docker-compose.override.yml")


def merged(*documents: dict[str, Any]) -> dict[str, Any]:
    """As Docker merges the files that it finds by themselves."""
    result: dict[str, Any] = {}
    for document in documents:
        for name, value in document.items():
            both = isinstance(value, dict) and isinstance(result.get(name), dict)
            result[name] = merged(result[name], value) if both else value
    return result


def read(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((PROJECT / name).read_text(encoding="utf-8")))


WHOLE = merged(*map(read, FILES))
SERVICES: dict[str, dict[str, Any]] = WHOLE["services"]
OF_AIRFLOW = {name: service for name, service in SERVICES.items() if "build" in service}
ENVIRONMENT: dict[str, str] = SERVICES["airflow-scheduler"]["environment"]


@pytest.mark.parametrize("document", [*map(read, FILES), WHOLE], ids=[*FILES, "both"])
def test_compose_takes_it(document: dict[str, Any]) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    Draft7Validator.check_schema(schema)
    assert [error.message for error in Draft7Validator(schema).iter_errors(document)] == []


def test_each_service_has_what_it_needs() -> None:
    for service in SERVICES.values():
        assert "image" in service
        assert set(service.get("depends_on", {})) <= set(SERVICES)
        assert set(service["networks"]) <= set(WHOLE["networks"])
        for volume in service.get("volumes", ()):
            source, target, *_ = volume.split(":")
            assert (PROJECT / source).is_dir() if source.startswith("./") else source in WHOLE["volumes"], volume
            assert target.startswith(("/opt/airflow/", "/var/lib/postgresql"))
    for needed in {name for service in SERVICES.values() for name in service.get("depends_on", {})}:
        (condition,) = {
            service["depends_on"][needed]["condition"]
            for service in SERVICES.values()
            if needed in service.get("depends_on", {})
        }
        assert condition == "service_completed_successfully" or "healthcheck" in SERVICES[needed]


def test_images_have_a_version_and_ports_are_this_machines() -> None:
    for service in SERVICES.values():
        assert re.search(r":(local|\d+\.\d+(\.\d+)?|\d+)(-alpine)?$", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_all_processes_of_airflow_are_started_by_the_version_that_is_tested() -> None:
    commands = {service.get("command") for service in OF_AIRFLOW.values() if isinstance(service.get("command"), str)}
    assert commands == set(COMPONENTS)
    pinned = re.search(r"^apache-airflow==(.*)$", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    (inline,) = {service["build"]["dockerfile_inline"] for service in OF_AIRFLOW.values()}
    assert pinned
    assert inline.startswith(f"FROM apache/airflow:{pinned[1]}\n")


def test_its_image_is_linted(tmp_path: Path) -> None:
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(SERVICES["airflow-scheduler"]["build"]["dockerfile_inline"], encoding="utf-8")
    said = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), dockerfile], capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout) == (0, "")


def test_connections_and_addresses_lead_to_its_servers() -> None:
    postgres, valkey = SERVICES["usage-postgres"]["environment"], SERVICES["usage-redis"]
    address = ENVIRONMENT["USAGE_POSTGRES_URL"]
    assert conninfo_to_dict(address) == {
        "user": postgres["POSTGRES_USER"],
        "password": postgres["POSTGRES_PASSWORD"],
        "dbname": postgres["POSTGRES_DB"],
        "host": "usage-postgres",
        "port": "5432",
    }
    given = json.loads(ENVIRONMENT["AIRFLOW_CONN_USAGE_POSTGRES"])
    assert {**given, "extra": {}} == json.loads(postgres_connection(address))
    given = json.loads(ENVIRONMENT["AIRFLOW_CONN_USAGE_REDIS"])
    assert {**given, "login": None} == json.loads(redis_connection(ENVIRONMENT["USAGE_REDIS_URL"]))
    assert given["password"] == valkey["command"][valkey["command"].index("--requirepass") + 1]
    airflows = SERVICES["airflow-postgres"]["environment"]
    for name in ("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"):
        assert conninfo_to_dict(ENVIRONMENT[name].replace("+psycopg", "")) == {
            "user": airflows["POSTGRES_USER"],
            "password": airflows["POSTGRES_PASSWORD"],
            "dbname": airflows["POSTGRES_DB"],
            "host": "airflow-postgres",
        }
    assert (
        f"//{next(name for name, each in SERVICES.items() if each.get('command') == 'api-server')}:8080/"
        in (ENVIRONMENT["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"])
    )


def test_the_options_are_those_of_the_airflow_that_the_demo_starts(tmp_path: Path) -> None:
    known = airflow_environment(tmp_path, tmp_path, "postgresql://x", 1, "secret", tmp_path)
    assert {name for name in ENVIRONMENT if name.startswith("AIRFLOW__")} <= set(known)
