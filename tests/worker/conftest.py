"""One nats-server for all tests of this package, and a pool for each test."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from luma_async import Every, Limits, LumaSession
from luma_async.testing import FakeRelay
from luma_async.worker import (
    Queue,
    heartbeats,
    leases,
    publisher,
    worker,
)
from luma_async.worker.server import consumer
from luma_async.worker.storage import result_reader
from tests.worker.nats_server import NatsServer
from tests.worker.worker_processes import WorkerPool


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten requests and delays, so that workers stop quickly."""
    monkeypatch.setattr(consumer, "FETCH_EXPIRES", 0.1)
    monkeypatch.setattr(heartbeats, "CHECK_EVERY", 0.02)
    monkeypatch.setattr(leases, "ACK_RETRY_DELAY", 0.02)
    monkeypatch.setattr(publisher, "FIRST_RETRY_DELAY", 0.02)
    monkeypatch.setattr(worker, "RETRY_DELAY", 0.02)
    monkeypatch.setattr(result_reader, "RETRY_DELAY", 0.05)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a server without authorization."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server.url


@pytest.fixture
def pool() -> str:
    """Return a pool name that no other test uses."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
async def queue(server: str, pool: str) -> AsyncIterator[Queue]:
    """Yield the queue of the test's pool."""
    async with Queue(server, pool=pool) as queue:
        yield queue


@pytest.fixture
async def workers(server: str, pool: str, relay: FakeRelay) -> AsyncIterator[WorkerPool]:
    """Yield a WorkerPool whose workers have a session and a connection each."""
    async with AsyncExitStack() as stack:

        async def connect(key: str | None = None, *, missing_grace: float) -> Any:
            luma = LumaSession(
                relay.url,
                api_key=key or relay.api_key,
                pace=Every(0.05),
                limits=Limits(max_rate=500),
                missing_grace=missing_grace,
            )
            return (
                await stack.enter_async_context(luma),
                await stack.enter_async_context(Queue(server, pool=pool)),
            )

        yield WorkerPool(connect, stack)
