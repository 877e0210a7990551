"""What is missing or too old is one sentence when the DAG is parsed."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import pytest

from merchant_usage.orchestration.platform import NEEDED, OPTIONAL, PlatformTooOld, require_platform
from tests.dags.versions import dag_bag
from tests.support import PROJECT

REQUIREMENT = re.compile(r"^([a-z0-9-]+)(?:\[[a-z]+\])?>=([0-9.]+)")
# Those of the command line, without which no task begins.
OF_THE_ENGINE = {"rich", "tenacity"}


def installed(changes: Mapping[str, str | None]) -> None:
    """As if these versions were installed; None: not at all."""

    def find(name: str) -> str:
        version = changes[name] if name in changes else metadata.version(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    require_platform(find)


def test_this_one_will_do() -> None:
    require_platform()


@pytest.mark.parametrize("version", ["2.11.2", "2.11.3", "3.1.0", "3.2.2", "3.3.2", "3.4.0rc1"])
def test_so_will_these(version: str) -> None:
    installed({"apache-airflow": version})


@pytest.mark.parametrize("version", ["2.10.5", "2.11.0", "3.0.0", "3.0.6"])
def test_an_airflow_that_cannot_run_it_is_named_with_what_can(version: str) -> None:
    with pytest.raises(PlatformTooOld) as told:
        installed({"apache-airflow": version})
    assert str(told.value) == (
        f"The usage aggregation cannot run on this Airflow: apache-airflow {version} is installed, "
        "and 2.11.2 or newer is needed, but not 3.0."
    )


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(PlatformTooOld) as told:
        installed(
            {
                "apache-airflow-providers-common-compat": "1.7.0",
                "hiredis": None,
                "psycopg": None,
                "redis": "5.2.1",
                "apache-airflow-providers-slack": "9.0.0",
            }
        )
    assert str(told.value) == (
        "The usage aggregation cannot run on this Airflow: "
        "apache-airflow-providers-common-compat 1.7.0 is installed, and 1.14 or newer is needed; "
        "hiredis is not installed, and 3.2 or newer is needed; "
        "psycopg is not installed, and 3.2.9 or newer is needed; "
        "redis 5.2.1 is installed, and 6.4 or newer is needed; "
        "apache-airflow-providers-slack 9.0.0 is installed, and 9.8 or newer is needed."
    )


@pytest.mark.parametrize("name", OPTIONAL)
def test_nobody_needs_slack_or_pagerduty(name: str) -> None:
    installed({name: None})


@pytest.mark.parametrize("name", NEEDED)
def test_the_dag_says_so_where_it_is_parsed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = metadata.version

    def without(asked: str) -> str:
        if asked == name:
            raise metadata.PackageNotFoundError(asked)
        return find(asked)

    # As in a new process: what was imported before was asked for before.
    for module in [module for module in sys.modules if module.startswith("merchant_usage.orchestration")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(metadata, "version", without)
    errors = dag_bag(PROJECT / "dags").import_errors
    sentence = f"cannot run on this Airflow: {name} is not installed, and {NEEDED[name]} or newer is needed."
    assert sorted(Path(file).stem for file in errors) == ["usage_aggregation", "usage_decisions"]
    for error in errors.values():
        assert error.strip().splitlines()[-1].endswith(sentence)


def test_the_package_asks_for_the_same() -> None:
    project = tomllib.loads(Path(PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["airflow"]]
    floors = {found[1]: found[2] for line in wanted if (found := REQUIREMENT.match(line))}
    assert len(floors) == len(wanted)
    assert {name: floor for name, floor in floors.items() if name not in OF_THE_ENGINE} == {**NEEDED, **OPTIONAL}
