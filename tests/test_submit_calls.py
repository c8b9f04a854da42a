"""generate: for how long it waits."""

import asyncio

import pytest

from luma_async import Every, LumaSession, WaitTimeout
from luma_async.testing import FakeRelay

pytestmark = pytest.mark.virtual_time


async def test_generate_waits_for_half_an_hour_unless_a_timeout_is_given() -> None:
    async with (
        FakeRelay(durations=(9000, 9000)) as relay,
        LumaSession(relay.url, api_key=relay.api_key, pace=Every(300.0)) as luma,
    ):
        begun = asyncio.get_running_loop().time()
        with pytest.raises(WaitTimeout, match="not all ended in 1800 s"):
            await luma.generate("a cat")
        assert asyncio.get_running_loop().time() - begun == pytest.approx(1800.0, abs=1.0)
