"""The layouts in which platforms hold Airflow's files: the DAG is found, the plugin is loaded, nothing else happens."""

from __future__ import annotations

import datetime as dt
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from airflow.providers.common.compat.sdk import Connection
from packaging.requirements import Requirement

from local.servers import Valkey
from merchant_usage import __version__, clock
from merchant_usage.orchestration.connections import check_redis_connection
from merchant_usage.settings import DAG_ID, load_settings
from tests.dags.platforms import Platform, build_wheel, exported_by, make_image, unpack
from tests.dags.versions import DAGS
from tests.integration.test_wheel import UV, call
from tests.support import PROJECT, Usage, key

DAG = PROJECT / "dags" / "usage_aggregation.py"
PLUGIN = PROJECT / "plugins" / "usage.py"
MWAA = PROJECT / "deploy" / "mwaa"
COMPOSER = PROJECT / "deploy" / "composer"
#: Where MWAA unpacks plugins.zip.
MWAA_PLUGINS = "/usr/local/airflow/plugins"

DAY = clock.now().date() - dt.timedelta(days=5)  # over and settled, whenever the test runs

MakePlatform = Callable[..., Platform]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Airflow without our package, which nobody changes."""
    return make_image(tmp_path_factory.mktemp("image") / "venv")


@pytest.fixture(scope="module")
def image_with_wheel(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The same with our package, installed as the docs say."""
    python = make_image(tmp_path_factory.mktemp("with-wheel") / "venv")
    Platform(python, python.parent).install("--no-deps", wheel)
    return python


@pytest.fixture
def platform(tmp_path: Path) -> MakePlatform:
    """An Airflow's home with empty folders."""

    def make(python: Path) -> Platform:
        made = Platform(python, tmp_path / "home")
        for folder in (made.dags, made.plugins):
            folder.mkdir(parents=True)
        return made

    return make


def assert_ours_alone(found: dict[str, Any], place: Path, dags: Iterable[str] = (DAG_ID,)) -> None:
    """Our DAGs and our plugin are found, once, without an error, and the package is the one in this place."""
    assert (found["errors"], found["plugin_errors"]) == ({}, {})
    assert found["dags"] == sorted(dags)
    assert found["plugins"] == ["usage"]
    assert found["places"]
    assert all(Path(each).is_relative_to(place) for each in found["places"])


def copy_repository(folder: Path) -> None:
    """All that git knows, or would know with the next commit."""
    list_files = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(list_files, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, folder / name)


def test_without_the_package_the_dag_says_what_is_missing(platform: MakePlatform, image: Path) -> None:
    airflow = platform(image)
    shutil.copy(DAG, airflow.dags)
    (error,) = airflow.look()["errors"].values()
    assert "No module named 'merchant_usage'" in error


def test_any_platform_with_the_wheel(platform: MakePlatform, image_with_wheel: Path) -> None:
    airflow = platform(image_with_wheel)
    command = image_with_wheel.with_name("merchant-usage")
    done = subprocess.run([command, "dag-file", airflow.dags], env=airflow.environment, check=True, capture_output=True)
    assert done.stdout.decode() == f"Wrote {airflow.dags / DAG.name}\n"
    assert_ours_alone(airflow.look(), image_with_wheel.parents[1])


def wheel_of_version(version: str, folder: Path) -> Path:
    """The wheel, as it would be in another version."""
    for name in ("dags", "include", "merchant_usage"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(PROJECT / name, folder)
    about = folder / "merchant_usage" / "__init__.py"
    text = about.read_text(encoding="utf-8")
    assert text.count(f'"{__version__}"') == 1
    about.write_text(text.replace(f'"{__version__}"', f'"{version}"'), encoding="utf-8")
    return build_wheel(folder / "built", folder)


def test_it_is_upgraded_rolled_back_and_uninstalled(
    platform: MakePlatform, valkey: Valkey, empty_database_url: str, usage: Usage, tmp_path: Path
) -> None:
    """As the docs say: install, write the DAG file, migrate; the rows stay what they are all the way."""
    usage.write({key("acme", DAY): 5})
    airflow = platform(make_image(tmp_path / "venv"))
    urls = {"USAGE_REDIS_URL": valkey.url, "USAGE_POSTGRES_URL": empty_database_url}
    older, newer = (wheel_of_version(version, tmp_path / version) for version in ("0.0.9", "0.9.0"))
    rows: list[tuple[Any, ...]] = []
    for wheel, version in ((older, "0.0.9"), (newer, "0.9.0"), (older, "0.0.9")):
        airflow.install("--no-deps", wheel)
        for arguments in (["dag-file", airflow.dags], ["migrate"], ["aggregate", "--date", str(DAY)]):
            done = airflow.run("-m", "merchant_usage", *arguments, **urls)
            assert done.returncode == 0, done.stderr
        assert (airflow.dags / DAG.name).read_text(encoding="utf-8").startswith(f"# merchant-usage {version} ")
        with psycopg.connect(empty_database_url) as conn:
            rows += conn.execute("SELECT merchant_id, metric_value, created_at FROM merchant_usage").fetchall()
    assert len(rows) == 3
    assert len(set(rows)) == 1
    assert_ours_alone(airflow.look(), tmp_path / "venv")

    done = call(UV, "pip", "uninstall", "--quiet", "--python", airflow.python, "merchant-usage")
    assert done.returncode == 0, done.stderr
    (airflow.dags / DAG.name).unlink()
    found = airflow.look()
    assert (found["dags"], found["errors"], found["plugins"], found["plugin_errors"]) == ([], {}, [], {})
    assert not airflow.python.with_name("merchant-usage").exists()


def test_helm_with_git_sync_of_the_whole_repository(platform: MakePlatform, image_with_wheel: Path) -> None:
    """git-sync keeps a work tree a commit, and `repo` leads to the newest. The package is the image's."""
    airflow = platform(image_with_wheel)
    copy_repository(airflow.dags / ".worktrees" / "0a1b2c")
    (airflow.dags / "repo").symlink_to(Path(".worktrees") / "0a1b2c")
    values = yaml.safe_load((PROJECT / "deploy" / "helm" / "values-git-sync.yaml").read_text(encoding="utf-8"))
    sub_path = values["dags"]["gitSync"]["subPath"]
    found = airflow.look(AIRFLOW__CORE__DAGS_FOLDER=str(airflow.dags / "repo" / sub_path))
    assert_ours_alone(found, image_with_wheel.parents[1], DAGS)


def lines_of(requirements: Path) -> list[str]:
    text = requirements.read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_mwaa(platform: MakePlatform, wheel: Path, tmp_path: Path) -> None:
    """plugins.zip holds the wheel, and requirements.txt installs it from where that is unpacked."""
    airflow = platform(make_image(tmp_path / "venv"))
    shutil.copy(wheel, airflow.plugins)
    constraints = tmp_path / "constraints.txt"
    held = {each.name: each.version for each in metadata.distributions() if each.name != "merchant-usage"}
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in held.items()), encoding="utf-8")
    lines = [
        re.sub(r"https://\S+", str(constraints), line).replace(MWAA_PLUGINS, str(airflow.plugins)).replace('"', "")
        for line in lines_of(MWAA / "requirements.txt")
    ]
    assert any(line.startswith(f"--constraint {constraints}") for line in lines)
    assert str(airflow.plugins / wheel.name) in lines
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("\n".join(lines), encoding="utf-8")
    airflow.install("--requirement", requirements)
    shutil.copy(DAG, airflow.dags)
    assert_ours_alone(airflow.look(**exported_by(MWAA / "startup.sh")), tmp_path / "venv")


def test_mwaa_connections_come_from_its_startup_script() -> None:
    told = exported_by(MWAA / "startup.sh")
    connections = {name: Connection.from_json(value) for name, value in told.items() if "CONN" in name}
    assert set(connections) == {"AIRFLOW_CONN_USAGE_REDIS", "AIRFLOW_CONN_USAGE_POSTGRES"}
    check_redis_connection(connections["AIRFLOW_CONN_USAGE_REDIS"])
    load_settings(told)
    assert "USAGE_START_DATE" in told


@pytest.mark.parametrize("command", [["version"], ["plugins"]])
def test_the_package_in_a_plugins_folder_does_not_act(
    platform: MakePlatform, image: Path, wheel: Path, command: list[str]
) -> None:
    """Airflow executes each file there under its stem, `__main__` among them, with its own words in sys.argv."""
    airflow = platform(image)
    unpack(wheel, airflow.plugins)
    shutil.copy(PLUGIN, airflow.plugins)
    done = airflow.run("-m", "airflow", *command)
    assert done.returncode == 0, done.stderr
    assert "usage: merchant-usage" not in done.stdout + done.stderr
    assert "merchant-usage==" not in done.stdout  # nothing but the page has the name of the package


def test_composer(platform: MakePlatform, image: Path, wheel: Path) -> None:
    """The DAG in dags/; the package and the plugin in plugins/, which every process has on its path."""
    airflow = platform(image)
    unpack(wheel, airflow.plugins)
    shutil.copy(DAG, airflow.dags)
    shutil.copy(PLUGIN, airflow.plugins)
    assert_ours_alone(airflow.look(), airflow.plugins)


def needed() -> set[str]:
    """What the package asks for, and Airflow with it. A platform's own constraints say in which version."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["airflow"]]
    return {Requirement(line).name for line in wanted} - {"apache-airflow", "redis"}


def test_composer_asks_for_what_the_package_needs() -> None:
    assert {Requirement(line).name for line in lines_of(COMPOSER / "requirements.txt")} == needed()


def test_mwaa_asks_for_what_the_wheel_does_not_bring() -> None:
    providers = {line for line in lines_of(MWAA / "requirements.txt") if line.startswith("apache-airflow-")}
    assert providers == {name for name in needed() if name.startswith("apache-airflow-")}


def test_files_name_the_version_that_is_here() -> None:
    assert f"merchant_usage-{__version__}-py3-none-any.whl" in (MWAA / "requirements.txt").read_text(encoding="utf-8")


#: What another team may have beside ours, by names that we use as well.
NEIGHBOURS = {
    "include/__init__.py": "raise RuntimeError('this is theirs')\n",
    "include/sql/upsert_staged.sql": "this is theirs\n",
    "dags/log.py": "raise RuntimeError('this is no DAG')\n",
    "dags/.airflowignore": "log.py\n",
    "dags/settings.py": "OWNER = 'another team'\n",
    "dags/theirs.py": """\
import datetime as dt
import include_of_theirs
from airflow.providers.common.compat.sdk import DAG

with DAG("theirs", schedule=None, start_date=dt.datetime(2026, 1, 1)) as dag:
    pass
""",
    "plugins/include_of_theirs.py": "",
    "plugins/settings.py": "OWNER = 'another team'\n",
    "plugins/usage_of_disks.py": """\
from airflow.providers.common.compat.sdk import AirflowPlugin

class DiskUsage(AirflowPlugin):
    name = "disk_usage"
""",
}  # fmt: skip


@pytest.mark.parametrize("layout", ["wheel", "folders"])
def test_another_team_s_files_lie_beside_ours(
    platform: MakePlatform, image: Path, image_with_wheel: Path, wheel: Path, layout: str
) -> None:
    airflow = platform(image_with_wheel if layout == "wheel" else image)
    for name, text in NEIGHBOURS.items():
        (airflow.home / name).parent.mkdir(parents=True, exist_ok=True)
        (airflow.home / name).write_text(text, encoding="utf-8")
    shutil.copy(DAG, airflow.dags)
    if layout == "folders":
        unpack(wheel, airflow.plugins)
        shutil.copy(PLUGIN, airflow.plugins)
    found = airflow.look(PYTHONPATH=str(airflow.home))
    assert (found["errors"], found["plugin_errors"]) == ({}, {})
    assert found["dags"] == sorted(["theirs", DAG_ID])
    assert found["plugins"] == ["disk_usage", "usage"]
