"""The pytest plugin: two fixtures and a marker. Tests that do not use them are not affected.

It works with pytest-asyncio in both modes, and with the plugin of anyio without pytest-asyncio.
"""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

try:
    from pytest_asyncio import fixture
except ImportError:
    fixture = pytest.fixture  # type: ignore[assignment]

if TYPE_CHECKING:
    from luma_async import LumaSession
    from luma_async.testing.relay import FakeRelay

_MARKER = (
    "virtual_time: run on an event loop whose clock is a number"
    " (luma_async.testing.VirtualTimeLoop)"
)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker `virtual_time`, which `luma_async.testing.loop_factories` uses."""
    config.addinivalue_line("markers", _MARKER)


@fixture
async def luma_relay() -> "AsyncIterator[FakeRelay]":
    """Yield a started `FakeRelay` on 127.0.0.1; it is closed after the test."""
    from luma_async.testing.relay import FakeRelay

    async with FakeRelay() as relay:
        yield relay


@fixture
async def luma_session(luma_relay: "FakeRelay") -> "AsyncIterator[LumaSession]":
    """Yield a `LumaSession` that polls the tasks of `luma_relay` every 20 ms."""
    from luma_async import Every, Limits, LumaSession

    limits = Limits(max_batch=100, max_in_flight=4, max_rate=1000.0)
    async with LumaSession(
        luma_relay.url, api_key=luma_relay.api_key, pace=Every(0.02), limits=limits
    ) as session:
        yield session
