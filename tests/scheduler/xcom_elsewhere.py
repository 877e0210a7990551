"""An XCom backend of a site's own: what tasks push lies in files, and Airflow's database has their addresses."""

from __future__ import annotations

import os
import pickle
import uuid
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

#: The variable that names the folder.
FOLDER: Final = "TESTS_XCOM_FOLDER"
ADDRESS: Final = "elsewhere://"

BaseXCom: Any = import_module("airflow.sdk.bases.xcom" if AIRFLOW_V_3_0_PLUS else "airflow.models.xcom").BaseXCom


def kept_elsewhere(folder: Path) -> dict[str, str]:
    """The environment of an Airflow that keeps them in a folder of its own below this one."""
    kept = folder / "xcom"
    kept.mkdir()
    return {FOLDER: str(kept), "AIRFLOW__CORE__XCOM_BACKEND": "tests.scheduler.xcom_elsewhere.XComElsewhere"}


class XComElsewhere(BaseXCom):  # type: ignore[misc]  # whichever there is
    """Keeps each value in a file."""

    @staticmethod
    def serialize_value(
        value: Any,
        *,
        key: str | None = None,
        task_id: str | None = None,
        dag_id: str | None = None,
        run_id: str | None = None,
        map_index: int | None = None,
    ) -> Any:
        """Write the file; its address is what Airflow keeps."""
        del key, task_id, dag_id, run_id, map_index
        name = uuid.uuid4().hex
        (Path(os.environ[FOLDER]) / name).write_bytes(pickle.dumps(value))
        return BaseXCom.serialize_value(f"{ADDRESS}{name}")

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        """Read the file. What has no address was never here."""
        address = str(BaseXCom.deserialize_value(result))
        assert address.startswith(ADDRESS), address
        kept = (Path(os.environ[FOLDER]) / address.removeprefix(ADDRESS)).read_bytes()
        return pickle.loads(kept)  # noqa: S301 - nobody else writes there
