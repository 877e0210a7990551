"""Airflow as platforms have it: its packages without ours, a home with folders of its own, and nothing of this tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

from tests.dags.support import airflow_environment
from tests.integration.test_wheel import UV, call
from tests.support import PROJECT

#: What an installed package of ours leaves in site-packages.
OURS: Final = ("merchant_usage", "_merchant_usage")

LOOK: Final = """\
import json, os, sys
from pathlib import Path
from importlib import import_module
from inspect import signature
from airflow import plugins_manager, settings
from airflow.configuration import conf

settings.prepare_syspath_for_config_and_plugins() if hasattr(settings, "prepare_syspath_for_config_and_plugins") else 0
plugins_manager.ensure_plugins_loaded()
of_2 = getattr(plugins_manager, "import_errors", None)
plugins = plugins_manager.plugins if of_2 is not None else plugins_manager._get_plugins()[0]
plugin_errors = of_2 if of_2 is not None else plugins_manager.get_import_errors()
# What a process that only loads plugins has, the scheduler for one, is looked at before DAGs bring their folder.
plugins = sorted(str(plugin.name) for plugin in plugins)
try:
    module = import_module("airflow.dag_processing.dagbag")
except ImportError:
    module = import_module("airflow.models.dagbag")
folder = conf.get("core", "dags_folder")
if hasattr(settings, "prepare_syspath_for_dags_folder"):
    settings.prepare_syspath_for_dags_folder()
choices = {"include_examples": False, "bundle_path": Path(folder)}
taken = signature(module.DagBag).parameters
bag = module.DagBag(folder, **{name: value for name, value in choices.items() if name in taken})
places = []
if "merchant_usage" in sys.modules:
    import merchant_usage
    from merchant_usage.sink.queries import SQL_FOLDER
    places = [merchant_usage.__file__, str(SQL_FOLDER)]
print("found", json.dumps({
    "dags": sorted(bag.dags), "errors": bag.import_errors, "places": places,
    "plugins": plugins, "plugin_errors": plugin_errors,
}))
"""


def make_image(folder: Path) -> Path:
    """An environment of Airflow and what is installed beside it, without our package. Returns its Python."""
    done = call(UV, "venv", "--quiet", "--clear", "--python", sys.executable, folder)
    assert done.returncode == 0, done.stderr
    (site_packages,) = folder.glob("lib/python*/site-packages")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        target = site_packages / path.name
        if path.name.startswith((*OURS, "__editable__")) or target.exists():
            continue
        if path.suffix == ".dist-info":
            # uv passes over links. Without RECORD it refuses to uninstall, which would reach what is linked to.
            shutil.copytree(path, target, ignore=shutil.ignore_patterns("RECORD"))
        else:
            target.symlink_to(path)
    return folder / "bin" / "python"


@dataclass(frozen=True)
class Platform:
    """An Airflow's home, and the Python that runs it."""

    python: Path
    home: Path

    @property
    def dags(self) -> Path:
        """The DAGs folder."""
        return self.home / "dags"

    @property
    def plugins(self) -> Path:
        """The plugins folder."""
        return self.home / "plugins"

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are told, and nothing of this repository."""
        environ = {
            **airflow_environment(self.home),
            "HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.plugins),
        }
        return {name: value for name, value in environ.items() if name != "PYTHONPATH"}

    def run(self, *arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run its Python."""
        return subprocess.run(
            [self.python, *arguments],
            cwd=self.home,
            env={**self.environment, **environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def look(self, **environ: str) -> dict[str, Any]:
        """What Airflow finds there."""
        done = self.run("-c", LOOK, **environ)
        assert done.returncode == 0, done.stderr
        (found,) = [line.removeprefix("found ") for line in done.stdout.splitlines() if line.startswith("found ")]
        answer: dict[str, Any] = json.loads(found)
        return answer

    def install(self, *arguments: str | Path) -> None:
        """Install into its environment, without a registry."""
        done = call(UV, "pip", "install", "--quiet", "--offline", "--python", self.python, *arguments)
        assert done.returncode == 0, done.stderr


def build_wheel(folder: Path, source: Path = PROJECT) -> Path:
    """The wheel of a tree."""
    build: Sequence[str | Path] = (UV, "build", "--quiet", "--offline", "--no-build-isolation", "--wheel")
    done = call(*build, "--python", sys.executable, "--out-dir", folder, source)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def unpack(wheel: Path, folder: Path) -> None:
    """Put the package alone into a folder, as people copy it."""
    with ZipFile(wheel) as files:
        files.extractall(folder, [name for name in files.namelist() if name.startswith("merchant_usage/")])


def exported_by(script: Path) -> dict[str, str]:
    """The variables that a shell script sets."""
    done = subprocess.run(
        ["sh", "-c", '. "$1" && env -0', "sh", script],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
