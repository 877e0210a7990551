"""The wheel: what it holds, what it asks for, and that it works where this repository is not."""

from __future__ import annotations

import configparser
import datetime as dt
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.message import Message
from email.parser import Parser
from importlib.metadata import requires
from pathlib import Path
from zipfile import ZipFile

import psycopg
import pytest
from packaging.requirements import Requirement

from local.servers import Valkey
from merchant_usage import __version__, clock
from tests.dags.test_imports import imported
from tests.support import PROJECT, Usage, key

UV = PROJECT / ".tools" / "bin" / "uv"
PACKAGE = PROJECT / "merchant_usage"
DAG = PROJECT / "dags" / "usage_aggregation.py"
DIST_INFO = f"merchant_usage-{__version__}.dist-info"
LICENSES = {path.name for path in PROJECT.glob("LICENSE*")}

DAY = clock.now().date() - dt.timedelta(days=5)  # over and settled, whenever the test runs

# What those hold who have no choice: constraint files of Airflow 2.11 to 3.3, and what is newest.
HELD = {
    "cryptography": ["46.0.7", "49.0.0", "50.0.2"],
    "fastapi": ["0.117.1", "0.136.3", "0.139.0"],
    "hiredis": ["3.2.0", "3.4.0"],
    "jinja2": ["3.1.6"],
    "psycopg": ["3.2.9", "3.3.5"],
    "redis": ["6.4.0", "7.4.0", "8.0.0", "8.1.0"],
    "rich": ["13.9.4", "14.3.3", "15.0.0"],
    "tenacity": ["8.5.0", "9.1.4"],
    "uvicorn": ["0.44.0", "0.49.0", "0.54.0"],
    "apache-airflow": ["2.11.2", "3.1.8", "3.2.2", "3.3.1", "3.3.2"],
    "apache-airflow-providers-common-compat": ["1.14.1", "1.23.0"],
    "apache-airflow-providers-pagerduty": ["5.2.3", "5.3.1"],
    "apache-airflow-providers-postgres": ["6.6.1", "7.1.1"],
    "apache-airflow-providers-redis": ["4.4.2", "4.7.1"],
    "apache-airflow-providers-slack": ["9.8.0", "9.11.1"],
}
#: What serves the page, which Airflow 2.11 does not have.
NOT_ON_2 = {"fastapi", "uvicorn"}
NOT_FOR_US = {"apache-airflow": ["2.10.5", "3.0.6"], "redis": ["5.3.1"]}


def call(*command: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a program outside the project, with nothing of ours on its path or in its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("USAGE_", "PYTHON", "VIRTUAL"))}
    cwd, env = PROJECT.anchor, {**kept, **environ}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


def install(python: Path, *arguments: str | Path) -> str:
    """Install from uv's cache, which ./run has filled, else from the registry. Returns what went wrong."""
    command = (UV, "pip", "install", "--quiet", "--python", python, *arguments)
    done = call(*command, "--offline")
    for environ in ({}, {"UV_SYSTEM_CERTS": "true"}):
        if done.returncode:
            done = call(*command, **environ)
    return done.stderr if done.returncode else ""


def needed(name: str, extras: Iterable[str] = ("",)) -> set[str]:
    """What a package that is installed here needs, itself included."""
    found = {name}
    for requirement in map(Requirement, requires(name) or ()):
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            found |= needed(requirement.name, requirement.extras or ("",))
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from that."""
    folder = tmp_path_factory.mktemp("built")
    build = (UV, "build", "--quiet", "--offline", "--no-build-isolation", "--python", sys.executable)
    done = call(*build, "--out-dir", folder, PROJECT)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as files:
        return Parser().parsestr(files.read(f"{DIST_INFO}/METADATA").decode())


@pytest.fixture(scope="module")
def required(metadata: Message) -> dict[str, Requirement]:
    """What it asks for, for itself and for Airflow."""
    requirements = map(Requirement, metadata.get_all("Requires-Dist", []))
    return {requirement.name: requirement for requirement in requirements}


@dataclass(frozen=True)
class Installed:
    """The wheel in an environment of its own, and the test's own servers."""

    bin: Path
    urls: dict[str, str]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return call(self.bin / "merchant-usage", *arguments, **self.urls)


@pytest.fixture(scope="module", params=["as locked", "redis 6.4"])
def environment(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel and what it asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    done = call(UV, "venv", "--quiet", "--clear", "--python", sys.executable, folder)
    assert done.returncode == 0, done.stderr
    python = folder / "bin" / "python"
    # By itself uv would ask the registry what they need; with these at hand the wheel is content, or it asks for more.
    locked = re.findall(r"^([a-z0-9-]+)(==.*(?:\n .*)*)", (PROJECT / "requirements.lock").read_text(), re.MULTILINE)
    dependencies = needed("merchant-usage")
    pins = folder / "pins.txt"
    pins.write_text("\n".join(name + pin for name, pin in locked if name in dependencies))
    assert install(python, "--no-deps", "--require-hashes", "--requirement", pins) == ""
    assert install(python, wheel) == ""
    if request.param == "redis 6.4" and (problem := install(python, "redis==6.4.0")):
        assert "Failed to fetch" in problem, problem
        pytest.skip("redis 6.4 is not in uv's cache, and the package index cannot be reached")
    return folder / "bin"


@pytest.fixture
def installed(environment: Path, valkey: Valkey, empty_database_url: str) -> Installed:
    return Installed(environment, {"USAGE_REDIS_URL": valkey.url, "USAGE_POSTGRES_URL": empty_database_url})


def test_it_holds_the_package_the_queries_the_dag_and_nothing_else(wheel: Path) -> None:
    package = {path for path in PACKAGE.rglob("*") if path.is_file() and path.parent.name != "__pycache__"}
    queries = {path.relative_to(PROJECT / "include") for path in (PROJECT / "include" / "sql").rglob("*.sql")}
    assert len(queries) > 50
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", *(f"licenses/{name}" for name in LICENSES)}
    with ZipFile(wheel) as files:
        assert set(files.namelist()) == {
            *(path.relative_to(PROJECT).as_posix() for path in package),
            *(f"merchant_usage/{path.as_posix()}" for path in queries),
            *(f"merchant_usage/dags/{path.name}" for path in (PROJECT / "dags").glob("*.py")),
            *(f"{DIST_INFO}/{name}" for name in about),
        }


def test_the_source_distribution_holds_what_builds_the_wheel(built: Path) -> None:
    (found,) = built.glob("*.tar.gz")
    with tarfile.open(found) as files:
        tops = {name.split("/")[1] for name in files.getnames()}
    others = {".gitignore", "PKG-INFO", "README.md", "pyproject.toml"}
    assert tops - LICENSES == {"dags", "include", "merchant_usage", *others}


def test_it_has_one_command_and_one_plugin(wheel: Path) -> None:
    with ZipFile(wheel) as files:
        found = configparser.ConfigParser()
        found.read_string(files.read(f"{DIST_INFO}/entry_points.txt").decode())
    assert {name: dict(found[name]) for name in found.sections()} == {
        "console_scripts": {"merchant-usage": "merchant_usage.cli.main:main"},
        "airflow.plugins": {"merchant_usage": "merchant_usage.orchestration.plugin:UsagePlugin"},
    }


def test_its_name_version_and_license(metadata: Message) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("merchant-usage", __version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"


def test_it_asks_for_what_it_imports(required: dict[str, Requirement]) -> None:
    without_airflow = [path for path in PACKAGE.rglob("*.py") if "orchestration" not in path.parts]
    roots = {name.split(".")[0] for path in without_airflow for name in imported(path.read_text(encoding="utf-8"))}
    ours = roots - set(sys.stdlib_module_names) - {"merchant_usage"}
    outside = {name for name, requirement in required.items() if "airflow" not in str(requirement.marker)}
    assert ours == outside


@pytest.mark.parametrize("name", HELD)
def test_what_platforms_hold_will_do(required: dict[str, Requirement], name: str) -> None:
    refused = [version for version in HELD[name] if version not in required[name].specifier]
    assert refused == []
    taken = [version for version in NOT_FOR_US.get(name, []) if version in required[name].specifier]
    assert taken == []


def test_nothing_is_asked_for_that_is_not_looked_at(required: dict[str, Requirement]) -> None:
    assert set(required) == set(HELD)


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-airflow2.lock"])
def test_what_the_image_and_the_tests_use_will_do(required: dict[str, Requirement], lock: str) -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (PROJECT / lock).read_text(encoding="utf-8"), re.MULTILINE))
    assert set(required) - set(locked) == (set() if lock == "requirements.lock" else NOT_ON_2)
    chosen = {name: locked[name] for name in required if name in locked}
    assert {name: held for name, held in chosen.items() if held not in required[name].specifier} == {}


def test_it_works_without_the_repository(installed: Installed, usage: Usage) -> None:
    usage.write({key("acme", DAY): 5, key("émoji 🎉 %*", DAY): 6})
    told = installed("--help")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("usage: merchant-usage ")

    migrated = installed("migrate")
    assert migrated.returncode == 0, migrated.stderr
    schema = sorted(path.stem for path in (PROJECT / "include" / "sql" / "schema").glob("*.sql"))
    assert migrated.stdout.splitlines() == [f"applied {name}" for name in schema]

    aggregated = installed("aggregate", "--date", str(DAY))
    assert aggregated.returncode == 0, aggregated.stderr
    assert f"{DAY} | verified" in aggregated.stdout
    with psycopg.connect(installed.urls["USAGE_POSTGRES_URL"]) as conn:
        rows = conn.execute("SELECT merchant_id, metric_value FROM merchant_usage ORDER BY metric_value").fetchall()
    assert rows == [("acme", 5), ("émoji 🎉 %*", 6)]


def test_it_writes_the_dag_file_that_belongs_to_it(environment: Path, tmp_path: Path) -> None:
    done = call(environment / "merchant-usage", "dag-file", tmp_path)
    assert (done.returncode, done.stdout) == (0, f"Wrote {tmp_path / DAG.name}\n"), done.stderr
    head, rest = (tmp_path / DAG.name).read_text(encoding="utf-8").split("\n", 1)
    assert head.startswith(f"# merchant-usage {__version__} ")
    assert rest == DAG.read_text(encoding="utf-8")


def test_its_command_ends_with_the_exit_code_of_the_work(environment: Path) -> None:
    done = call(environment / "merchant-usage", "status")
    assert done.returncode == 2
    assert done.stderr.startswith("error: USAGE_POSTGRES_URL is not set")


def test_the_package_is_a_program_too(environment: Path) -> None:
    done = call(environment / "python", "-m", "merchant_usage", "--version")
    assert (done.returncode, done.stdout) == (0, f"merchant-usage {__version__}\n")


def test_nothing_is_taken_from_the_repository(environment: Path) -> None:
    look = "import merchant_usage, merchant_usage.sink.queries as q; print(merchant_usage.__file__, q.SQL_FOLDER)"
    package, queries = call(environment / "python", "-c", look).stdout.split()
    assert Path(package).is_relative_to(environment.parent)
    assert Path(queries) == Path(package).parent / "sql"


def test_all_that_is_installed_fits(environment: Path) -> None:
    done = call(UV, "pip", "check", "--python", environment / "python")
    assert done.returncode == 0, done.stderr
