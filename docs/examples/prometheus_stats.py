"""What a session does, for Prometheus: /metrics reads luma.stats when it is asked, and only then.

python docs/examples/prometheus_stats.py [PORT]

Two hooks count what a snapshot cannot tell: how long requests take, and how late news is. Ids come
in by POST /wait, one in a line; stop it by ctrl-C.
"""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterator

from aiohttp import web
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from luma_async import (
    ChangeEvent,
    Following,
    Learned,
    LumaSession,
    RequestEvent,
    Stats,
    WaitAborted,
)

PACE = Learned(float(os.environ.get("PACE", "5")))  # seconds; less where videos take seconds

FOLLOWING = web.AppKey("FOLLOWING", Following)
REGISTRY = web.AppKey("REGISTRY", CollectorRegistry)

routes = web.RouteTableDef()


# start of the collector
class Figures(Collector):
    """The stats of a session, read at each scrape."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Yield the figures as of now."""
        stats = self._stats()
        ends = CounterMetricFamily("luma_ends", "Tasks that ended, by how.", labels=["state"])
        ends.add_metric(["completed"], stats.completed)
        ends.add_metric(["failed"], stats.failed)
        ends.add_metric(["missing"], stats.missing)
        yield ends
        for name, what, count in (
            ("luma_requests", "Requests sent to the relay.", stats.requests),
            ("luma_ids_asked", "Ids in them; an id counts each time.", stats.ids_asked),
            ("luma_errors", "Requests that brought no answer.", stats.errors),
            ("luma_throttled", "The 429 among them.", stats.throttled),
        ):
            yield CounterMetricFamily(name, what, value=count)
        for name, what, value in (
            ("luma_open", "Ids that are waited for.", stats.open),
            ("luma_oldest_seconds", "Since the oldest of them is waited for.", stats.oldest or 0),
            ("luma_in_flight", "Requests under way.", stats.in_flight),
            ("luma_quiet_seconds", "For which the relay is left alone now.", stats.quiet_for),
        ):
            yield GaugeMetricFamily(name, what, value=value)


# end of the collector
# start of the hooks
REQUESTS = Histogram(
    "luma_request_seconds",
    "What a request to the relay took, by its outcome.",
    labelnames=["call", "outcome"],
    registry=None,
)
LAG = Histogram(
    "luma_lag_seconds",
    "From the last answer that showed a task open to the one that showed its end.",
    registry=None,
)


def on_request(event: RequestEvent) -> None:
    """Take the time of a request; errors are told by their class, of which there are few."""
    outcome = type(event.error).__name__ if event.error else "answered"
    outcome = "cancelled" if event.cancelled else outcome
    REQUESTS.labels(event.call, outcome).observe(event.seconds)


def on_change(event: ChangeEvent) -> None:
    """Take how late the news of an end may be."""
    if event.ended and event.lag is not None:
        LAG.observe(event.lag)


# end of the hooks
async def session(app: web.Application) -> AsyncGenerator[None, None]:
    """Keep a session, and what Prometheus is told of it."""
    async with LumaSession(pace=PACE, on_request=on_request, on_change=on_change) as luma:
        for collector in (Figures(lambda: luma.stats), REQUESTS, LAG):
            app[REGISTRY].register(collector)
        app[FOLLOWING] = luma.follow()
        reading = asyncio.create_task(read_ends(app[FOLLOWING]))
        yield
        reading.cancel()
        await asyncio.wait([reading])


async def read_ends(following: Following) -> None:
    """Print each end."""
    try:
        async for ended in following:
            state = ended.generation.state.value if ended.generation else "missing"
            print(f"{ended.id!r} {state}", flush=True)
    except WaitAborted as error:
        print(error, flush=True)


@routes.post("/wait")
async def wait(request: web.Request) -> web.Response:
    """Begin to wait for ids."""
    request.app[FOLLOWING].add((await request.text()).split())
    return web.Response(status=202)


@routes.get("/metrics")
async def metrics(request: web.Request) -> web.Response:
    """Tell all figures."""
    text = generate_latest(request.app[REGISTRY])
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


def application() -> web.Application:
    """Make the service."""
    app = web.Application()
    app[REGISTRY] = CollectorRegistry()
    app.add_routes(routes)
    app.cleanup_ctx.append(session)
    return app


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9100
    web.run_app(application(), host="127.0.0.1", port=port, access_log=None)
