"""The demo's command line and its order of events."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import signal
import sys
import time
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import httpx
import psycopg
from psycopg import Connection
from redis.exceptions import RedisError

from local.airflow import AirflowError, LocalAirflow
from local.airflow_api import DagRun
from local.airflow_environment import PROJECT
from local.connections import postgres_connection, redis_connection
from local.demo import metadata, report
from local.demo.errors import DemoError
from local.demo.month import Month, begin_month
from local.demo.runs import Followed, RunVerdict, has_caught_up, judge_runs
from local.demo.screen import Screen
from local.demo.servers import open_servers
from local.rhythm import MERCHANTS, METRICS
from local.running import FOLDER, HERE, leave_environment
from local.servers import ServerError
from local.servers.processes import lock_folder
from local.traffic import Traffic, poison
from merchant_usage import clock
from merchant_usage.connections import POSTGRES_URL, REDIS_URL, postgres_from_url, redis_from_url
from merchant_usage.errors import UsageError
from merchant_usage.log import send_to, with_fields
from merchant_usage.orchestration.names import PAGE_PATH
from merchant_usage.settings import DAG_ID, Settings, load_settings
from merchant_usage.sink import schema

# A mapped task takes half a second of two cores: eight batches are enough to see them.
MAPPED_TASKS: Final = "8"
#: Errors whose text is all that there is to say.
TOLD: Final = (
    *(AirflowError, DemoError, ServerError, UsageError),
    *(RedisError, httpx.HTTPError, psycopg.Error, TimeoutError),
)
# Airflow imports the page when it is first asked for.
PAGE_SECONDS: Final = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo. Returns 0 if every run was verified."""
    parser = argparse.ArgumentParser(
        prog="./run demo", description="From nothing to verified runs in a real Airflow that people can look at."
    )
    parser.add_argument("--once", action="store_true", help="end by itself; exit code 0 only if every run was verified")
    options = parser.parse_args(arguments)
    screen = Screen()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        with lock_folder(FOLDER), (FOLDER / "demo.log").open("w", encoding="utf-8") as log:
            send_to(lambda _, __, sentence, fields: print(with_fields(sentence, fields), file=log, flush=True))
            return int(not _demo(screen, os.environ, once=options.once))
    except KeyboardInterrupt:
        screen.say("Stopped before the end.")
        return 130
    except (
        AirflowError,
        DemoError,
        ServerError,
        UsageError,
        RedisError,
        httpx.HTTPError,
        psycopg.Error,
        TimeoutError,
    ) as error:
        screen.say(str(error), "red")
        screen.say(f"The logs are in {_shortened(FOLDER)}.")
        return 1


def _demo(screen: Screen, environ: MutableMapping[str, str], *, once: bool) -> bool:
    with ExitStack() as stack:
        try:
            return _events(screen, environ, stack, once=once)
        finally:
            # From here on all is being ended in good order; another Ctrl-C would only leave things half-way.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            screen.say("Ending everything that was started")


def _events(screen: Screen, environ: MutableMapping[str, str], stack: ExitStack, *, once: bool) -> bool:
    servers = open_servers(stack, FOLDER, environ)
    screen.say(servers.places)
    urls = {REDIS_URL: servers.redis_url, POSTGRES_URL: servers.postgres_url}
    conn = stack.enter_context(postgres_from_url(urls))
    kept = metadata.open_metadata(servers.postgres_url, clock.now())
    choices = {"USAGE_START_DATE": kept.start.isoformat(), "USAGE_MAX_MAPPED_TASKS": MAPPED_TASKS}
    settings = load_settings(choices)
    if not servers.own_redis:
        screen.say("Your Redis gets keys usage:* with a TTL of 7 days", "yellow")
    if not servers.own_postgres:
        tables = "merchant_usage, usage_run, usage_dead_letter, usage_reading and usage_alert"
        screen.say(f"Your PostgreSQL gets the tables {tables}, and a database {metadata.DATABASE}", "yellow")
    schema.migrate(conn)
    month = begin_month(servers, conn, FOLDER, kept.start)
    stack.callback(month.stop)
    traffic = Traffic(servers.redis_url)

    def before_runs() -> None:
        """The clock of the month is another: until it is whole nobody else counts or reads."""
        month.wait()
        traffic.write_days(*_dates())
        traffic.write_poison(clock.now().date())

    environment = {
        **choices,
        **HERE,
        "AIRFLOW_CONN_USAGE_REDIS": redis_connection(servers.redis_url),
        "AIRFLOW_CONN_USAGE_POSTGRES": postgres_connection(servers.postgres_url),
    }
    airflow = LocalAirflow(FOLDER / "airflow", kept.url, environment, migrate=kept.fresh, before_scheduler=before_runs)
    with screen.waiting(_what_starts(kept, month)):
        stack.enter_context(airflow)
    metadata.mark_complete(servers.postgres_url, kept)
    stack.callback(leave_environment(FOLDER, urls, airflow.environment()).unlink, missing_ok=True)
    stack.enter_context(traffic)
    _say_what_is_there(screen, airflow, kept)
    runs = _follow(screen, airflow, kept, settings, traffic)
    verified = _report(screen, conn, urls, judge_runs(airflow, conn, runs, settings, month.undecided), settings)
    if month.found:
        screen.show(report.month_table(month.found))
    screen.say(f"{traffic.increments:,} increments were counted in Redis meanwhile")
    if verified:
        screen.say("Every run was verified.", "bold green")
    else:
        screen.say(f"NOT every run was verified. The logs are in {_shortened(airflow.logs)}.", "bold red")
    _show_page(screen, airflow)
    if not once:
        _stay(screen, airflow, traffic)
    return verified


def _show_page(screen: Screen, airflow: LocalAirflow) -> None:
    """Say where the usage page is, once it has answered."""
    address = f"{airflow.url}/{PAGE_PATH}/"
    answer = httpx.get(address, trust_env=False, timeout=PAGE_SECONDS)
    if not answer.is_success:
        raise DemoError(f"The usage page does not answer as it should: {answer.status_code} from {address}.")
    screen.say(f"Usage page: {address}", "bold")


def _what_starts(kept: metadata.Metadata, month: Month) -> str:
    processes = "api-server, scheduler, dag-processor and triggerer"
    airflow = f"Making Airflow's database, then starting {processes}" if kept.fresh else f"Starting {processes}"
    return f"{airflow}; meanwhile the engine goes through a made-up month" if month.is_being_made else airflow


def _say_what_is_there(screen: Screen, airflow: LocalAirflow, kept: metadata.Metadata) -> None:
    (yesterday, today), merchants = _dates(), len(MERCHANTS)
    screen.say(
        f"Redis has {2 * len(METRICS) * merchants} counters of {merchants} merchants for {yesterday} and {today}, and "
        f"{len(poison(today))} poison keys; more is being counted all the time"
    )
    screen.say(f"Airflow is up: {airflow.url}")
    screen.say(
        f"The scheduler catches up by itself, hour by hour from {kept.start:%d %b %H:%M} UTC on"
        + (f"; {len(kept.earlier_runs)} runs were done by an earlier demo" if kept.earlier_runs else "")
    )


def _follow(
    screen: Screen, airflow: LocalAirflow, kept: metadata.Metadata, settings: Settings, traffic: Traffic
) -> list[DagRun]:
    """Wait until the scheduler has caught up, then for a run by hand; returns all runs of this demo."""

    def caught_up(runs: list[DagRun]) -> bool:
        return has_caught_up(runs, settings)

    followed = Followed(airflow, screen, kept.earlier_runs)
    followed.until(caught_up, traffic.check)
    yesterday, today = _dates()
    conf = {"from_date": str(yesterday), "to_date": str(today)}
    by_hand = airflow.api.trigger(DAG_ID, conf)
    screen.say(
        f'By hand: ./run airflow dags trigger {DAG_ID} -c \'{{"from_date": "{yesterday}", "to_date": "{today}"}}\''
    )

    def all_done(runs: list[DagRun]) -> bool:
        return all(run.finished for run in runs) and by_hand.run_id in {run.run_id for run in runs}

    return followed.until(all_done, traffic.check)


def _report(
    screen: Screen, conn: Connection, urls: Mapping[str, str], verdicts: Sequence[RunVerdict], settings: Settings
) -> bool:
    """Show how it ended; returns whether every run was verified."""
    with redis_from_url(urls) as client:
        proof = report.compare(client, conn, _dates(), settings)
    screen.show(report.comparison(proof))
    screen.show(report.letters_table(conn))
    screen.show(report.runs_table(verdicts))
    return all(verdict.verified for verdict in verdicts) and not proof.failing_count


def _stay(screen: Screen, airflow: LocalAirflow, traffic: Traffic) -> None:
    screen.say(f"Look around: {airflow.url}/dags/{DAG_ID}", "bold")
    screen.show(report.commands_table())
    screen.say(
        f"Its data is in {_shortened(FOLDER)}; to begin anew, end it and: rm -rf {_shortened(FOLDER)}. Its connections "
        "come from the environment (AIRFLOW_CONN_USAGE_REDIS, AIRFLOW_CONN_USAGE_POSTGRES), so the UI lists none."
    )
    screen.say("It stays up, counts on and runs every hour until Ctrl-C.")
    try:
        while True:
            airflow.check()
            traffic.check()
            time.sleep(1)
    except KeyboardInterrupt:
        return


def _dates() -> tuple[dt.date, dt.date]:
    today = clock.now().date()
    return today - dt.timedelta(days=1), today


def _shortened(folder: Path) -> str:
    return str(folder.relative_to(PROJECT))


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 - as signal.signal wants it
    raise KeyboardInterrupt


if __name__ == "__main__" and __spec__ is not None and __spec__.name == "local.demo.__main__":
    sys.exit(main())
