"""What all tests share: the choice of clock, a relay with a session, aioresponses mended."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any
from unittest.mock import Mock

import aioresponses.core
import pytest
from aiohttp import ClientResponse
from aioresponses import aioresponses as Aioresponses  # noqa: N812

from luma_async import LumaSession
from luma_async.testing import FakeRelay, loop_factories


def pytest_asyncio_loop_factories(
    config: pytest.Config,
    item: pytest.Item,
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return loop_factories(item)


class MendedResponse(ClientResponse):
    """A response that aioresponses 0.7.9 can build on aiohttp 3.14 (its issue 289)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, stream_writer=Mock(output_size=0), **kwargs)


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aioresponses]:
    """Yield aioresponses, mended: every request of aiohttp's client is answered by it."""
    monkeypatch.setattr(aioresponses.core, "ClientResponse", MendedResponse)
    with Aioresponses() as mock:
        yield mock


@pytest.fixture
async def relay() -> AsyncIterator[FakeRelay]:
    """Yield a relay that runs in the test's own loop."""
    async with FakeRelay() as relay:
        yield relay


@pytest.fixture
async def luma(relay: FakeRelay) -> AsyncIterator[LumaSession]:
    """Yield a session with the relay, every argument at its default."""
    async with LumaSession(relay.url, api_key=relay.api_key) as luma:
        yield luma
