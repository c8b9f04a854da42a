"""Tests of a service of your own, with a relay on loopback, without a key or a network.

pytest docs/examples/test_my_service.py

The fixtures luma_relay and luma_session come with luma_async, as a plugin of pytest. With
pytest-asyncio in auto mode the marks are not needed.
"""

import asyncio
from dataclasses import dataclass, field

import pytest

from luma_async import GenerationsMissing, LumaSession, WaitTimeout
from luma_async.testing import FakeRelay, Reply, run_virtual


@dataclass
class Shop:
    """The service that is tested: it delivers videos, and pays back what failed."""

    luma: LumaSession
    patience: float = 600.0
    delivered: dict[str, str] = field(default_factory=dict[str, str])
    refunded: dict[str, str] = field(default_factory=dict[str, str])

    async def serve(self, task_id: str) -> None:
        """Wait for a video, and deliver it or pay it back."""
        try:
            generation = await self.luma.wait_until_done(task_id, timeout=self.patience)
        except WaitTimeout:
            self.refunded[task_id] = "took too long"
        except GenerationsMissing:
            self.refunded[task_id] = "got lost"
        else:
            if generation.url:
                self.delivered[task_id] = generation.url
            else:
                self.refunded[task_id] = generation.failure_reason or "no reason given"


@pytest.mark.asyncio
async def test_a_video_is_delivered(luma_relay: FakeRelay, luma_session: LumaSession) -> None:
    shop = Shop(luma_session)
    task_id = luma_relay.add(queued=0.05, duration=0.1)
    await shop.serve(task_id)
    assert shop.delivered[task_id].endswith(f"{task_id}.mp4")


@pytest.mark.asyncio
async def test_a_failed_video_is_paid_back_with_the_reason(
    luma_relay: FakeRelay, luma_session: LumaSession
) -> None:
    shop = Shop(luma_session)
    task_id = luma_relay.add(ends="failed", failure_reason="moderated")
    await shop.serve(task_id)
    assert shop.refunded == {task_id: "moderated"}


@pytest.mark.asyncio
async def test_a_bad_moment_of_the_relay_costs_no_video(
    luma_relay: FakeRelay, luma_session: LumaSession
) -> None:
    shop = Shop(luma_session)
    task_id = luma_relay.add()
    luma_relay.reply(Reply(status=502), Reply(breakage="reset"))
    await shop.serve(task_id)
    assert [asked.status for asked in luma_relay.log] == [502, None, 200]
    assert task_id in shop.delivered


@pytest.mark.asyncio
async def test_a_hundred_customers_share_their_requests(
    luma_relay: FakeRelay, luma_session: LumaSession
) -> None:
    shop = Shop(luma_session)
    ids = [luma_relay.add(duration=0.1) for _ in range(100)]
    await asyncio.gather(*(shop.serve(task_id) for task_id in ids))
    assert shop.delivered.keys() == set(ids)
    assert luma_relay.requests < 50


def test_who_waits_for_ten_minutes_is_paid_back_and_the_test_takes_a_moment() -> None:
    """The clock of run_virtual jumps to the next timer instead of sleeping."""

    async def ten_minutes() -> None:
        async with FakeRelay() as relay, LumaSession(relay.url, api_key=relay.api_key) as luma:
            shop = Shop(luma)
            task_id = relay.add(ends="never")
            await shop.serve(task_id)
            assert shop.refunded == {task_id: "took too long"}
            assert asyncio.get_running_loop().time() == pytest.approx(600.0)

    run_virtual(ten_minutes())


def test_a_video_that_the_relay_lost_is_paid_back() -> None:
    async def half_a_minute() -> None:
        async with FakeRelay() as relay, LumaSession(relay.url, api_key=relay.api_key) as luma:
            shop = Shop(luma)
            await shop.serve("nobody knows this id")
            assert shop.refunded == {"nobody knows this id": "got lost"}

    run_virtual(half_a_minute())
