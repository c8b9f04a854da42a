"""What a worker tells Prometheus, and whoever asks whether it is well."""

from collections.abc import Callable, Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from luma_async.polling.stats import Stats
from luma_async.worker.results import EndState
from luma_async.worker.worker import Work, Worker

LAG_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics(Collector):
    """The figures of one worker and its session, in Prometheus' text format.

    Give `told` to the worker as `on_end`, and the worker to `observe`.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._lag = Histogram(
            "luma_lag_seconds",
            "From the last answer that showed a task open to the one that showed its end.",
            registry=self._registry,
            buckets=LAG_BUCKETS,
        )
        self._worker: Worker | None = None
        self._stats: Callable[[], Stats] = Stats
        self._registry.register(self)

    def observe(self, worker: Worker, stats: Callable[[], Stats]) -> None:
        """Tell of this worker from now on; `stats` returns those of its session."""
        self._worker = worker
        self._stats = stats

    def told(self, state: EndState, lag: float | None) -> None:
        """Count an end that was told."""
        if lag is not None:
            self._lag.observe(lag)

    def text(self) -> bytes:
        """Return all figures as text."""
        return generate_latest(self._registry)

    def trouble(self) -> str | None:
        """Say why the worker is not well, or None."""
        if self._worker is None:
            return "the worker has not begun"
        return None if self._worker.is_well else "the NATS server is away, or stores nothing"

    def collect(self) -> Iterator[Metric]:
        """Yield the figures as of now, as prometheus_client asks."""
        if self._worker is not None:
            yield from _of_work(self._worker.work)
            yield from _of_stats(self._stats())

    def application(self) -> web.Application:
        """Return what serves /metrics and /healthz."""
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        return application

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _healthz(self, _: web.Request) -> web.Response:
        trouble = self.trouble()
        return web.Response(text=f"{trouble or 'ok'}\n", status=503 if trouble else 200)


def _of_work(work: Work) -> Iterator[Metric]:
    ends = CounterMetricFamily("luma_ends", "Ends told, by state.", labels=["state"])
    for state, count in work.ends.items():
        ends.add_metric([state.value], count)
    yield ends
    for name, what, count in (
        ("luma_taken", "Ids that the server lent to this worker.", work.taken),
        ("luma_redelivered", "Ids among them that had been lent before.", work.redelivered),
        ("luma_handed_back", "Ids returned for other workers.", work.handed_back),
    ):
        yield CounterMetricFamily(name, what, value=count)
    for name, what, value in (
        ("luma_held", "Ids lent to this worker now.", work.held),
        ("luma_capacity", "Ids that it holds at most.", work.capacity),
        ("luma_oldest_seconds", "Since the oldest of them was submitted.", work.oldest),
        ("luma_untold", "Ids that have ended; the server has not stored it yet.", work.untold),
        ("luma_peers", "Other workers of the pool.", work.peers),
        ("luma_connected", "Whether the NATS server is there.", float(work.connected)),
    ):
        yield GaugeMetricFamily(name, what, value=value)


def _of_stats(stats: Stats) -> Iterator[Metric]:
    for name, what, count in (
        ("luma_requests", "Requests sent to the relay.", stats.requests),
        ("luma_ids_asked", "Ids in them; an id counts each time.", stats.ids_asked),
        ("luma_errors", "Requests that brought no answer.", stats.errors),
        ("luma_throttled", "The 429 among them.", stats.throttled),
    ):
        yield CounterMetricFamily(name, what, value=count)
    for name, what, value in (
        ("luma_open", "Ids that are polled for.", stats.open),
        ("luma_in_flight", "Requests under way.", stats.in_flight),
        ("luma_quiet_seconds", "For which the relay is left alone now.", stats.quiet_for),
    ):
        yield GaugeMetricFamily(name, what, value=value)
