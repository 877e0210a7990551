"""What a run tells monitoring: received by a real StatsD socket and by a real OTLP server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from merchant_usage import clock
from merchant_usage.orchestration.metrics import METRICS
from tests.dags.support import Dag, Ended
from tests.dags.versions import AIRFLOW_3
from tests.receivers import OpenTelemetry, Received, Receiver, StatsD
from tests.support import Usage, key, raw

TODAY = clock.now().date()
# Not yesterday: the tests may run in the hours in which that still settles.
DAY = TODAY - dt.timedelta(days=3)
CONF = {"from_date": str(DAY), "to_date": str(DAY)}
COUNTERS = {key("acme", DAY): 5, key("a:b:c", DAY): 6, key("émoji 🎉 %*", DAY, "calls"): 7}
REASONS = [
    "malformed_key",
    "bad_date",
    "future_date",
    "not_an_integer",
    "negative",
    "out_of_range",
    "wrong_type",
    "on_two_servers",
    "counter_regressed",
    "too_late",
]
#: What each backend makes of a name and its tag.
TAGGED, PLAIN = "{} {}={}", "{0}.{2}"


@pytest.fixture(scope="module")
def open_telemetry() -> Iterator[OpenTelemetry]:
    # One for all tests: a process of Airflow 2.11 connects to its collector once.
    with OpenTelemetry().running() as receiver:
        yield receiver


@pytest.fixture
def statsd() -> Iterator[StatsD]:
    with StatsD(ON="True").running() as receiver:
        yield receiver


@pytest.fixture(params=["StatsD", "StatsD with InfluxDB's tags", "DogStatsD", "OpenTelemetry"])
def backend(request: pytest.FixtureRequest, open_telemetry: OpenTelemetry) -> Iterator[tuple[Receiver, str]]:
    """A backend that listens, and how names look in it."""
    if request.param == "OpenTelemetry":
        open_telemetry.take()
        yield open_telemetry, TAGGED if AIRFLOW_3 else PLAIN
        return
    settings = {
        "StatsD": {"ON": "True"},
        "StatsD with InfluxDB's tags": {"ON": "True", "INFLUXDB_ENABLED": "True"},
        "DogStatsD": {"DATADOG_ENABLED": "True"},
    }[request.param]
    with StatsD(**settings).running() as receiver:
        yield receiver, PLAIN if request.param == "StatsD" else TAGGED


def by_tag(form: str, name: str, tag: str, **values: float) -> dict[str, float]:
    return {form.format(name, tag, value): number for value, number in values.items()}


def last(gauges: dict[str, list[float]]) -> dict[str, float]:
    return {name: values[-1] for name, values in gauges.items()}


def without_operations(counters: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in counters.items() if not name.startswith("usage.operations")}


def run(dag: Dag, receiver: Receiver, conf: dict[str, Any] | None = None, **more: Any) -> tuple[Ended, Received]:
    ended = configured(dag, receiver.environ).run(conf or CONF, **more)
    return ended, receiver.take()


def configured(dag: Dag, environ: dict[str, str]) -> Dag:
    """The same DAG under an Airflow with these settings."""
    return replace(dag, connections={**dag.connections, **environ})


def test_a_run_in_every_backend(dag: Dag, usage: Usage, backend: tuple[Receiver, str]) -> None:
    receiver, form = backend
    usage.write({**COUNTERS, key("bad", DAY): "1.5"})
    begin = clock.now()
    ended, got = run(dag, receiver)
    assert ended.state == "success"
    assert without_operations(got.counters) == {
        "usage.keys_scanned": 4,
        **by_tag(form, "usage.records", "change", inserted=3, updated=0, unchanged=0),
        **by_tag(form, "usage.mismatches", "verdict", missing=0, behind=0, regressed=0),
    }
    for server in ("redis", "postgres"):
        assert got.counters[form.format("usage.operations", "server", server)] > 0
    gauges = last(got.gauges)
    lag, until = gauges.pop("usage.lag"), gauges.pop("usage.proven_until")
    assert gauges.pop("usage.proven_or_undecided_until") == until
    assert gauges == by_tag(form, "usage.dead_letters", "reason", **dict.fromkeys(REASONS, 0) | {"not_an_integer": 1})
    oldest = dt.datetime.combine(TODAY - dt.timedelta(days=7), dt.time(), dt.UTC)
    assert until == oldest.timestamp(), "only one date of eight is proven"
    assert begin.timestamp() - 1 <= until + lag <= clock.now().timestamp()
    phases = dict.fromkeys(("scan", "upsert", "verify"), 1)
    assert set(got.timers) == set(by_tag(form, "usage.phase_duration", "phase", **phases))
    assert len(got.timers[form.format("usage.phase_duration", "phase", "upsert")]) >= len(COUNTERS) + 1
    assert all(0 < value < 60_000 for values in got.timers.values() for value in values)

    usage.client.incr(raw(key("acme", DAY)))
    ended, got = run(dag, receiver)
    assert ended.state == "success"
    assert without_operations(got.counters) == {
        "usage.keys_scanned": 4,
        **by_tag(form, "usage.records", "change", inserted=0, updated=1, unchanged=2),
        **by_tag(form, "usage.mismatches", "verdict", missing=0, behind=0, regressed=0),
    }


def test_every_metric_is_sent_and_none_that_is_not_listed(dag: Dag, usage: Usage) -> None:
    usage.write({key("acme", TODAY - dt.timedelta(days=6)): 5})
    old = str(TODAY - dt.timedelta(days=6))
    with StatsD(DATADOG_ENABLED="True").running() as receiver:
        _, got = run(dag, receiver, {"from_date": old, "to_date": old})
    assert got.kinds == {metric.name: str(metric.kind) for metric in METRICS}
    told = {*got.counters, *got.gauges, *got.timers}
    assert told == {
        f"{metric.name} {metric.tag}={value}" if metric.tag else metric.name
        for metric in METRICS
        for value in metric.values or ("",)
    }


def test_no_name_or_tag_comes_from_data(dag: Dag, usage: Usage, statsd: StatsD) -> None:
    _, empty = run(dag, statsd)
    usage.write({key(f"merchant {n}", DAY, f"metric_{n}"): n for n in range(10)} | COUNTERS)
    _, full = run(dag, statsd)
    assert {*full.counters, *full.gauges} >= {*empty.counters, *empty.gauges}
    told = {*full.counters, *full.gauges, *full.timers}
    assert told <= {
        f"{metric.name}.{value}" if value else metric.name for metric in METRICS for value in ("", *metric.values)
    }


def test_upsert_that_failed_reports_no_records(dag: Dag, usage: Usage, statsd: StatsD) -> None:
    usage.conn.execute("ALTER TABLE merchant_usage ADD CONSTRAINT no_bad CHECK (merchant_id <> 'bad')")
    usage.write({**COUNTERS, key("bad", DAY): 1})
    ended, got = run(dag, statsd, no_retries=True)
    assert ended.state == "failed"
    assert sum(got.counters[f"usage.records.{change}"] for change in ("inserted", "updated", "unchanged")) == 3
    assert len(got.timers["usage.phase_duration.upsert"]) == 3
    assert "usage.phase_duration.verify" not in got.timers
    assert got.counters["usage.mismatches.missing"] == 1
    assert got.counters["usage.operations.postgres"] > 0


def test_scan_that_failed_reports_nothing_found(dag: Dag, usage: Usage, statsd: StatsD) -> None:
    usage.write(COUNTERS)
    ended, got = run(dag, statsd, USAGE_SCAN_COUNT="1000", without="AIRFLOW_CONN_USAGE_REDIS", no_retries=True)
    assert ended.state == "failed"
    assert not got.counters
    assert not got.gauges
    assert not got.timers


def test_counter_that_went_backwards_is_told(dag: Dag, usage: Usage, statsd: StatsD) -> None:
    usage.write(COUNTERS)
    run(dag, statsd)
    usage.write({key("acme", DAY): 1})
    ended, got = run(dag, statsd)
    assert ended.state == "success"
    assert got.counters["usage.mismatches.regressed"] == 1
    assert last(got.gauges)["usage.dead_letters.counter_regressed"] == 1


def test_lag_falls_when_a_run_proves_all_and_is_told_by_runs_that_fail(dag: Dag, usage: Usage, statsd: StatsD) -> None:
    today = {"from_date": str(TODAY), "to_date": str(TODAY)}
    live_from_today = {"USAGE_START_DATE": str(TODAY)}
    midnight = dt.datetime.combine(TODAY, dt.time(), dt.UTC).timestamp()
    usage.write({key("acme", TODAY): 5})
    proven, got = run(dag, statsd, today, **live_from_today)
    started = usage.conn.execute("SELECT started_at FROM usage_run WHERE run_id = %s", [proven.run_id]).fetchone()
    assert started is not None
    assert got.gauges["usage.proven_until"] == [midnight, int(started[0].timestamp())], "before the run, and after"
    assert got.gauges["usage.lag"][0] >= got.gauges["usage.lag"][1]

    usage.conn.execute("ALTER TABLE merchant_usage ADD CONSTRAINT no_more CHECK (metric_value < 6)")
    usage.client.incr(raw(key("acme", TODAY)))
    failed, got = run(dag, statsd, today, no_retries=True, **live_from_today)
    assert failed.state == "failed"
    assert got.gauges["usage.proven_until"] == [int(started[0].timestamp())] * 2


def test_operations_do_not_grow_with_keys(dag: Dag, usage: Usage, statsd: StatsD) -> None:
    usage.write({key("acme", DAY, f"metric_{n}"): n for n in range(900)})
    _, got = run(dag, statsd)
    assert got.counters["usage.keys_scanned"] == 900
    assert 0 < got.counters["usage.operations.redis"] < 100
    assert 0 < got.counters["usage.operations.postgres"] < 100


def test_nothing_is_sent_unless_airflow_is_told_to(dag: Dag, usage: Usage, statsd: StatsD) -> None:
    usage.write(COUNTERS)
    environ = statsd.environ | {"AIRFLOW__METRICS__STATSD_ON": "False"}
    assert configured(dag, environ).run(CONF).state == "success"
    got = statsd.take()
    assert not got.kinds


BROKEN = {
    "a StatsD host that nobody knows": {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "nowhere.invalid",
    },
    "a port that nobody listens on": {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": "9",
    },
}


@pytest.mark.parametrize("environ", BROKEN.values(), ids=BROKEN)
def test_run_does_not_depend_on_a_backend(dag: Dag, usage: Usage, environ: dict[str, str]) -> None:
    usage.write(COUNTERS)
    ended = configured(dag, environ).run(CONF)
    assert ended.state == "success"
    assert usage.rows() == COUNTERS
    assert usage.ledger(ended.run_id) == {DAY: ("verified", None)}


def test_run_does_not_depend_on_what_the_client_thinks_of_our_names(dag: Dag, usage: Usage, statsd: StatsD) -> None:
    usage.write(COUNTERS)
    handler = {"AIRFLOW__METRICS__STAT_NAME_HANDLER": "tests.dags.support.refuse_our_names"}
    ended = configured(dag, statsd.environ | handler).run(CONF, no_retries=True)
    assert ended.state == "success"
    assert ended.log.count("Metrics could not be sent: no such metric: usage.records.inserted") == len(COUNTERS)
    assert usage.ledger(ended.run_id) == {DAY: ("verified", None)}


def test_run_does_not_depend_on_a_collector(dag: Dag, usage: Usage, open_telemetry: OpenTelemetry) -> None:
    usage.write(COUNTERS)
    open_telemetry.refuses = True
    try:
        ended = configured(dag, open_telemetry.environ).run(CONF)
    finally:
        open_telemetry.refuses = False
    assert open_telemetry.refused
    assert ended.state == "success"
    assert usage.ledger(ended.run_id) == {DAY: ("verified", None)}
