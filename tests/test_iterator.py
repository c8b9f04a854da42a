"""The iterator of `as_completed` and `watch`: how it is left, and what follows its end."""

import asyncio
import gc
import os

import pytest

from luma_async import LumaSession, WaitTimeout
from luma_async.testing import FakeRelay

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def callbacks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list of what is scheduled from outside of the loop from now on."""
    seen: list[object] = []

    def record(loop: asyncio.BaseEventLoop, callback: object, *_: object, **__: object) -> None:
        seen.append(callback)

    gc.collect()
    monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", record)
    return seen


async def test_a_reader_that_was_left_before_it_was_read_has_no_news_even_without_a_session(
    relay: FakeRelay,
) -> None:
    async with LumaSession(relay.url, api_key=relay.api_key) as luma:
        reader = luma.as_completed([relay.add()])
        await reader.aclose()
    assert [task async for task in reader] == []
    assert relay.requests == 0


async def test_an_iteration_is_over_after_its_error(relay: FakeRelay, luma: LumaSession) -> None:
    ids = [relay.add(), relay.add(ends="never")]
    reader = luma.as_completed(ids, timeout=20.0)
    with pytest.raises(WaitTimeout):
        async for _ in reader:
            continue
    assert [task async for task in reader] == []


async def test_a_reader_that_is_dropped_is_stopped_and_one_that_is_over_needs_nothing(
    relay: FakeRelay, luma: LumaSession, callbacks: list[object]
) -> None:
    over, dropped = luma.as_completed([relay.add()]), luma.as_completed([relay.add(ends="never")])
    async for _ in over:
        continue
    del over
    gc.collect()
    assert callbacks == []
    del dropped
    gc.collect()
    assert len(callbacks) == 1


async def test_a_reader_that_is_dropped_in_a_forked_process_does_not_wake_the_loop_of_its_parent(
    relay: FakeRelay,
    luma: LumaSession,
    callbacks: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = luma.as_completed([relay.add(ends="never")])
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    del reader
    gc.collect()
    assert callbacks == []
