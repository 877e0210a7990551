"""`python -m include.usage`, as a cron job or a container runs it: a process of its own, its exit code, its words."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from include.usage import clock
from local.servers import Valkey, free_port
from tests.support import PROJECT, Usage, key, raw

DAY = clock.now().date() - dt.timedelta(days=5)  # over and settled, whenever the test runs
SECRET = "s3cret-Pa55word"
COUNTER = key("acme", DAY)

RunCommand = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(valkey: Valkey, database_url: str) -> RunCommand:
    """Run a command against the test's own servers; further variables go over ours."""

    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        urls = {"USAGE_REDIS_URL": valkey.url, "USAGE_POSTGRES_URL": database_url}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("USAGE_")}
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "include.usage", *arguments],
            cwd=PROJECT,
            env={**inherited, **urls, **environ},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def assert_clean(done: subprocess.CompletedProcess[str], code: int) -> None:
    """The exit code, and for an error one line that begins with the word; never a traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, done.stderr


def test_from_nothing_to_verified(usage: Usage, run: RunCommand, empty_database_url: str) -> None:
    usage.write({COUNTER: 5, key("émoji 🎉 %*", DAY): 6})
    elsewhere = {"USAGE_POSTGRES_URL": empty_database_url}
    done = run("migrate", **elsewhere)
    assert_clean(done, 0)
    assert done.stdout.splitlines()[0] == "applied 001_merchant_usage"
    done = run("aggregate", "--date", str(DAY), **elsewhere)
    assert_clean(done, 0)
    assert "Aggregated acme: queries = 5" in done.stderr
    assert "Aggregated émoji 🎉 %*: queries = 6" in done.stderr
    done = run("status", str(DAY), **elsewhere)
    assert_clean(done, 0)
    assert "verified" in done.stdout
    assert "11 |         11" in done.stdout
    assert usage.rows() == {}


def test_status_of_a_date_that_nobody_aggregated(run: RunCommand) -> None:
    done = run("status", "2020-01-01")
    assert_clean(done, 0)
    assert done.stdout == "2020-01-01 has not been aggregated by any run.\n"


def test_range_and_merchants(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5, key("a:b", DAY): 6, key("other", DAY): 7})
    arguments = ["--from", "2026-01-01", "--to", str(DAY), "--merchant", "acme", "--merchant", "a:b"]
    assert_clean(run("aggregate", *arguments), 0)
    assert usage.rows() == {COUNTER: 5, key("a:b", DAY): 6}


def test_refused_merchant_is_exit_code_1(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5, key("bad", DAY): 1})
    usage.conn.execute("ALTER TABLE merchant_usage ADD CHECK (merchant_id <> 'bad')")
    done = run("aggregate", "--date", str(DAY))
    assert_clean(done, 1)
    assert "1 merchant(s) could not be stored" in done.stderr
    assert "bad: PostgreSQL refused a statement (23514)" in done.stderr
    assert usage.rows() == {COUNTER: 5}


def test_regression_is_exit_code_1_until_it_is_decided(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5})
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    usage.write({COUNTER: 3})
    done = run("aggregate", "--date", str(DAY))
    assert done.returncode == 1
    assert "Redis has 3, PostgreSQL has 5" in done.stderr
    done = run("dead-letters")
    assert_clean(done, 0)
    assert done.stdout.startswith("Open: 1 counter_regressed\n")
    done = run("resolve", raw(COUNTER).decode(), "--accept")
    assert_clean(done, 0)
    assert done.stdout == f"accept: {COUNTER}: stored 5 -> 3\n"
    assert usage.rows() == {COUNTER: 3}
    assert_clean(run("aggregate", "--date", str(DAY)), 0)


@pytest.mark.parametrize(
    ("arguments", "environ", "told"),
    [
        pytest.param(["aggregate", "--date", "yesterday"], {}, "'yesterday' is not a date", id="no date"),
        pytest.param(["aggregate", "--date", "2999-01-01"], {}, "is in the future", id="a day to come"),
        pytest.param(
            ["aggregate", "--from", "2026-11-02", "--to", "2026-11-01"], {}, "lies before", id="range backwards"
        ),
        pytest.param(
            ["aggregate", "--date", "2026-11-01", "--to", "2026-11-02"], {}, "give one of the two", id="date and range"
        ),
        pytest.param(["status", "never"], {}, "'never' is not a date", id="status of no date"),
        pytest.param(
            ["aggregate"], {"USAGE_SETTLE_HOURS": "two"}, "USAGE_SETTLE_HOURS='two' (takes hours", id="bad setting"
        ),
        pytest.param(["migrate"], {"USAGE_POSTGRES_URL": ""}, "USAGE_POSTGRES_URL is not set", id="no URL"),
        pytest.param(
            ["migrate"],
            {"USAGE_POSTGRES_URL": f"postgresql://u:x@{SECRET}@localhost/db"},
            "USAGE_POSTGRES_URL is not a URL",
            id="bad PostgreSQL URL",
        ),
        pytest.param(
            ["aggregate"],
            {"USAGE_REDIS_URL": f"redis://:{SECRET}@localhost:port/0"},
            "USAGE_REDIS_URL is not a URL",
            id="bad Redis URL",
        ),
    ],
)
def test_bad_arguments_and_settings_are_exit_code_2(
    run: RunCommand, arguments: list[str], environ: dict[str, str], told: str
) -> None:
    done = run(*arguments, **environ)
    assert_clean(done, 2)
    assert told in done.stderr
    assert SECRET not in done.stderr + done.stdout


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["resolve", "key"], ["aggregate", "--nonsense"]])
def test_unknown_arguments_are_exit_code_2(run: RunCommand, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m include.usage")


@pytest.mark.parametrize("command", [["aggregate"], ["status"], ["dead-letters"]], ids=" ".join)
def test_missing_schema_is_exit_code_2_and_names_the_command(
    run: RunCommand, empty_database_url: str, command: list[str]
) -> None:
    done = run(*command, USAGE_POSTGRES_URL=empty_database_url)
    assert_clean(done, 2)
    assert done.stderr.strip().endswith("To create what is missing: python -m include.usage migrate")


@pytest.mark.parametrize(
    ("variable", "url", "told"),
    [
        pytest.param(
            "USAGE_REDIS_URL", "redis://:{secret}@127.0.0.1:{free}/0", "Redis does not answer", id="Redis down"
        ),
        pytest.param(
            "USAGE_REDIS_URL", "redis://:{secret}@127.0.0.1:{redis}/0", "Redis refuses the login", id="Redis refuses"
        ),
        pytest.param(
            "USAGE_POSTGRES_URL",
            "postgresql://usage:{secret}@127.0.0.1:{free}/usage",
            "PostgreSQL does not answer",
            id="PostgreSQL down",
        ),
    ],
)
def test_servers_that_do_not_serve_are_exit_code_3(
    run: RunCommand, valkey: Valkey, variable: str, url: str, told: str
) -> None:
    done = run("aggregate", **{variable: url.format(secret=SECRET, free=free_port(), redis=valkey.port)})
    assert_clean(done, 3)
    assert f"error: {told}" in done.stderr
    assert SECRET not in done.stderr + done.stdout


def test_help_tells_the_exit_codes(run: RunCommand) -> None:
    done = run("--help")
    assert_clean(done, 0)
    assert "exit codes:" in done.stdout


def test_no_airflow_is_imported() -> None:
    look = "import sys, include.usage.__main__; print(sorted(m for m in sys.modules if m.split('.')[0] == 'airflow'))"
    done = subprocess.run([sys.executable, "-c", look], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
