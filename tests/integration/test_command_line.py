"""`merchant-usage`, as a cron job or a container runs it: a process of its own, its exit code, its words."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection, sql

from local.servers import Valkey, free_port
from merchant_usage import clock
from merchant_usage.errors import PROGRAM
from merchant_usage.model.run import Run
from merchant_usage.sink import ledger, schema
from tests.command_server import CommandServer
from tests.faults.leftovers import wait_until
from tests.faults.proxy import LosingProxy
from tests.hostile import HOSTILE
from tests.support import PROJECT, Connect, Usage, key, raw, settings

ONE_DAY = dt.timedelta(days=1)
TODAY = clock.now().date()
DAY = TODAY - 5 * ONE_DAY  # over and settled, whenever the test runs
SECRET = "s3cret-Pa55word"
COUNTER = key("acme", DAY)


@dataclass(frozen=True)
class RunCommand:
    """Runs a command against the test's own servers; further variables go over ours."""

    urls: dict[str, str]
    server: CommandServer
    folder: Path
    stdout: int = subprocess.PIPE
    stderr: int = subprocess.PIPE

    def __call__(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end. What concerns the start of a process, or where it writes, gets a process that is new."""
        if {self.stdout, self.stderr} == {subprocess.PIPE} and not any(name.startswith("PYTHON") for name in environ):
            done = self.server.run(arguments, {**self.urls, **environ}, self.folder)
            return subprocess.CompletedProcess(["merchant-usage", *arguments], *done)
        with self.start(*arguments, **environ) as process:
            try:
                out, err = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("USAGE_")}
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "merchant_usage", *arguments],
            cwd=PROJECT,
            env={**inherited, **self.urls, **environ},
            stdout=self.stdout,
            stderr=self.stderr,
            text=True,
        )


@pytest.fixture
def run(valkey: Valkey, database_url: str, command_server: CommandServer, tmp_path: Path) -> RunCommand:
    urls = {"USAGE_REDIS_URL": valkey.url, "USAGE_POSTGRES_URL": database_url}
    return RunCommand(urls, command_server, tmp_path)


@pytest.fixture(scope="module")
def command_server() -> Iterator[CommandServer]:
    with CommandServer() as server:
        yield server


def document(done: subprocess.CompletedProcess[str]) -> Any:
    """What is on stdout, if that is one JSON document and nothing else."""
    return json.loads(done.stdout)


def days(first: dt.date, last: dt.date) -> list[dt.date]:
    return [first + n * ONE_DAY for n in range((last - first).days + 1)]


def read_all(terminal: int) -> str:
    """All that was written to a terminal whose other end is closed."""
    seen = b""
    with suppress(OSError):  # how Linux tells the end
        while part := os.read(terminal, 65536):
            seen += part
    os.close(terminal)
    return seen.decode()


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
    assert done.stdout == (
        "2020-01-01 has not been aggregated by any run. To aggregate it: merchant-usage aggregate --date 2020-01-01\n"
    )


def test_status_without_a_date_shows_each_date_that_redis_may_still_have(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5})
    for _ in range(2):
        assert_clean(run("aggregate", "--date", str(DAY)), 0)
    shown = document(run("status", "--json"))
    assert [row["usage_date"] for row in shown["dates"]] == [str(DAY)]
    assert shown["history"] is None
    assert shown["never_aggregated"] == [str(day) for day in days(TODAY - 7 * ONE_DAY, TODAY) if day != DAY]
    done = run("status")
    assert_clean(done, 0)
    assert "The newest run of each date" in done.stdout
    assert f"To aggregate them: merchant-usage aggregate --from {TODAY - 7 * ONE_DAY}" in done.stdout


def test_status_of_one_date_has_all_its_runs_newest_first(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5, key("b", DAY): 6})
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    assert_clean(run("aggregate", "--date", str(DAY), "--merchant", "b"), 0)
    shown = document(run("status", str(DAY), "--json"))
    assert [row["merchant_ids"] for row in shown["history"]] == [["b"], None]
    assert [row["redis_total"] for row in shown["history"]] == [6, 11]
    # The run of one merchant is the newest; that the date was verified for all is not forgotten over it.
    assert [row["merchant_ids"] for row in shown["dates"]] == [["b"], None]
    assert {row["verified_at"] for row in shown["dates"]} == {shown["history"][1]["finished_at"]}
    assert shown["aggregated_in_part"] == []
    assert shown["newest_verified"]["run_id"] == shown["history"][1]["run_id"]
    done = run("status", str(DAY))
    assert f"Runs of {DAY}, newest first" in done.stdout
    assert "only 1" in done.stdout


def test_status_needs_no_redis_unless_it_is_to_look(run: RunCommand) -> None:
    nowhere = {"USAGE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    assert_clean(run("status", **nowhere), 0)
    assert_clean(run("status", "--live", **nowhere), 3)


def test_status_live_sees_what_changed_since_the_run(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5})
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    before = usage.everything()
    done = run("status", str(DAY), "--live")
    assert_clean(done, 0)
    assert "both read just now" in done.stdout
    usage.write({COUNTER: 6})
    assert_clean(run("status", str(DAY)), 0)
    done = run("status", str(DAY), "--live", "--json")
    assert_clean(done, 1)
    shown = document(done)
    assert shown["dates"][0]["verdict"] == "verified"
    assert shown["live"]["dates"][0]["verdict"] == "mismatch"
    assert usage.everything() == before | {"redis": usage.everything()["redis"]}


def test_status_of_a_date_whose_newest_run_failed_is_exit_code_1(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5})
    nowhere = {"USAGE_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    assert_clean(run("aggregate", "--date", str(DAY), **nowhere), 3)
    done = run("status", str(DAY))
    assert_clean(done, 1)
    assert "| failed " in done.stdout
    assert f"{DAY}: Redis does not answer" in done.stdout
    assert f"error: The newest run of {DAY} failed.\n" in done.stderr
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    assert_clean(run("status", str(DAY)), 0)


@pytest.mark.parametrize("verdict", ["mismatch", None])
def test_a_run_of_one_merchant_does_not_stand_for_its_date(usage: Usage, run: RunCommand, verdict: str | None) -> None:
    usage.write({COUNTER: 5, key("b", DAY): 6})
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    usage.conn.execute("UPDATE usage_run SET verdict = %s, error = 'Something broke.'", [verdict])
    assert_clean(run("aggregate", "--date", str(DAY), "--merchant", "b"), 0)
    for more in ([], [str(DAY)]):
        done = run("status", *more)
        assert_clean(done, 1)
        ended = "ended in a mismatch" if verdict else "failed"
        assert f"error: The newest run over all merchants of {DAY} {ended}." in done.stderr
        assert f"{DAY}: Something broke." in done.stdout
        assert "only 1" in done.stdout
    # One that went badly is not hidden by an older one over all, either.
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    assert_clean(run("status"), 0)
    assert_clean(run("aggregate", "--date", str(DAY), "--merchant", "b"), 0)
    usage.conn.execute("UPDATE usage_run SET verdict = 'mismatch' WHERE merchant_ids IS NOT NULL")
    done = run("status")
    assert_clean(done, 1)
    assert done.stderr == (
        f"error: The newest run of {DAY} ended in a mismatch. To see why: {PROGRAM} verify --date {DAY}\n"
    )


def test_status_says_why_the_totals_of_a_verified_date_differ(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5, key("b", DAY): 6})
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    assert "totals differ" not in run("status", str(DAY)).stdout
    usage.conn.execute("UPDATE usage_run SET redis_total = 5")
    for asked in ([], [str(DAY)]):
        told = run("status", *asked).stdout
        assert f"{DAY}: verified, and the totals differ by keys that expired, or by what a person decided." in told
        assert f"{PROGRAM} verify --date {DAY}\n" in told
    usage.conn.execute("UPDATE usage_run SET redis_total = 15, settled = false")
    assert f"{DAY}: Redis counted on while a run verified it" in run("status", str(DAY)).stdout


def test_verify_says_what_waits_where_all_numbers_agree(usage: Usage, run: RunCommand) -> None:
    for value in (5, 3, 7):
        usage.write({COUNTER: value})
        run("aggregate", "--date", str(DAY))
    done = run("verify", "--date", str(DAY))
    assert_clean(done, 1)
    assert "| 1 regressed |" in done.stdout
    assert done.stdout.endswith(f"{COUNTER}: Redis has 7, PostgreSQL has 7 (regressed)\n")
    assert done.stderr == (
        f"error: Counters of {DAY} went backwards. Once a run has seen them, they wait for a decision. "
        f"See: {PROGRAM} dead-letters --reason counter_regressed\n"
    )


def test_status_says_which_dates_were_aggregated_for_some_merchants_only(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5, key("b", DAY): 6})
    assert_clean(run("aggregate", "--date", str(DAY), "--merchant", "b"), 0)
    done = run("status")
    assert_clean(done, 0)
    assert (
        f"Aggregated for some merchants only: {DAY}. To aggregate all of them: merchant-usage aggregate --date {DAY}\n"
    ) in done.stdout
    shown = document(run("status", str(DAY), "--json"))
    assert shown["aggregated_in_part"] == [str(DAY)]
    assert shown["never_aggregated"] == []


def test_max_lag_passes_while_runs_go_on_and_fails_once_they_stop(usage: Usage, run: RunCommand) -> None:
    usage.write({key("acme", TODAY): 5})
    done = run("status", "--max-lag", "2h")
    assert_clean(done, 1)
    assert "No run was ever verified; --max-lag allows 2h" in done.stderr
    assert_clean(run("aggregate", "--date", str(TODAY)), 0)
    done = run("status", "--max-lag", "90m")
    assert_clean(done, 0)
    assert "Usage is verified up to " in done.stdout
    usage.conn.execute("UPDATE usage_run SET started_at = started_at - interval '2 hours 5 minutes'")
    assert_clean(run("status", "--max-lag", "1d"), 0)
    done = run("status", "--max-lag", "2h", "--json")
    assert_clean(done, 1)
    last = document(done)["newest_verified"]
    assert "The newest verified usage is older than 2h: up to " in done.stderr
    assert f" ago, by the run {last['run_id']}." in done.stderr
    assert 7500 <= last["age_seconds"] < 7500 + 60


def test_a_run_of_an_old_date_does_not_hide_that_the_hourly_ones_have_stopped(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5, key("acme", TODAY): 5})
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    done = run("status", "--max-lag", "2h", "--json")
    assert_clean(done, 1)
    midnight = dt.datetime.combine(DAY + ONE_DAY, dt.time(), dt.UTC)
    assert dt.datetime.fromisoformat(document(done)["newest_verified"]["verified_until"]) == midnight
    assert_clean(run("aggregate", "--date", str(TODAY)), 0)
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    assert_clean(run("status", "--max-lag", "2h"), 0)


@pytest.mark.usefixtures("usage")
def test_an_hour_in_which_nothing_was_used_is_no_lag(run: RunCommand) -> None:
    assert_clean(run("aggregate", "--date", str(TODAY)), 0)
    assert_clean(run("status", "--max-lag", "2h"), 0)


def test_a_clock_that_is_wrong_does_not_pass_for_a_fresh_run(usage: Usage, run: RunCommand) -> None:
    usage.write({key("acme", TODAY): 5})
    assert_clean(run("aggregate", "--date", str(TODAY)), 0)
    ahead = "UPDATE usage_run SET usage_date = usage_date + 9, started_at = started_at + %s * interval '1 minute'"
    usage.conn.execute(ahead, [60])
    assert_clean(run("status", "--max-lag", "2h"), 0)
    usage.conn.execute(ahead, [120])
    done = run("status", "--max-lag", "2h")
    assert_clean(done, 1)
    assert "which is still to come: a clock is wrong" in done.stderr


def test_max_lag_without_an_answer_is_no_success(run: RunCommand) -> None:
    nowhere = {"USAGE_POSTGRES_URL": f"postgresql://usage:{SECRET}@127.0.0.1:{free_port()}/usage"}
    assert_clean(run("status", "--max-lag", "2h", **nowhere), 3)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param("UPDATE usage_run SET merchant_ids = '{acme}'", id="of one merchant"),
        pytest.param("UPDATE usage_run SET verdict = 'source_expired'", id="nothing to prove"),
        pytest.param(
            "INSERT INTO usage_run (run_id, usage_date, run_type, settled, started_at, finished_at, verdict)"
            " SELECT run_id, usage_date - 1, 'cli', true, started_at, finished_at, 'mismatch' FROM usage_run",
            id="another date is a mismatch",
        ),
        pytest.param(
            "INSERT INTO usage_run (run_id, usage_date, run_type, settled, started_at)"
            " SELECT run_id, usage_date - 1, 'cli', true, started_at FROM usage_run",
            id="another date is not finished",
        ),
    ],
)
def test_only_a_run_that_is_verified_as_a_whole_counts_for_max_lag(usage: Usage, run: RunCommand, change: str) -> None:
    usage.write({COUNTER: 5})
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    usage.conn.execute(change)
    done = run("status", str(DAY), "--max-lag", "2h")
    assert_clean(done, 1)
    assert "No run was ever verified" in done.stderr


@pytest.mark.parametrize(
    "asked", [(), (str(DAY),), ("--from", str(DAY), "--to", str(TODAY))], ids=["status", "one day", "a range"]
)
def test_a_run_that_died_is_not_done(usage: Usage, run: RunCommand, asked: tuple[str, ...]) -> None:
    usage.write({COUNTER: 5})
    usage.store_only(DAY, now=clock.now())
    assert_clean(run("status", *asked), 0)  # it may be at work still

    usage.conn.execute("UPDATE usage_run SET started_at = now() - interval '6 minutes'")
    died = run("status", *asked)
    assert_clean(died, 1)
    (began,) = usage.conn.execute("SELECT started_at FROM usage_run").fetchone() or ()
    assert (
        f"The newest run of {DAY} began at {began:%Y-%m-%d %H:%M} UTC, 6m ago, and has not finished: if nothing works "
        f"on it any more, it was killed. To aggregate it: merchant-usage aggregate --date {DAY}"
    ) in died.stderr
    assert "not finished" in died.stdout

    usage.conn.execute("UPDATE usage_run SET started_at = now() - interval '3 days'")
    assert_clean(run("status", *asked), 1)
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    assert_clean(run("status", *asked), 0)


def test_verify_proves_without_writing(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5, key("b", DAY): 6})
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    before = usage.everything()
    done = run("verify", "--date", str(DAY))
    assert_clean(done, 0)
    assert "| verified |" in done.stdout
    assert "2 match" in done.stdout
    assert usage.everything() == before


def test_verify_names_every_key_that_does_not_agree(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5, key("b", DAY): 6, key("c", DAY): 7, key("d", DAY): 8})
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    # The sums of Redis and of PostgreSQL stay equal.
    usage.write({COUNTER: 9, key("b", DAY): 2, key("new", DAY): 1, key("d", DAY): 7})
    before = usage.everything()
    done = run("verify", "--date", str(DAY))
    assert_clean(done, 1)
    assert f"error: PostgreSQL does not hold what Redis holds of {DAY}." in done.stderr
    assert f"acme queries of {DAY}: Redis has 9, PostgreSQL has 5 (behind)" in done.stdout
    shown = document(run("verify", "--date", str(DAY), "--json"))
    assert {(each["merchant_id"], each["verdict"]) for each in shown["differences"]} == {
        ("acme", "behind"),
        ("b", "regressed"),
        ("d", "regressed"),
        ("new", "missing"),
    }
    assert shown["difference_count"] == 4
    assert shown["dates"][0]["redis_total"] == shown["dates"][0]["postgres_total"] == 26
    assert usage.everything() == before
    assert_clean(run("verify", "--date", str(DAY), "--merchant", "c"), 0)
    assert_clean(run("verify", "--date", str(DAY), "--merchant", "c", "--merchant", "b"), 1)


def test_verify_lets_a_live_date_grow_but_not_shrink(usage: Usage, run: RunCommand) -> None:
    today = clock.now().date()
    usage.write({key("acme", today): 5})
    assert_clean(run("aggregate", "--date", str(today)), 0)
    usage.write({key("acme", today): 6, key("new", today): 1})
    shown = document(run("verify", "--date", str(today), "--json"))
    assert shown["dates"][0]["verdict"] == "verified"
    assert shown["dates"][0]["keys"] == {"growing": 2}
    usage.write({key("acme", today): 4})
    assert_clean(run("verify", "--date", str(today)), 1)


def test_verify_looks_at_the_dates_it_is_asked_for_even_with_clean_up_on(usage: Usage, run: RunCommand) -> None:
    old = DAY - 30 * ONE_DAY
    usage.write({key("acme", old): 5, COUNTER: 6})
    done = run("verify", "--date", str(old + ONE_DAY), "--json", USAGE_DELETE_STALE_KEYS="true")
    assert_clean(done, 0)
    assert [date["date"] for date in document(done)["dates"]] == [str(old + ONE_DAY)]


def test_verify_counts_keys_that_hold_no_counter(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5, key("b", DAY): "1_000"})
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    (date,) = document(run("verify", "--date", str(DAY), "--json"))["dates"]
    assert (date["verdict"], date["bad_values"]) == ("verified", 1)


def test_verify_tells_of_a_merchant_that_is_not_there(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5})
    done = run("verify", "--date", str(DAY), "--merchant", "acne")
    assert_clean(done, 0)
    assert "Redis has nothing of acne" in done.stderr


def test_aggregate_refuses_a_merchant_that_nobody_knows(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5})
    done = run("aggregate", "--date", str(DAY), "--merchant", "acne")
    assert_clean(done, 2)
    assert f"No merchant is known as acne: Redis has no usage of that name for {DAY}" in done.stderr
    assert usage.rows() == {}


def test_dry_run_says_what_would_change_and_writes_nothing(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5, key("b", DAY): 6})
    before = usage.everything()
    done = run("aggregate", "--date", str(DAY), "--dry-run")
    assert_clean(done, 0)
    assert "Dry run: nothing was written" in done.stdout
    assert "Would store: acme queries" in done.stderr
    shown = document(run("aggregate", "--date", str(DAY), "--dry-run", "--json"))
    assert shown["dry_run"] is True
    assert [(each["merchant_id"], each["redis"], each["postgres"]) for each in shown["differences"]] == [
        ("acme", 5, None),
        ("b", 6, None),
    ]
    assert usage.everything() == before


def test_aggregate_answers_on_stdout_and_logs_on_stderr(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5})
    done = run("aggregate", "--date", str(DAY))
    assert_clean(done, 0)
    assert done.stdout.startswith("Verification: Redis, read again, against PostgreSQL")
    assert "+--" not in done.stderr
    done = run("aggregate", "--date", str(DAY), "--json")
    assert_clean(done, 0)
    shown = document(done)
    assert shown["error"] is None
    assert shown["dates"][0]["verdict"] == "verified"
    assert shown["dates"][0]["redis_total"] == 5
    assert shown["dates"][0]["run_id"] == shown["run_id"]


def test_aggregate_answers_with_a_document_when_it_fails_too(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5, key("bad", DAY): 1})
    usage.conn.execute("ALTER TABLE merchant_usage ADD CHECK (merchant_id <> 'bad')")
    done = run("aggregate", "--date", str(DAY), "--json")
    assert_clean(done, 1)
    shown = document(done)
    assert shown["dates"][0]["verdict"] == "mismatch"
    assert shown["error"].startswith("1 merchant(s) could not be stored")


@pytest.mark.parametrize(
    ("arguments", "environ", "code"),
    [
        pytest.param(["verify", "--date", "never"], {}, 2, id="bad date"),
        pytest.param(["verify", "--nonsense"], {}, 2, id="unknown argument"),
        pytest.param(["dead-letters", "--most", "0"], {}, 2, id="bad argument"),
        pytest.param(["dead-letters"], {"USAGE_POSTGRES_URL": "postgresql://usage@127.0.0.1:1/usage"}, 3, id="down"),
    ],
)
def test_an_error_is_one_document_too(
    run: RunCommand, arguments: list[str], environ: dict[str, str], code: int
) -> None:
    done = run(*arguments, "--json", **environ)
    assert_clean(done, code)
    assert done.stderr.endswith(f"error: {document(done)['error']}\n")


def test_dead_letters_for_a_program(usage: Usage, run: RunCommand) -> None:
    usage.client.set(b"usage:caf\xe9:2026-11-01:queries", 1)
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    shown = document(run("dead-letters", "--json"))
    assert shown["open"] == {"malformed_key": 1}
    (letter,) = shown["letters"]
    assert base64.b64decode(letter["key_base64"]) == b"usage:caf\xe9:2026-11-01:queries"
    assert letter["key"] == r"usage:caf\xe9:2026-11-01:queries"
    assert letter["resolved_at"] is None


def test_no_control_character_of_an_id_reaches_a_terminal(usage: Usage, run: RunCommand) -> None:
    evil, forged = key("evil\x1b[2J\x9b", DAY, "m\x1b]0;t\x07"), key("two\nlines\r", DAY)
    usage.write({evil: 5, forged: 6})
    usage.client.set(b"usage:\x1b[31m:no-date:queries", 1)
    aggregated = run("aggregate", "--date", str(DAY))
    assert_clean(aggregated, 0)
    usage.write({evil: 6, forged: 5})
    rerun = run("aggregate", "--date", str(DAY))
    usage.conn.execute(
        "UPDATE usage_run SET run_id = E'manual\\x1b[2J\\nforged' || run_id, verdict = 'verified',"
        " error = E'\\x1b[0m', finished_at = finished_at - interval '1 day'"
    )
    usage.write({evil: 7, forged: 4})
    date = ["--date", str(DAY)]
    commands = [
        ["verify", *date],
        ["status", str(DAY)],
        ["status"],
        ["dead-letters"],
        ["aggregate", "--dry-run", *date],
    ]
    commands += [["verify", *date, "--merchant", "n\x1b"], ["status", "--max-lag", "1m"]]
    outcomes = [aggregated, rerun, *(run(*command) for command in commands)]
    outcomes += [run("verify", "--json", *date), run("dead-letters", "--json"), run("status", "--json")]
    outcomes += [run("resolve", *date, "--accept")]
    for done in outcomes:
        told = done.stdout + done.stderr
        assert [c for c in told if not c.isprintable() and c != "\n"] == [], told
        assert "\nlines" not in told


def test_no_id_forges_a_line(usage: Usage, run: RunCommand) -> None:
    """Good ones, bad ones, and those that PostgreSQL refuses, in all that a person may ask for."""
    usage.write({key(merchant, DAY): 5 for merchant in HOSTILE} | {key("refused" + HOSTILE[0], DAY): 5})
    for number, text in enumerate(HOSTILE):
        usage.client.set(f"usage:{text}:2026-02-30:{number}", 1)
        usage.client.set(f"usage:bad:{DAY}:{text.replace(':', '')}", text)
    usage.conn.execute(
        'ALTER TABLE merchant_usage ADD CONSTRAINT "odd\n2026-11-26 03:00:00 [error] name"'
        " CHECK (merchant_id NOT LIKE 'refused%')"
    )
    date = ["--date", str(DAY)]
    outcomes = [run("aggregate", *date)]
    assert outcomes[0].returncode == 1
    usage.write({key(merchant, DAY): 4 for merchant in HOSTILE})
    outcomes += [
        run(*command)
        for command in (
            ["aggregate", *date],
            ["verify", *date],
            ["status"],
            ["status", str(DAY), "--live"],
            ["dead-letters"],
            ["aggregate", "--dry-run", *date],
            ["resolve", *date, "--keep"],
            *(["verify", *date, f"--merchant={merchant}"] for merchant in HOSTILE[:1]),
            ["verify", f"--date={HOSTILE[0]}"],
            ["resolve", f"--key=usage:{HOSTILE[0]}", "--keep"],
        )
    ]
    for done in outcomes:
        for line in (done.stdout + done.stderr).splitlines():
            assert line.isprintable(), line
            assert not line.startswith("2026-11-26 03:00:00"), done


def test_what_the_terminal_cannot_show_is_no_error(usage: Usage, run: RunCommand) -> None:
    usage.write({key("émoji 🎉", DAY): 5})
    done = run("aggregate", "--date", str(DAY), PYTHONIOENCODING="ascii")
    assert_clean(done, 0)
    assert r"\xe9moji \U0001f389" in done.stdout


def test_a_reader_that_goes_away_ends_it_quietly(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5})
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    reading, writing = os.pipe()
    os.close(reading)
    done = replace(run, stdout=writing)("status")
    helped = replace(run, stdout=writing)("--help")
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
    assert helped.stderr == ""


@pytest.mark.usefixtures("usage")
def test_ctrl_c_ends_it_quietly(run: RunCommand) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        # A shell starts what is in the background with Ctrl-C ignored, and that would be inherited.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with run.start("aggregate", "--json", USAGE_REDIS_URL=url) as process, silent.accept()[0] as its_end:
                its_end.settimeout(30)
                its_end.recv(1)  # the first command: from now on it waits for an answer
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=30)
        finally:
            signal.signal(signal.SIGINT, before)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert "error" not in err


def test_ctrl_c_in_the_middle_leaves_exact_rows_and_says_what_was_done(
    usage: Usage, run: RunCommand, connect: Connect
) -> None:
    usage.write({COUNTER: 5, key("b", DAY): 6})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with closing(connect()) as other, other.transaction():
            other.execute("LOCK TABLE merchant_usage IN EXCLUSIVE MODE")
            with run.start("aggregate", str(DAY)) as process:
                wait_until(
                    usage.conn,
                    "SELECT count(*) = 1 FROM pg_stat_activity"
                    " WHERE datname = current_database() AND wait_event_type = 'Lock'",
                )
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=30)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.returncode == 130
    assert err.splitlines()[-1] == (
        "Interrupted: no batch was stored whole. What is stored is exact, and not proven; the run can be repeated at "
        f"any time: merchant-usage aggregate --date {DAY}"
    )
    assert "psycopg" not in err
    assert "Traceback" not in err
    assert usage.rows() == {}
    assert usage.conn.execute("SELECT verdict, error FROM usage_run").fetchall() == [(None, "interrupted")]
    assert_clean(run("aggregate", str(DAY)), 0)
    assert usage.rows() == {COUNTER: 5, key("b", DAY): 6}


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment", ["MGET", "COPY pg_temp", "INSERT INTO merchant_usage", "COMMIT\0"])
def test_who_is_told_to_end_in_a_transaction_leaves_none(
    usage: Usage, run: RunCommand, valkey: Valkey, database_url: str, moment: str, sent: signal.Signals, code: int
) -> None:
    """Whatever it waits for: here for Redis, with a transaction open, and for PostgreSQL in each part of one."""
    usage.write({COUNTER: 5, key("b", DAY): 6})
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    name = "USAGE_REDIS_URL" if moment == "MGET" else "USAGE_POSTGRES_URL"
    try:
        with (
            LosingProxy(valkey.url if moment == "MGET" else database_url, moment, hangs=True) as proxy,
            run.start("aggregate", str(DAY), **{name: proxy.url}) as process,
            ExitStack() as stack,
        ):
            stack.callback(process.kill)
            assert proxy.wait_until_cut(30)
            wait_until(
                usage.conn,
                "SELECT count(*) = 1 FROM pg_stat_activity"
                " WHERE datname = current_database() AND state LIKE 'idle in transaction%%'",
            )
            process.send_signal(sent)
            _, err = process.communicate(timeout=60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.returncode == code
    assert err.splitlines()[-1].startswith("Interrupted: no batch was stored whole. What is stored is exact")
    assert "psycopg" not in err
    assert "rollback" not in err
    assert "Traceback" not in err
    wait_until(
        usage.conn,
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    assert usage.rows() == {}
    assert_clean(run("aggregate", str(DAY)), 0)
    assert usage.rows() == {COUNTER: 5, key("b", DAY): 6}


@pytest.mark.parametrize("command", ["aggregate", "verify", "status"])
def test_a_day_may_be_given_in_each_way(usage: Usage, run: RunCommand, command: str) -> None:
    usage.write({key("acme", TODAY - n * ONE_DAY): 5 for n in range(4)})
    for n, ways in enumerate((("today", "-0"), ("yesterday", "-1"), ("-2", str(TODAY - 2 * ONE_DAY)))):
        date = str(TODAY - n * ONE_DAY)
        assert_clean(run("aggregate", "--date", date), 0)
        for way in ways:
            for arguments in ((way,), ("--date", way), ("--from", way, "--to", way)):
                done = run(command, *arguments)
                assert_clean(done, 0)
                assert date in done.stdout, (arguments, done.stdout)
    twice = run(command, "today", "--date", "today")
    assert_clean(twice, 2)
    assert "DATE and --date are the same: give one of the two." in twice.stderr
    assert_clean(run(command, "--from", "today", "--to", "-3"), 2)


def test_every_command_answers_a_program(usage: Usage, run: RunCommand) -> None:
    assert document(run("migrate", "--json"))["applied"][0] == "001_merchant_usage"
    usage.write({COUNTER: 5})
    assert_clean(run("aggregate", str(DAY)), 0)
    usage.write({COUNTER: 4})
    assert_clean(run("aggregate", str(DAY)), 1)
    decided = document(run("resolve", "--date", str(DAY), "--keep", "--json"))
    of = {"merchant_id": "acme", "date": str(DAY), "metric_type": "queries"}
    counter = {**of, "before": 5, "after": 5, "proposed_by": None}
    assert decided == {"decided": [counter], "waiting": [], "refused": [], "error": None}


def test_a_shell_completes_commands_and_options(run: RunCommand) -> None:
    script = run("completion", "bash").stdout
    for typed, offered in ((["agg"], "aggregate"), (["status", "--ma"], "--max-lag"), (["verify", "yes"], "yesterday")):
        words = f"COMP_WORDS=(merchant-usage {' '.join(typed)}); COMP_CWORD={len(typed)}"
        told = subprocess.run(
            ["bash", "-c", f'{script}\n{words}\n_merchant_usage\necho "${{COMPREPLY[@]}}"'],
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.split() == [offered]
    assert "complete -c merchant-usage" in run("completion", "fish").stdout
    assert run("completion", "zsh").stdout.startswith("autoload")


def test_a_terminal_sees_progress_and_a_file_does_not(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5, key("b", DAY): 6})
    # rich alone would take this variable's word for a terminal.
    done = run("aggregate", "--date", str(DAY), "--json", FORCE_COLOR="1")
    assert "Storing batches" not in done.stderr
    terminal, its_end = pty.openpty()
    done = replace(run, stderr=its_end)("aggregate", "--date", str(DAY), "--json", TERM="xterm")
    os.close(its_end)
    seen = read_all(terminal)
    assert done.returncode == 0
    assert document(done)["dates"][0]["verdict"] == "verified"
    assert "Scanning Redis" in seen
    assert "1/1" in seen
    assert "Aggregated acme: queries = 5" in seen


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
    remedy = f"Mend the cause, then run it again: {PROGRAM} aggregate --date {DAY}"
    assert done.stderr.strip().endswith(remedy)
    assert usage.rows() == {COUNTER: 5}


def test_a_date_without_a_partition_is_exit_code_2_and_the_others_are_answered(
    usage: Usage, run: RunCommand, empty_database: Connection, empty_database_url: str
) -> None:
    empty_database.execute(
        "CREATE TABLE merchant_usage (merchant_id text, date date, metric_type text, metric_value bigint NOT NULL,"
        " created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now(),"
        " PRIMARY KEY (merchant_id, date, metric_type)) PARTITION BY LIST (date)"
    )
    schema.migrate(empty_database)
    day_before = DAY - ONE_DAY
    partition = sql.SQL("CREATE TABLE of_one_day PARTITION OF merchant_usage FOR VALUES IN ({})").format(str(DAY))
    empty_database.execute(partition)
    usage.write({COUNTER: 5, key("acme", day_before): 6})
    command = ["aggregate", "--from", str(day_before), "--to", str(DAY)]
    done = run(*command, "--json", USAGE_POSTGRES_URL=empty_database_url)
    assert_clean(done, 2)
    shown = document(done)
    assert {row["usage_date"]: row["verdict"] for row in shown["dates"]} == {
        str(day_before): "mismatch",
        str(DAY): "verified",
    }
    assert f"{day_before}: A partition is missing" in shown["error"]
    assert shown["error"].endswith(f"Make it, then run it again: {PROGRAM} {' '.join(command)}")


def test_a_date_whose_end_nobody_read_is_exit_code_1_until_it_is_decided(usage: Usage, run: RunCommand) -> None:
    lost = TODAY - 12 * ONE_DAY
    usage.write({key("acme", lost): 5})
    usage.aggregate(lost, now=dt.datetime.combine(lost, dt.time(12), dt.UTC))
    usage.client.flushdb()
    done = run("aggregate", "--date", str(lost))
    assert_clean(done, 1)
    decide = f"resolve --date {lost} --keep"
    assert f"error: The end of {lost} was never read, so usage may be lost." in done.stderr
    assert done.stderr.strip().endswith(f"{PROGRAM} {decide}")
    assert_clean(run(*decide.split()), 0)
    assert_clean(run("aggregate", "--date", str(lost)), 0)


def test_regression_is_exit_code_1_until_it_is_decided(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5})
    assert_clean(run("aggregate", "--date", str(DAY)), 0)
    usage.write({COUNTER: 3})
    done = run("aggregate", "--date", str(DAY))
    assert done.returncode == 1
    named = f"{COUNTER}: Redis has 3, PostgreSQL has 5 (regressed)"
    assert f"lower in Redis than in PostgreSQL, or were: {named}. The stored values stay" in done.stderr
    done = run("dead-letters")
    assert_clean(done, 0)
    assert done.stdout.startswith("Open: 1 counter_regressed\n")
    done = run("resolve", raw(COUNTER).decode(), "--accept")
    assert_clean(done, 0)
    assert done.stdout == f"accept: {COUNTER}: stored 5 -> 3\n"
    done = run("resolve", raw(COUNTER).decode(), "--accept")
    assert_clean(done, 2)
    assert done.stderr == f"error: No open counter_regressed for {raw(COUNTER).decode()}.\n"
    assert usage.rows() == {COUNTER: 3}
    assert_clean(run("aggregate", "--date", str(DAY)), 0)


def test_an_accept_waits_for_a_second_person(usage: Usage, run: RunCommand) -> None:
    two = {"USAGE_APPROVALS": "2"}
    usage.write({COUNTER: 5})
    assert_clean(run("aggregate", str(DAY)), 0)
    usage.write({COUNTER: 3})
    assert_clean(run("aggregate", str(DAY)), 1)
    accept = ["resolve", raw(COUNTER).decode(), "--accept", "--because", "a test\x1b[2J"]
    done = run(*accept, "--by", "alice", **two)
    assert_clean(done, 1)
    assert done.stdout == f"accept: {COUNTER}: stored 5 -> 3 waits for a second person\n"
    assert "nothing is lowered until somebody else than alice says the same." in done.stderr
    assert f"{DAY}: 1 counter waits for a decision, 1 of them for a second person." in run("status").stdout
    (waiting,) = document(run("decisions", str(DAY), "--json"))["waiting"]
    assert (waiting["key"], waiting["proposed_by"], waiting["reason"]) == (raw(COUNTER).decode(), "alice", accept[-1])
    assert (waiting["value_before"], waiting["value_after"]) == (5, 3)
    listed = run("decisions")
    assert_clean(listed, 0)
    assert "5 -> 3: a test" in listed.stdout
    assert "\x1b" not in listed.stdout
    again = run(*accept, "--by", " ALICE", **two)
    assert_clean(again, 2)
    assert "alice has proposed already to accept the lower value" in again.stderr
    assert usage.rows() == {COUNTER: 5}
    done = run(*accept, "--by", "bob", **two)
    assert_clean(done, 0)
    assert done.stdout == f"accept: {COUNTER}: stored 5 -> 3, as alice had proposed\n"
    assert usage.rows() == {COUNTER: 3}
    listed = run("decisions", str(DAY))
    assert listed.stdout.startswith(f"Nothing of {DAY} waits for a decision.\nDecided, newest first")
    assert "alice" in listed.stdout
    assert "bob" in listed.stdout
    assert "waits" not in run("status").stdout


@pytest.mark.parametrize("name", ["", "  "])
def test_a_decision_has_a_name(run: RunCommand, name: str) -> None:
    done = run("resolve", "--date", str(DAY), "--keep", "--by", name)
    assert_clean(done, 2)
    assert "is no name" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environ", "told"),
    [
        pytest.param(["aggregate", "--date", "tomorrow"], {}, "'tomorrow' is not a date", id="no date"),
        pytest.param(
            ["aggregate", "--date", "2999-01-01"], {}, "--date=2999-01-01 is in the future", id="a day to come"
        ),
        pytest.param(
            ["aggregate", "--from", "2026-11-02", "--to", "2026-11-01"],
            {},
            "--to=2026-11-01 lies before --from=2026-11-02",
            id="range backwards",
        ),
        pytest.param(
            ["aggregate", "--date", "2026-11-01", "--to", "2026-11-02"], {}, "give one of the two", id="date and range"
        ),
        pytest.param(["status", "never"], {}, "DATE='never' is not a date", id="status of no date"),
        pytest.param(["status", ""], {}, "DATE='' is not a date", id="status of an empty date"),
        pytest.param(["status", "2999-01-01"], {}, "DATE=2999-01-01 is in the future", id="status of a day to come"),
        pytest.param(["status", "2026-11-01", "--from", "2026-11-01"], {}, "give one of the two", id="status of both"),
        pytest.param(["status", "--max-lag", "2 hours"], {}, "takes minutes, hours or days", id="no duration"),
        pytest.param(["verify", "--from", "x"], {}, "--from='x' is not a date", id="the argument is named"),
        pytest.param(["verify", "--merchant", ""], {}, "--merchant='' is empty", id="no merchant"),
        pytest.param(["verify", "--merchant", "caf\udce9"], {}, "is not valid UTF-8", id="no text"),
        pytest.param(["verify", "--merchant", "x" * 1025], {}, "has 1025 bytes, more than 1024", id="too long"),
        pytest.param(["dead-letters", "--reason", "bad"], {}, "it takes one of malformed_key, bad", id="no reason"),
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
    assert done.stderr.startswith("usage: merchant-usage")


@pytest.mark.parametrize("command", [["aggregate"], ["verify"], ["status"], ["dead-letters"]], ids=" ".join)
def test_missing_schema_is_exit_code_2_and_names_the_command(
    run: RunCommand, empty_database_url: str, command: list[str]
) -> None:
    done = run(*command, USAGE_POSTGRES_URL=empty_database_url)
    assert_clean(done, 2)
    assert done.stderr.strip().endswith("To create what is missing: merchant-usage migrate")


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
    look = "import sys, merchant_usage.__main__; print(sorted(m for m in sys.modules if m.split('.')[0] == 'airflow'))"
    done = subprocess.run([sys.executable, "-c", look], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_due_takes_what_a_scheduled_run_would(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5, key("acme", TODAY): 6})
    live = {"USAGE_START_DATE": str(TODAY - 30 * ONE_DAY)}
    first = document(run("aggregate", "--due", "--json", **live))
    assert [row["usage_date"] for row in first["dates"]] == [str(day) for day in days(TODAY - 7 * ONE_DAY, TODAY)]
    assert usage.rows() == {COUNTER: 5, key("acme", TODAY): 6}
    usage.write({key("acme", TODAY): 7})
    done = run("aggregate", "--due", **live)
    assert_clean(done, 0)
    assert f"{TODAY} | verified" in done.stdout
    assert usage.rows() == {COUNTER: 5, key("acme", TODAY): 7}


def test_what_is_due_can_be_looked_at_first(usage: Usage, run: RunCommand) -> None:
    usage.write({COUNTER: 5})
    before = usage.everything()
    done = run("aggregate", "--due", "--dry-run", USAGE_START_DATE=str(TODAY - 30 * ONE_DAY))
    assert_clean(done, 0)
    assert "1 counter(s) would be stored, 0 went" in done.stderr
    assert usage.everything() == before


@pytest.mark.parametrize("more", [("yesterday",), ("--date", str(DAY)), ("--to", str(DAY)), ("--merchant", "acme")])
def test_due_takes_no_date_and_no_merchant(run: RunCommand, more: tuple[str, ...]) -> None:
    done = run("aggregate", "--due", *more)
    assert_clean(done, 2)
    assert "give it no date and no merchant" in done.stderr


def test_a_run_says_so_if_another_is_at_work(usage: Usage, run: RunCommand) -> None:
    now = clock.now()
    for name, age, run_type in (("slow", 200, "cli"), ("killed", 400, "cli"), ("dag", 200, "scheduled")):
        other = Run(name, run_type, (DAY,), now - dt.timedelta(seconds=age))
        ledger.start(usage.conn, other, other.scopes(settings()).values(), settings())
    usage.write({COUNTER: 5})
    done = run("aggregate", "--date", str(DAY))
    assert_clean(done, 0)
    others = [line for line in done.stderr.splitlines() if "Another run of merchant-usage" in line]
    assert len(others) == 1
    assert "slow, began 3m 2" in others[0]
    assert usage.rows() == {COUNTER: 5}
    done = run("aggregate", "--date", str(DAY))
    assert "cli__" not in "".join(line for line in done.stderr.splitlines() if "Another run" in line)
