"""The plugin is registered once, wherever the package lies, and no file of ours acts when Airflow executes it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.models.dagrun import DagRun

from merchant_usage.orchestration.compat import SHOWS_PAGES
from merchant_usage.orchestration.plugin import UsagePlugin
from tests.dags.support import airflow_environment
from tests.support import PROJECT

# As Airflow executes what lies below its plugins folder.
EXECUTE = """
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

path = Path(sys.argv.pop())
spec = spec_from_loader(path.stem, SourceFileLoader(path.stem, str(path)))
sys.modules[spec.name] = module = module_from_spec(spec)
spec.loader.exec_module(module)
print("Airflow goes on")
"""

LOAD = """
import json, sys
from airflow import plugins_manager
from airflow.listeners.listener import get_listener_manager

plugins_manager.ensure_plugins_loaded()
loaded = [name for name in sys.modules if name.endswith((".page", ".page.app", "uvicorn"))]
listeners = get_listener_manager().pm.get_plugins()
of_2 = getattr(plugins_manager, "import_errors", None)
import merchant_usage.sink.merchant_usage
print(json.dumps({
    "plugins": [str(plugin.source) for plugin in (
        plugins_manager.plugins if of_2 is not None else plugins_manager._get_plugins()[0]
    ) if plugin.name == "usage"],
    "errors": of_2 if of_2 is not None else plugins_manager.get_import_errors(),
    "listeners": [listener.__name__ for listener in listeners if "plugin" in getattr(listener, "__name__", "")],
    "package": merchant_usage.__file__,
    "loaded": loaded,
}))
"""

Load = Callable[..., dict[str, Any]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Let Airflow load its plugins, and say which of them are ours.

    The packages that are installed here are linked into a folder, so that ours can be left out.
    """
    folder = tmp_path / "packages"
    folder.mkdir()
    for installed in Path(sysconfig.get_path("purelib")).iterdir():
        (folder / installed.name).symlink_to(installed)

    def load(plugins: Path, *path: Path, installed: bool) -> dict[str, Any]:
        if not installed:
            for ours in (*folder.glob("merchant_usage-*"), *folder.glob("_merchant_usage*")):
                ours.unlink()
        environment = {
            **airflow_environment(tmp_path / "home"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins),
            "PYTHONPATH": ":".join(map(str, (folder, *path))),
        }
        # -S: the environment's own folder of packages stays off the path.
        command = [sys.executable, "-S", "-c", LOAD]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "already registered" not in done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        assert found.pop("loaded") == [], "what serves the page is for who asks for it"
        return found

    return load


LISTENER = "merchant_usage.orchestration.plugin"
IN_PACKAGE = str(PROJECT / "merchant_usage" / "__init__.py")


def test_a_checkout_registers_it_by_the_plugins_folder(load: Load) -> None:
    assert load(PROJECT / "plugins", PROJECT, installed=False) == {
        "plugins": ["$PLUGINS_FOLDER/usage.py"],
        "errors": {},
        "listeners": [LISTENER],
        "package": IN_PACKAGE,
    }


def test_an_installed_package_registers_it_once_even_beside_the_plugins_folder(load: Load) -> None:
    found = load(PROJECT / "plugins", PROJECT, installed=True)
    (source,) = found.pop("plugins")
    assert source.startswith("merchant-usage==")
    assert found == {"errors": {}, "listeners": [LISTENER], "package": IN_PACKAGE}


def test_the_whole_package_may_lie_in_the_plugins_folder(load: Load, tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    for copied in ("plugins", "merchant_usage", "include/sql"):
        target = plugins / copied.removeprefix("plugins")
        shutil.copytree(PROJECT / copied, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    assert load(plugins, installed=False) == {
        "plugins": ["$PLUGINS_FOLDER/usage.py"],
        "errors": {},
        "listeners": [LISTENER],
        "package": str(plugins / "merchant_usage" / "__init__.py"),
    }


@pytest.mark.parametrize("package", ["merchant_usage", "local/demo", "bench"])
def test_no_file_acts_when_airflow_executes_it_by_its_stem(package: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, "version", str(PROJECT / package / "__main__.py")],
        env=airflow_environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("Airflow goes on\n", 0), done.stderr


def test_these_are_all_files_that_a_stem_makes_main() -> None:
    ours = ("merchant_usage", "local", "bench", "dags", "plugins", "tests")
    found = {
        path.parent.relative_to(PROJECT).as_posix() for name in ours for path in PROJECT.glob(f"{name}/**/__main__.py")
    }
    assert found == {"merchant_usage", "local/demo", "bench"}


def test_what_is_patched_is_patched_once() -> None:
    UsagePlugin.on_load()
    patched = DagRun.get_task_instances
    UsagePlugin.on_load()
    assert DagRun.get_task_instances is patched


def test_the_page_is_shown_where_airflow_shows_any() -> None:
    assert len(UsagePlugin.fastapi_apps) == int(SHOWS_PAGES)
    assert [view["destination"] for view in UsagePlugin.external_views] == (["nav", "dag"] if SHOWS_PAGES else [])
