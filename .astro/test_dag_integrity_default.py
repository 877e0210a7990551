"""Does every DAG file load? `astro dev parse` runs this; so do our own tests."""

import os
import socket
from pathlib import Path
from typing import NoReturn

import pytest

PROJECT = Path(__file__).resolve().parent.parent
DAG_FILES = sorted((PROJECT / "dags").rglob("*.py"))
EXCEPTIONS = {
    line
    for line in (PROJECT / ".astro" / "dag_integrity_exceptions.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
}


def test_there_are_dag_files() -> None:
    assert DAG_FILES


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.name)
def test_loads_without_the_network(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", os.environ.get("AIRFLOW_HOME", str(tmp_path)))
    from airflow.dag_processing.dagbag import DagBag

    def refuse(*address: object) -> NoReturn:
        raise AssertionError(f"{path.name} connects to {address[-1]} when it is parsed")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    errors = DagBag(path, bundle_path=path.parent).import_errors
    assert not errors or str(path.relative_to(PROJECT)) in EXCEPTIONS, errors
