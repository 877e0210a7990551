"""`merchant-usage page`: the usage page on this machine, read only, without Airflow."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import httpx
import pytest

from merchant_usage.connections import PAGE_POSTGRES_URL, POSTGRES_URL
from tests.support import PROJECT, YESTERDAY, Usage, key

NOBODY: Final = "postgresql://usage:a-password@127.0.0.1:1/billing"
SECONDS: Final = 60


class Served:
    """The command, and what it answers."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.url = process.stdout.readline().strip()

    def ask(self, address: str = "", method: str = "GET", **headers: str) -> httpx.Response:
        return httpx.request(method, f"{self.url}/{address}", headers=headers, trust_env=False, timeout=SECONDS)

    def end(self, by: signal.Signals) -> tuple[int, str]:
        """End it. Returns its exit code, and what it said on stderr."""
        self.process.send_signal(by)
        _, said = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, said


Serve = Callable[..., Served]


@contextmanager
def started(*arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("USAGE_")}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "merchant_usage", "page", *arguments],
        cwd=PROJECT,
        env={**kept, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def serve(database_url: str) -> Iterator[Serve]:
    """Start the command; by the test's database, unless told otherwise."""
    with ExitStack() as stack:

        def serve(*arguments: str, **environ: str) -> Served:
            return Served(stack.enter_context(started(*arguments, **(environ or {POSTGRES_URL: database_url}))))

        yield serve


def refused(*arguments: str, **environ: str) -> str:
    """What it says where it cannot even begin."""
    with started(*arguments, **environ) as process:
        told, said = process.communicate(timeout=SECONDS)
    assert (process.returncode, told) == (2, "")
    return said


def test_it_shows_how_dates_stand_and_prints_its_address(serve: Serve, usage: Usage) -> None:
    usage.write({key("acme"): 5})
    usage.aggregate()
    served = serve()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", served.url)
    answer = served.ask()
    assert answer.status_code == 200
    assert str(YESTERDAY) in answer.text
    assert served.ask("static/usage.css").status_code == 200


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_it_is_told_to(serve: Serve, by: signal.Signals) -> None:
    served = serve()
    assert served.ask().status_code == 200
    code, said = served.end(by)
    assert code == 0
    assert said.endswith("Ended.\n")
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_a_name_that_somebody_else_made_mean_this_machine_is_refused(serve: Serve, host: str) -> None:
    served = serve()
    answer = served.ask(host=host)
    assert answer.status_code == 400
    assert "date" not in answer.text
    assert served.ask(host=f"localhost:{served.url.rpartition(':')[2]}").status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_it_can_change_nothing(serve: Serve, method: str) -> None:
    served = serve()
    assert served.ask("", method).status_code == 405
    assert served.ask("do/decide", method).status_code in {404, 405}
    assert "data-do" not in served.ask().text


def test_a_postgresql_that_is_down_is_told_by_the_page(serve: Serve) -> None:
    served = serve(**{POSTGRES_URL: NOBODY})
    answer = served.ask()
    assert answer.status_code == 503
    assert PAGE_POSTGRES_URL in answer.text
    assert "a-password" not in answer.text


def test_it_reads_by_an_address_of_its_own_where_there_is_one(serve: Serve, database_url: str) -> None:
    served = serve(**{POSTGRES_URL: NOBODY, PAGE_POSTGRES_URL: database_url})
    assert served.ask().status_code == 200


def test_tables_that_are_not_there_are_told_by_the_page(serve: Serve, empty_database_url: str) -> None:
    served = serve(**{POSTGRES_URL: empty_database_url})
    answer = served.ask()
    assert answer.status_code == 503
    assert "merchant-usage migrate" in answer.text


def test_without_an_address_it_says_which_is_missing() -> None:
    assert refused().startswith("error: USAGE_POSTGRES_URL is not set;")


def test_an_address_that_is_none_is_named(database_url: str) -> None:
    said = refused(**{POSTGRES_URL: database_url, PAGE_POSTGRES_URL: "mysql://x"})
    assert said.startswith(f"error: {PAGE_POSTGRES_URL} is not a URL")


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--port", str(port), **{POSTGRES_URL: NOBODY})
    assert said == f"error: --port={port} is taken: give another one, or none for any that is free.\n"


@pytest.mark.parametrize("port", ["-1", "65536", "x", "1.5"])
def test_a_port_is_a_number(port: str) -> None:
    assert f"'{port}' is no port" in refused(f"--port={port}", **{POSTGRES_URL: NOBODY})


@pytest.mark.parametrize("package", ["fastapi", "jinja2", "uvicorn"])
def test_a_package_that_is_missing_is_named_with_what_brings_it(package: str) -> None:
    hide = (
        "import importlib.util as u, sys; find = u.find_spec; "
        f"u.find_spec = lambda name, *_: None if name == {package!r} else find(name); "
        "from merchant_usage.cli.main import main; sys.exit(main(['page']))"
    )
    done = subprocess.run([sys.executable, "-c", hide], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: The usage page needs {package}: pip install 'merchant-usage[page]'\n"
