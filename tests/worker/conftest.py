"""A real nats-server for all tests here, and a pool of its own for each."""

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from luma_async import Every, Limits, LumaSession
from luma_async.testing import FakeRelay
from luma_async.worker import Queue
from luma_async.worker import consumer as pull
from luma_async.worker import publisher as answers
from luma_async.worker import result_reader as tail
from luma_async.worker import worker as polling
from luma_async.worker.embedded_server import EmbeddedServer
from tests.worker.worker_processes import Crew


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no worker linger over a request for ids: each test stops some."""
    monkeypatch.setattr(pull, "FETCH_EXPIRES", 0.1)
    monkeypatch.setattr(answers, "FIRST_RETRY_DELAY", 0.02)
    monkeypatch.setattr(polling, "RETRY_DELAY", 0.02)
    monkeypatch.setattr(tail, "RETRY_DELAY", 0.05)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a server."""
    embedded = EmbeddedServer(tmp_path_factory.mktemp("nats"))
    yield embedded.join()
    embedded.leave()


@pytest.fixture
def pool() -> str:
    """Return a name that nobody else has."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
async def queue(server: str, pool: str) -> AsyncIterator[Queue]:
    """Yield a queue of a pool that nobody else uses."""
    async with Queue(server, pool=pool) as queue:
        yield queue


@pytest.fixture
async def crew(server: str, pool: str, relay: FakeRelay) -> AsyncIterator[Crew]:
    """Yield what hires workers for the pool, each with a session and a connection of its own."""
    async with AsyncExitStack() as stack:

        async def hire(key: str | None = None, **options: Any) -> Any:
            luma = LumaSession(
                relay.url,
                api_key=key or relay.api_key,
                pace=Every(0.05),
                limits=Limits(max_rate=500),
                missing_grace=options.pop("missing_grace", 0.2),
            )
            return (
                await stack.enter_async_context(luma),
                await stack.enter_async_context(Queue(server, pool=pool)),
            )

        yield Crew(hire, stack)
