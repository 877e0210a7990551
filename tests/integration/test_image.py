"""What the images install is what the tests run with: the same versions of the same files, and nothing besides."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest
import yaml
from packaging.requirements import Requirement

from tests import docs
from tests.integration.test_wheel import UV, call
from tests.support import PROJECT

#: By Dockerfile: what it installs from.
LOCKS: Final = {"Dockerfile": "requirements-image.lock", "deploy/Dockerfile": "deploy/requirements.lock"}
TESTED: Final = "requirements.lock"


def text_of(name: str) -> str:
    return (PROJECT / name).read_text(encoding="utf-8")


def installations(dockerfile: str) -> Iterator[list[str]]:
    """The words of each pip install."""
    for instruction in re.findall(r"^RUN (.*)", dockerfile.replace("\\\n", " "), re.MULTILINE):
        for command in instruction.split("&&"):
            words = shlex.split(command)
            if words[0] in ("pip", "uv") and "install" in words:
                yield words


def locked(name: str) -> dict[str, dict[str, frozenset[str]]]:
    """The hashes by package and version; there may be one version for old Pythons and another for new ones."""
    pins: dict[str, dict[str, frozenset[str]]] = defaultdict(dict)
    for package, pinned, rest in re.findall(
        r"^([a-z0-9-]+)==(\S+)(.*(?:\n    --hash.*)*)", text_of(name), re.MULTILINE
    ):
        pins[package][pinned] = frozenset(re.findall(r"sha256:\w+", rest))
    return dict(pins)


def is_left_out(name: str) -> bool:
    """Whether a file of the root is kept from the image's build; the last pattern counts."""
    left_out = False
    for line in text_of(".dockerignore").splitlines():
        if fnmatch(name, line.removeprefix("!")):
            left_out = not line.startswith("!")
    return left_out


def test_all_images_of_this_repository_are_looked_at() -> None:
    found = [*PROJECT.glob("Dockerfile"), *PROJECT.glob("*/Dockerfile")]
    assert {path.relative_to(PROJECT).as_posix() for path in found} == set(LOCKS)


@pytest.mark.parametrize(("image", "lock"), LOCKS.items(), ids=LOCKS)
def test_the_image_installs_its_lock_and_nothing_besides(image: str, lock: str) -> None:
    first, *others = installations(text_of(image))
    assert first[-3:] == ["--require-hashes", "--requirement", lock]
    # The project itself, which brings nothing along.
    assert [words for words in others if words[-2:] != ["--no-deps", "."]] == []


def test_the_image_that_compose_builds_installs_the_lock() -> None:
    compose = yaml.safe_load(text_of("docker-compose.yml"))
    build = compose["x-airflow"]["build"]
    assert [service["build"] for service in compose["services"].values() if "build" in service] != []
    assert all(service.get("build", build) == build for service in compose["services"].values())
    (installation,) = installations(build["dockerfile_inline"])
    assert installation[-3:] == ["--require-hashes", "--requirement", "/requirements-image.lock"]


def test_the_image_that_is_taught_installs_the_lock() -> None:
    (block,) = docs.blocks("dockerfile")
    assert "COPY requirements-image.lock " in block.text
    first, *others = installations(block.text)
    assert first[-3:] == ["--require-hashes", "--requirement", "/tmp/requirements-image.lock"]
    assert all("--no-deps" in words for words in others)


def test_the_lock_reaches_the_build() -> None:
    assert not is_left_out(LOCKS["Dockerfile"])
    assert is_left_out("requirements.lock"), "a test's packages are not the image's"


@pytest.mark.parametrize("lock", LOCKS.values())
def test_each_pin_is_that_of_the_tests(lock: str) -> None:
    image, tested = locked(lock), locked(TESTED)
    assert len(image) > 5
    assert all(all(pins.values()) for pins in image.values())
    assert {name: tested.get(name) for name in image} == image


def test_all_that_is_required_is_locked() -> None:
    wanted = [Requirement(line) for line in text_of("requirements.txt").splitlines() if line and line[0] != "#"]
    pins = locked(LOCKS["Dockerfile"])
    assert [one for one in wanted if not all(pinned in one.specifier for pinned in pins[one.name])] == []


def install(lock: Path, python: Path) -> subprocess.CompletedProcess[str]:
    """What would be installed, from uv's cache, which ./run has filled, else from the registry."""
    command = (UV, "pip", "install", "--dry-run", "--python", python, "--require-hashes", "--requirement", lock)
    done = call(*command, "--offline")
    return call(*command) if "cache" in done.stderr and done.returncode else done


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment without packages, of the version that runs the tests."""
    folder = tmp_path_factory.mktemp("image")
    done = call(UV, "venv", "--quiet", "--clear", "--python", sys.executable, folder)
    assert done.returncode == 0, done.stderr
    return folder / "bin" / "python"


@pytest.mark.parametrize("lock", LOCKS.values())
def test_an_empty_environment_gets_what_runs_here(lock: str, empty: Path) -> None:
    done = install(PROJECT / lock, empty)
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^ \+ (\S+)==(\S+)$", done.stderr, re.MULTILINE))
    assert found
    assert {name: version(name) for name in found} == found
    assert [name for name, pinned in found.items() if pinned not in locked(lock)[name]] == []


@pytest.mark.parametrize("lock", LOCKS.values())
def test_a_lock_that_lacks_a_package_installs_nothing(lock: str, empty: Path, tmp_path: Path) -> None:
    """Else the image would get whatever is newest."""
    shortened = tmp_path / "short.lock"
    whole = text_of(lock)
    without = re.sub(r"^markdown-it-py==.*(?:\n    .*)*\n", "", whole, flags=re.MULTILINE)
    assert without != whole
    shortened.write_text(without, encoding="utf-8")
    done = install(shortened, empty)
    assert done.returncode != 0
    assert "markdown-it-py" in done.stderr
