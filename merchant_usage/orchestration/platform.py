"""Whether this Airflow, with what is installed beside it, can run the DAG: asked when the DAG is parsed.

Without it the first to speak would be Python, with a module that is not found, or a task, after three retries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Final

from packaging.version import Version

from merchant_usage.errors import SettingsError

#: What has to be there, and from which version on. pyproject.toml says the same to whoever installs the package.
NEEDED: Final[Mapping[str, str]] = {
    "apache-airflow": "2.11.2",
    "apache-airflow-providers-common-compat": "1.14",
    "apache-airflow-providers-postgres": "6.6",
    "apache-airflow-providers-redis": "4.4",
    "hiredis": "3.2",
    "psycopg": "3.2.9",
    "redis": "6.4",
}
#: What may be missing as long as nobody is told by it.
OPTIONAL: Final[Mapping[str, str]] = {
    "apache-airflow-providers-pagerduty": "5.2",
    "apache-airflow-providers-slack": "9.8",
}
#: Between two versions that work, one that does not.
LEFT_OUT: Final = (3, 0)

FindVersion = Callable[[str], str]


class PlatformTooOld(SettingsError):
    """What is installed cannot run the DAG."""


def require_platform(find: FindVersion = metadata.version) -> None:
    """Look at the versions that are installed.

    Args:
        find: gives the version of a distribution, as `importlib.metadata.version` does.

    Raises:
        PlatformTooOld: one of them is missing or too old; it names all of these, and what is needed.
    """
    wrong = list(_wrong(find))
    if wrong:
        raise PlatformTooOld(f"The usage aggregation cannot run on this Airflow: {'; '.join(wrong)}.")


def _wrong(find: FindVersion) -> Iterator[str]:
    for name, floor in {**NEEDED, **OPTIONAL}.items():
        try:
            installed = Version(find(name))
        except metadata.PackageNotFoundError:
            if name in NEEDED:
                yield f"{name} is not installed, and {floor} or newer is needed"
            continue
        is_airflow = name == "apache-airflow"
        if installed < Version(floor) or (is_airflow and installed.release[:2] == LEFT_OUT):
            but = ", but not 3.0" if is_airflow else ""
            yield f"{name} {installed} is installed, and {floor} or newer is needed{but}"
