"""Prometheus metrics of a worker, and its health check."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from aiohttp import web
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily as Counter
from prometheus_client.metrics_core import GaugeMetricFamily as Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from luma_async.polling.stats import Stats
from luma_async.worker.storage.results import EndState
from luma_async.worker.worker import Work, Worker

LAG_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds

# class of the metric, name (a counter gets `_total`), description, field of the snapshot
MetricRow: TypeAlias = tuple[type[Counter] | type[Gauge], str, str, str]
WORK_METRICS: tuple[MetricRow, ...] = (
    (Counter, "luma_taken", "Ids that the server delivered to this worker.", "taken"),
    (Counter, "luma_redelivered", "Deliveries of ids delivered before.", "redelivered"),
    (Counter, "luma_handed_back", "Ids returned to the queue.", "handed_back"),
    (Gauge, "luma_held", "Ids that this worker holds.", "held"),
    (Gauge, "luma_capacity", "Ids that it can hold.", "capacity"),
    (Gauge, "luma_oldest_seconds", "Since the oldest of them was submitted.", "oldest"),
    (Gauge, "luma_untold", "Results that the server has not stored yet.", "untold"),
    (Gauge, "luma_peers", "Other workers of the pool.", "peers"),
    (Gauge, "luma_connected", "Whether the NATS server is reachable.", "connected"),
)
STATS_METRICS: tuple[MetricRow, ...] = (
    (Counter, "luma_requests", "Requests sent to the relay.", "requests"),
    (Counter, "luma_ids_asked", "Ids in them; an id counts each time.", "ids_asked"),
    (Counter, "luma_errors", "Requests without a usable response.", "errors"),
    (Counter, "luma_throttled", "Responses with status 429.", "throttled"),
    (Gauge, "luma_open", "Ids that are polled.", "open"),
    (Gauge, "luma_in_flight", "Requests in flight.", "in_flight"),
    (Gauge, "luma_quiet_seconds", "Until requests are sent again after an error.", "quiet_for"),
)


class Metrics(Collector):
    """Metrics of one worker and its session, in the text format of Prometheus.

    Pass `count_result` to the worker as `on_end`, and the worker to `observe`.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._lag = Histogram(
            "luma_lag_seconds",
            "From the last response that showed a task open to the one that showed its end.",
            registry=self._registry,
            buckets=LAG_BUCKETS,
        )
        self._worker: Worker | None = None
        self._stats: Callable[[], Stats] = Stats
        self._registry.register(self)

    def observe(self, worker: Worker, stats: Callable[[], Stats]) -> None:
        """Report this worker from now on. `stats` returns the statistics of its session."""
        self._worker = worker
        self._stats = stats

    def count_result(self, state: EndState, lag: float | None) -> None:
        """Record the lag of a stored result, in seconds."""
        if lag is not None:
            self._lag.observe(lag)

    def text(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self._registry)

    def problem(self) -> str | None:
        """Return why the worker is not healthy, or None."""
        if self._worker is None:
            return "the worker has not started"
        healthy = self._worker.is_well
        return None if healthy else "the NATS server is not reachable, or does not store results"

    def collect(self) -> Iterator[Metric]:
        """Yield the current metrics; called by prometheus_client."""
        if self._worker is not None:
            work = self._worker.work
            yield _result_metric(work.ends)
            yield from _families(work, WORK_METRICS)
            yield from _families(self._stats(), STATS_METRICS)

    def application(self) -> web.Application:
        """Return an application that serves /metrics and /healthz."""
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        return application

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        problem = self.problem()
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)


def _result_metric(ends: Mapping[EndState, int]) -> Metric:
    metric = Counter("luma_ends", "Stored results, by state.", labels=["state"])
    for state, count in ends.items():
        metric.add_metric([state.value], count)
    return metric


def _families(snapshot: Work | Stats, table: Iterable[MetricRow]) -> Iterator[Metric]:
    for family, name, description, field in table:
        yield family(name, description, value=float(getattr(snapshot, field)))
