"""What a process says of itself at `/metrics`: one collector over plain numbers, behind a listener of its own.

The hot path only adds to integers and to `Histogram`s; everything else happens when somebody scrapes. Names begin with `inspector_`,
units are base units and end the name. A process gives its numbers as `Family` records, so that only this file knows prometheus_client.
"""

from __future__ import annotations

import socketserver
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from inspector.records import ConfigError

LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
SLOW_CLIENT_S = 2.0


class Histogram:
    """Counts of values up to each of `bounds` (inclusive), and above; any thread may `observe`."""

    __slots__ = ("_lock", "bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS_S) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0
        self._lock = threading.Lock()

    def observe(self, *values: float) -> None:
        """Count these values."""
        with self._lock:
            for value in values:
                self.counts[bisect_left(self.bounds, value)] += 1
                self.total += value

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulated counts as Prometheus wants them, and the sum of the values."""
        with self._lock:
            counts, total = list(self.counts), self.total
        cumulated, so_far = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), counts, strict=True):
            so_far += count
            cumulated.append((bound, float(so_far)))
        return cumulated, total


@dataclass(frozen=True, slots=True)
class Family:
    """One metric. `name` without the prefix `inspector_` and without `_total`; samples are (labels, value); an info's value is ignored."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    text: str
    samples: Sequence[tuple[Mapping[str, str], float | Histogram]]


Families: TypeAlias = Callable[[], Iterable[Family]]


class _Collector(Collector):
    def __init__(self, families: Families) -> None:
        self._families = families

    def collect(self) -> Iterable[Any]:
        for family in self._families():
            yield _translate(family)

    def describe(self) -> Iterable[Any]:
        return ()  # nothing is collected just to be registered


def _translate(family: Family) -> Any:
    name, labels = f"inspector_{family.name}", sorted({label for sample, _ in family.samples for label in sample})
    metric: Any
    if family.kind == "histogram":
        metric = HistogramMetricFamily(name, family.text, labels=labels)
        for sample, value in family.samples:
            if isinstance(value, Histogram):
                buckets, total = value.buckets()
                metric.add_metric([sample.get(label, "") for label in labels], buckets, total)
        return metric
    if family.kind == "info":
        metric = InfoMetricFamily(name, family.text)
        for sample, _ in family.samples:
            metric.add_metric([], dict(sample))
        return metric
    metric = (CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily)(name, family.text, labels=labels)
    for sample, value in family.samples:
        metric.add_metric([sample.get(label, "") for label in labels], value)
    return metric


class _Handler(WSGIRequestHandler):
    timeout = SLOW_CLIENT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # The base class asks the name service for this host's name; a factory PC may not have one that answers.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that hangs up or stalls is its own trouble."""


def serve(bind: str, families: Families) -> tuple[WSGIServer, threading.Thread]:
    """Show the metrics at `host:port` until `server.shutdown()`; port 0 takes a free one (`server.server_port`).

    Raises `ConfigError` E_BIND when the address is not to be had.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(families))
    ProcessCollector(namespace="inspector", registry=registry)
    host, _, port = bind.rpartition(":")
    try:
        server = _Server((host.strip("[]"), int(port)), _Handler)
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            "E_BIND", f"{bind}: {error}; another process may hold it (`ss -ltnp` shows which), port 0 takes a free one"
        ) from error
    server.set_app(make_wsgi_app(registry))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="metrics", daemon=True)
    thread.start()
    return server, thread
