"""Prints how many milliseconds Airflow takes to parse a DAG file. Started by `bench.airflow_run`.

A DAG that is empty is parsed first: what Airflow imports once, for whatever DAG, is not the file's to pay.
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from airflow.dag_processing.dagbag import DagBag

EMPTY = """
from airflow.providers.common.compat.sdk import dag

@dag(schedule=None)
def {name}():
    pass

{name}()
"""
ONE_TASK = """
from airflow.providers.common.compat.sdk import dag, task

@task
def nothing():
    pass

@dag(schedule=None)
def {name}():
    nothing()

{name}()
"""
DAGS = {"empty": EMPTY, "one task": ONE_TASK}


def main() -> None:
    """Parse an empty DAG, then what the argument says: a file, or one of `DAGS`."""
    asked = sys.argv[1]
    source = DAGS[asked].format(name="second") if asked in DAGS else Path(asked).read_text()
    _parse("first", EMPTY.format(name="first"))
    # As the DAG processor does before it forks to parse. Else a collection of all that Airflow imported, which takes
    # 90 ms, falls into a parsing or not, by chance.
    gc.collect()
    gc.freeze()
    print(_parse("second", source))


def _parse(name: str, source: str) -> float:
    with TemporaryDirectory() as folder:
        (Path(folder) / f"{name}.py").write_text(source)
        started = time.perf_counter()
        bag = DagBag(folder, bundle_path=Path(folder))
        milliseconds = (time.perf_counter() - started) * 1000
    if bag.import_errors or not bag.dags:
        raise SystemExit(f"{name}: no DAG was loaded: {bag.import_errors}")
    return milliseconds


if __name__ == "__main__":
    main()
