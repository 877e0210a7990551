"""The whole repository as a DAGs folder, as git-sync puts it there: Airflow finds our DAG in it, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from merchant_usage.settings import DAG_ID, DECISIONS_DAG_ID
from tests.dags.versions import DAGS
from tests.support import PROJECT

LOOK = """\
import json, sys
from tests.dags.versions import dag_bag
import merchant_usage
from merchant_usage.sink.queries import SQL_FOLDER
bag = dag_bag(sys.argv[1])
places = [merchant_usage.__file__, str(SQL_FOLDER)]
found = {"dags": sorted(bag.dags), "errors": bag.import_errors, "places": places}
print("found", json.dumps(found))
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all that git knows, or would know with the next commit."""
    folder = tmp_path_factory.mktemp("repository")
    list_files = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    listed = subprocess.run(list_files, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((PROJECT / name).read_bytes())
    return folder


def found_in(folder: Path, *python_path: Path) -> dict[str, Any]:
    """What Airflow finds in a DAGs folder."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, folder],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, python_path))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (found,) = [line.removeprefix("found ") for line in done.stdout.splitlines() if line.startswith("found ")]
    answer: dict[str, Any] = json.loads(found)
    return answer


def assert_ours_alone(found: dict[str, Any], repository: Path) -> None:
    assert found["errors"] == {}
    assert found["dags"] == sorted(DAGS)
    assert all(Path(place).is_relative_to(repository) for place in found["places"])


def test_the_whole_repository_may_be_the_dags_folder(repository: Path) -> None:
    assert_ours_alone(found_in(repository, repository), repository)


def test_the_file_that_the_command_writes_is_the_dag(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "merchant_usage", "dag-file", tmp_path], cwd=PROJECT, check=True)
    found = found_in(tmp_path, PROJECT)
    assert found["errors"] == {}
    assert found["dags"] == [DAG_ID]


def test_the_file_that_asks_people_is_written_on_request(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "merchant_usage", "dag-file", "--decisions", str(tmp_path)]
    subprocess.run(command, cwd=PROJECT, check=True)
    found = found_in(tmp_path, PROJECT)
    assert found["errors"] == {}
    assert found["dags"] == [DECISIONS_DAG_ID][: len(DAGS) - 1], "none on 2.11, and no error"


def test_another_team_s_include_may_come_first(repository: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "include"
    (theirs / "sql").mkdir(parents=True)
    (theirs / "__init__.py").write_text("raise RuntimeError('this is theirs')\n", encoding="utf-8")
    (theirs / "sql" / "upsert_staged.sql").write_text("this is theirs\n", encoding="utf-8")
    assert_ours_alone(found_in(repository, tmp_path, repository), repository)
