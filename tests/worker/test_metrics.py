"""The metrics of a worker and its health check, without a server."""

from aiohttp.test_utils import TestClient, TestServer

from luma_async import LumaSession
from luma_async.polling.stats import Stats
from luma_async.worker import EndState, Work, Worker
from luma_async.worker.metrics import Metrics
from tests.worker.local_queue import LocalQueue

WORK = Work(
    ends={
        EndState.COMPLETED: 11,
        EndState.FAILED: 12,
        EndState.MISSING: 13,
        EndState.GAVE_UP: 0,
    },
    taken=14,
    redelivered=15,
    handed_back=16,
    held=17,
    capacity=18,
    oldest=19.5,
    untold=20,
    peers=21,
    connected=True,
)
STATS = Stats(
    requests=31, ids_asked=32, errors=33, throttled=34, open=35, in_flight=36, quiet_for=37.5
)
SAMPLES = {
    'luma_ends_total{state="completed"}': 11,
    'luma_ends_total{state="failed"}': 12,
    'luma_ends_total{state="missing"}': 13,
    'luma_ends_total{state="gave_up"}': 0,
    "luma_taken_total": 14,
    "luma_redelivered_total": 15,
    "luma_handed_back_total": 16,
    "luma_held": 17,
    "luma_capacity": 18,
    "luma_oldest_seconds": 19.5,
    "luma_untold": 20,
    "luma_peers": 21,
    "luma_connected": 1,
    "luma_requests_total": 31,
    "luma_ids_asked_total": 32,
    "luma_errors_total": 33,
    "luma_throttled_total": 34,
    "luma_open": 35,
    "luma_in_flight": 36,
    "luma_quiet_seconds": 37.5,
}
BUCKETS = ["0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "30.0", "60.0", "300.0", "+Inf"]


class ReportedWorker(Worker):
    """A worker with a given snapshot, which never runs."""

    healthy = True

    def __init__(self) -> None:
        super().__init__(LumaSession("http://127.0.0.1:1", api_key="sk-test"), LocalQueue())

    @property
    def work(self) -> Work:
        return WORK

    @property
    def is_well(self) -> bool:
        return self.healthy


def samples(text: bytes) -> dict[str, float]:
    """Return the value of each sample, without the times at which histograms were made."""
    lines = [line for line in text.decode().splitlines() if not line.startswith("#")]
    pairs = [line.rsplit(" ", 1) for line in lines]
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: float(value) for name, value in pairs if not name.endswith("_created")}


def lags(of: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in of.items() if name.startswith("luma_lag_seconds")}


async def test_each_field_of_the_work_and_of_the_statistics_is_a_metric() -> None:
    metrics = Metrics()
    assert samples(metrics.text()).keys() == lags(samples(metrics.text())).keys()
    metrics.observe(ReportedWorker(), lambda: STATS)
    found = samples(metrics.text())
    assert {name: found[name] for name in found.keys() - lags(found).keys()} == SAMPLES


def test_the_lag_of_each_result_is_counted_if_it_is_known() -> None:
    metrics = Metrics()
    for state, lag in zip(EndState, (0.1, 59.0, None, 301.0), strict=True):
        metrics.count_result(state, lag)
    counts = [1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3]
    assert lags(samples(metrics.text())) == {
        f'luma_lag_seconds_bucket{{le="{bucket}"}}': count
        for bucket, count in zip(BUCKETS, counts, strict=True)
    } | {"luma_lag_seconds_count": 3, "luma_lag_seconds_sum": 360.1}


async def test_two_workers_in_one_process_have_metrics_of_their_own() -> None:
    first, second = Metrics(), Metrics()
    first.count_result(EndState.COMPLETED, 1.0)
    assert lags(samples(second.text()))["luma_lag_seconds_count"] == 0


async def test_the_health_check_fails_before_the_start_and_without_a_server() -> None:
    metrics, worker = Metrics(), ReportedWorker()
    async with TestClient(TestServer(metrics.application())) as http:

        async def health() -> tuple[int, str]:
            async with http.get("/healthz") as response:
                return response.status, await response.text()

        assert await health() == (503, "the worker has not started\n")
        metrics.observe(worker, lambda: STATS)
        assert await health() == (200, "ok\n")
        worker.healthy = False
        reason = "the NATS server is not reachable, or does not store results"
        assert await health() == (503, f"{reason}\n")
        async with http.get("/metrics") as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith("text/plain; version=")
            assert samples(await response.read()).items() >= SAMPLES.items()
