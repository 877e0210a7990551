"""Prints the seconds that Airflow takes to parse the DAG folder in the arguments. Started by `bench.airflow_run`.

A DAG file that is empty is parsed first: what Airflow imports only once is not the file's to pay.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from airflow.dag_processing.dagbag import DagBag

EMPTY = """from airflow.providers.common.compat.sdk import dag


@dag(schedule=None)
def {name}():
    pass


{name}()
"""


def main() -> None:
    """Parse an empty DAG, then the folder of the arguments; without arguments, another empty DAG."""
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        (Path(first) / "first.py").write_text(EMPTY.format(name="first"))
        (Path(second) / "second.py").write_text(EMPTY.format(name="second"))
        _parse(Path(first))
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(second)
        started = time.perf_counter()
        _parse(folder)
        print(time.perf_counter() - started)


def _parse(folder: Path) -> None:
    bag = DagBag(folder, bundle_path=folder)
    if bag.import_errors or not bag.dags:
        raise SystemExit(f"No DAG could be loaded from {folder}: {bag.import_errors}")


if __name__ == "__main__":
    main()
