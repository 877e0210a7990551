"""What stands in the place of a metrics backend: a UDP socket for StatsD, a web server for OpenTelemetry."""

from __future__ import annotations

import re
import socket
import threading
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from tests.http_servers import serving

# name, tags in the style of InfluxDB; value; kind; tags in the style of DogStatsD.
LINE = re.compile(r"(?P<name>[^:,]+)(?P<influx>(?:,[^:]*)?):(?P<value>[^|]+)\|(?P<kind>c|g|ms)(?:\|#(?P<dog>.*))?")
KINDS = {"c": "counter", "g": "gauge", "ms": "timer"}


class Sample(NamedTuple):
    """One value of one metric of ours, without Airflow's prefix; of a timer in milliseconds."""

    name: str
    tags: tuple[tuple[str, str], ...]
    kind: str
    value: float


class Received:
    """What arrived of a run. Each key is a metric's name, with its tag if it came with one."""

    def __init__(self, samples: list[Sample]) -> None:
        self.kinds = {sample.name: sample.kind for sample in samples}
        self.counters: dict[str, float] = defaultdict(float)
        self.gauges: dict[str, list[float]] = defaultdict(list)
        self.timers: dict[str, list[float]] = defaultdict(list)
        for sample in samples:
            name = sample.name + "".join(f" {tag}={value}" for tag, value in sample.tags)
            if sample.kind == "counter":
                self.counters[name] += sample.value
            else:
                (self.gauges if sample.kind == "gauge" else self.timers)[name].append(sample.value)


class Receiver:
    """A backend."""

    @property
    @abstractmethod
    def environ(self) -> dict[str, str]:
        """Airflow's settings that send metrics here."""

    @abstractmethod
    def take(self) -> Received:
        """What has arrived since this was asked last."""


class StatsD(Receiver):
    """A UDP socket on 127.0.0.1."""

    def __init__(self, **settings: str) -> None:
        self._settings = settings
        self._samples: list[Sample] = []
        self._marks = threading.Semaphore(0)

    @property
    def environ(self) -> dict[str, str]:
        host, port = self._socket.getsockname()
        prefix = "AIRFLOW__METRICS__STATSD_"
        settings = {"HOST": host, "PORT": str(port), **self._settings}
        return {prefix + name: value for name, value in settings.items()}

    @contextmanager
    def running(self) -> Iterator[StatsD]:
        """Listen."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as self._socket:
            self._socket.bind(("127.0.0.1", 0))
            thread = threading.Thread(target=self._listen)
            thread.start()
            try:
                yield self
            finally:
                self._send(b"end")
                thread.join()

    def take(self) -> Received:
        # Datagrams on one machine arrive in order, so whatever was sent before this one is here once it is.
        self._send(b"mark")
        assert self._marks.acquire(timeout=30)
        taken, self._samples = self._samples, []
        return Received(taken)

    def _send(self, datagram: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(datagram, self._socket.getsockname())

    def _listen(self) -> None:
        while (datagram := self._socket.recv(65_535)) != b"end":
            if datagram == b"mark":
                self._marks.release()
                continue
            for line in datagram.decode().splitlines():
                if line.startswith("airflow.usage."):
                    self._samples.append(_parse(line))


def _parse(line: str) -> Sample:
    found = LINE.fullmatch(line)
    assert found, line
    influx = [tag.split("=") for tag in found["influx"].split(",")[1:]]
    dog = [tag.split(":") for tag in (found["dog"] or "").split(",") if tag]
    tags = tuple((name, value) for name, value in [*influx, *dog])
    return Sample(found["name"].removeprefix("airflow."), tags, KINDS[found["kind"]], float(found["value"]))


class OpenTelemetry(Receiver):
    """A web server on 127.0.0.1 that takes OTLP."""

    def __init__(self) -> None:
        self.refuses = False
        self.refused = 0
        self._samples: list[Sample] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if receiver.refuses:
                    receiver.refused += 1
                    self.send_response(500)
                else:
                    assert self.path == "/v1/metrics"
                    receiver._samples += decode(body)
                    self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def environ(self) -> dict[str, str]:
        host, port = str(self._server.server_address[0]), str(self._server.server_address[1])
        return {
            "AIRFLOW__METRICS__OTEL_ON": "True",
            # 2.11 reads the first two, 3.3 the third.
            "AIRFLOW__METRICS__OTEL_HOST": host,
            "AIRFLOW__METRICS__OTEL_PORT": port,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{host}:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
            "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT": "1",
        }

    @contextmanager
    def running(self) -> Iterator[OpenTelemetry]:
        """Listen."""
        with serving(self._server):
            yield self

    def take(self) -> Received:
        return Received(self.take_samples())

    def take_samples(self) -> list[Sample]:
        """The same, one by one."""
        taken, self._samples = self._samples, []
        return taken


def decode(body: bytes) -> Iterator[Sample]:
    """The metrics of ours in an OTLP request. Sums must be deltas: see `docs/reference/metrics.md`."""
    request: Any = ExportMetricsServiceRequest.FromString(body)
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if not metric.name.startswith("airflow.usage."):
                    continue
                form = metric.WhichOneof("data")
                data = getattr(metric, form)
                if form != "gauge":
                    assert data.aggregation_temporality == 1, f"{metric.name} is no delta"
                for point in data.data_points:
                    tags = tuple((tag.key, tag.value.string_value) for tag in point.attributes)
                    name = metric.name.removeprefix("airflow.")
                    if form == "exponential_histogram":
                        # One sample for each of its durations; only their mean is known.
                        for _ in range(point.count):
                            yield Sample(name, tags, "timer", point.sum / point.count)
                        continue
                    value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
                    # 2.11 sends a duration as a gauge.
                    kind = (
                        "counter" if form == "sum" else "timer" if name.startswith("usage.phase_duration") else "gauge"
                    )
                    yield Sample(name, tags, kind, value)
