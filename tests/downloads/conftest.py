"""The server of videos that the tests of downloads share."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from luma_async.downloads import transfer
from tests.downloads.video_store import VideoStore


@pytest.fixture
async def store(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[VideoStore]:
    failures = request.session.testsfailed
    monkeypatch.setattr(transfer, "FIRST_RETRY_DELAY", 0.001)
    store = VideoStore()
    runner = web.ServerRunner(web.Server(store.handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    store.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield store
    await runner.cleanup()
    if request.session.testsfailed == failures:
        store.assert_all_used()
