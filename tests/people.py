"""A real Airflow that wants a login, and the people who may log in there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Final

import httpx

from local.airflow import LocalAirflow
from local.airflow_api import AirflowApi

#: The roles of people, by their names.
PEOPLE: Final = {"ada": "admin", "ed": "user", "vic": "viewer"}
PASSWORD: Final = "a-password"


def log_in(url: str, person: str) -> dict[str, str]:
    """The header that says who it is."""
    known = {"username": person, "password": PASSWORD}
    given = httpx.post(f"{url}/auth/token", json=known, trust_env=False, timeout=60)
    given.raise_for_status()
    return {"Authorization": f"Bearer {given.json()['access_token']}"}


class _AsAda(httpx.Auth):
    """Logs in when it is first asked for."""

    def __init__(self, url: str) -> None:
        self._url, self._headers = url, dict[str, str]()

    def auth_flow(self, request: httpx.Request) -> Any:
        self._headers = self._headers or log_in(self._url, "ada")
        request.headers.update(self._headers)
        yield request


class ApiAsAda(AirflowApi):
    """Airflow's API."""

    #: What stands before every address of this Airflow.
    PREFIX: ClassVar = ""

    def __init__(self, url: str) -> None:
        super().__init__(f"{url}{self.PREFIX}")
        self._http.auth = _AsAda(f"{url}{self.PREFIX}")


class AirflowWithPeople(LocalAirflow):
    """It wants a login."""

    API = ApiAsAda


def with_people(folder: Path) -> dict[str, str]:
    """What an Airflow has to be told for these people to log in."""
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps(dict.fromkeys(PEOPLE, PASSWORD)), encoding="utf-8")
    return {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(":".join(each) for each in PEOPLE.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
    }
