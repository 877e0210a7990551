"""What monitoring is told of runs, through Airflow's own metrics (docs/reference/metrics.md).

Nothing here raises, and nothing is done while Airflow's metrics are off. A name or a tag's value never comes from data.
"""

from __future__ import annotations

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import Any, Final

from airflow.providers.common.compat.sdk import Stats, conf
from psycopg import Connection

from merchant_usage import clock
from merchant_usage.driver_errors import explain
from merchant_usage.log import Log
from merchant_usage.model.batches import Batch
from merchant_usage.model.dead_letter import Reason
from merchant_usage.model.verdict import Proof, Verdict
from merchant_usage.orchestration.compat import OTEL_KEEPS_TAGS, flush_metrics, set_up_logging
from merchant_usage.orchestration.request_counts import count_requests, count_statements
from merchant_usage.settings import Settings
from merchant_usage.sink import dead_letters
from merchant_usage.sink.lag import proven_until
from merchant_usage.source.shards import RedisClient
from merchant_usage.steps.store import BatchResult

set_up_logging()
log = Log(__name__)


class MetricKind(StrEnum):
    """How a metric's values add up: they are summed, the last one holds, or they are durations."""

    COUNTER = "counter"
    GAUGE = "gauge"
    TIMER = "timer"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, and its one tag with all the values that this may have."""

    name: str
    kind: MetricKind
    tag: str | None = None
    values: tuple[str, ...] = ()


KEYS_SCANNED: Final = Metric("usage.keys_scanned", MetricKind.COUNTER)
RECORDS: Final = Metric("usage.records", MetricKind.COUNTER, "change", ("inserted", "updated", "unchanged"))
MISMATCHES: Final = Metric(
    "usage.mismatches", MetricKind.COUNTER, "verdict", (Verdict.MISSING, Verdict.BEHIND, Verdict.REGRESSED)
)
DEAD_LETTERS: Final = Metric("usage.dead_letters", MetricKind.GAUGE, "reason", tuple(Reason))
PHASE: Final = Metric("usage.phase_duration", MetricKind.TIMER, "phase", ("scan", "upsert", "verify", "delete"))
OPERATIONS: Final = Metric("usage.operations", MetricKind.COUNTER, "server", ("redis", "postgres"))
LAG: Final = Metric("usage.lag", MetricKind.GAUGE)
PROVEN_UNTIL: Final = Metric("usage.proven_until", MetricKind.GAUGE)
#: The same, but that a person has still to decide what counts: it stands still only when no run does its work.
PROVEN_OR_UNDECIDED_UNTIL: Final = Metric("usage.proven_or_undecided_until", MetricKind.GAUGE)

#: All there are.
METRICS: Final = (
    KEYS_SCANNED,
    RECORDS,
    MISMATCHES,
    DEAD_LETTERS,
    PHASE,
    OPERATIONS,
    LAG,
    PROVEN_UNTIL,
    PROVEN_OR_UNDECIDED_UNTIL,
)


class Backend(StrEnum):
    """What becomes of metrics. Plain StatsD has no tags, so there the names say what tags would."""

    OFF = "off"
    PLAIN = "plain"
    TAGGED = "tagged"


def backend() -> Backend:
    """What Airflow's configuration says, in the order in which Airflow chooses."""
    if conf.getboolean("metrics", "statsd_datadog_enabled", fallback=False):
        tagged = conf.getboolean("metrics", "statsd_datadog_metrics_tags", fallback=True)
    elif conf.getboolean("metrics", "statsd_on", fallback=False):
        tagged = conf.getboolean("metrics", "statsd_influxdb_enabled", fallback=False)
    elif conf.getboolean("metrics", "otel_on", fallback=False):
        tagged = OTEL_KEEPS_TAGS
    else:
        return Backend.OFF
    return Backend.TAGGED if tagged else Backend.PLAIN


@contextmanager
def delivered() -> Iterator[None]:
    """See to it that what was sent meanwhile leaves this process before it ends. Decorates the body of a task."""
    try:
        yield
    finally:
        with _harmless():
            flush_metrics()


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Tell how long this took; if it fails, nothing."""
    begin = time.monotonic()
    yield
    with _harmless():
        _send(PHASE, time.monotonic() - begin, name)


def scanned(batches: Sequence[Batch]) -> None:
    """Tell how many keys of a run's dates were found."""
    with _harmless():
        _send(KEYS_SCANNED, sum(batch.key_count for batch in batches))


def stored(result: BatchResult) -> None:
    """Tell what storing a batch did."""
    with _harmless():
        total = result.total
        _send_each(RECORDS, {"inserted": total.inserted, "updated": total.updated, "unchanged": total.unchanged})


def proved(conn: Connection, proof: Proof, settings: Settings) -> None:
    """Tell what verification found, good or bad, and how things stand now."""
    with _harmless():
        if backend() is Backend.OFF:
            return
        found: Counter[str] = Counter()
        for report in proof.reports:
            found.update(report.keys)
        _send_each(MISMATCHES, found)
        _send_each(DEAD_LETTERS, dead_letters.open_counts(conn))
    lag(conn, settings)


def lag(conn: Connection, settings: Settings) -> None:
    """Tell up to when all usage is proven to be stored, and how long ago that is."""
    with _harmless():
        if backend() is Backend.OFF:
            return
        now = clock.now()
        proven = proven_until(conn, now, settings)
        _send(LAG, int((now - proven.until).total_seconds()))
        _send(PROVEN_UNTIL, int(proven.until.timestamp()))
        _send(PROVEN_OR_UNDECIDED_UNTIL, int(proven.or_undecided_until.timestamp()))


@contextmanager
def requests(client: RedisClient) -> Iterator[None]:
    """Tell how many requests went to Redis meanwhile, whatever came of them."""
    with _operations("redis", lambda each: count_requests(client, each)):
        yield


@contextmanager
def statements(conn: Connection) -> Iterator[None]:
    """Tell how many statements went to PostgreSQL meanwhile, whatever came of them."""
    with _operations("postgres", lambda each: count_statements(conn, each)):
        yield


@contextmanager
def _operations(server: str, observe: Callable[[Callable[[], object]], None]) -> Iterator[None]:
    seen = count()  # next() of it is one step, whichever thread takes it
    with _harmless():
        if backend() is not Backend.OFF:
            observe(seen.__next__)
    try:
        yield
    finally:
        with _harmless():
            _send(OPERATIONS, next(seen), server)


@contextmanager
def _harmless() -> Iterator[None]:
    """Whatever becomes of a metric, the run goes on."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a metric is never worth a run
        log.warning(f"Metrics could not be sent: {explain(error)}")


def _send_each(metric: Metric, values: Mapping[Any, int]) -> None:
    """Send a value for each of the tag's values: 0 too, so that a first one is seen to be a rise."""
    for value in metric.values:
        _send(metric, values.get(value, 0), value)


def _send(metric: Metric, value: float, tag: str | None = None) -> None:
    chosen = backend()
    if chosen is Backend.OFF:
        return
    name, tags = metric.name, {}
    if metric.tag and tag:
        if chosen is Backend.TAGGED:
            tags = {metric.tag: str(tag)}
        else:
            # Dropped, the tag would leave one gauge for all: the last reason told would pass for the only one.
            name = f"{name}.{tag}"
    if metric.kind is MetricKind.COUNTER:
        Stats.incr(name, int(value), tags=tags)
    elif metric.kind is MetricKind.GAUGE:
        Stats.gauge(name, value, tags=tags)
    else:
        Stats.timing(name, dt.timedelta(seconds=value), tags=tags)
