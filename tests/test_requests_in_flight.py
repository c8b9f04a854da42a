"""Requests that hang: after how many seconds a batch is given up, and sent again."""

import asyncio
from collections.abc import Sequence
from contextvars import copy_context
from itertools import pairwise
from typing import Any

import pytest

from luma_async import Every, Limits
from luma_async.polling.interfaces import Watcher
from luma_async.polling.poller import Poller
from luma_async.polling.requests_in_flight import RequestsInFlight
from luma_async.polling.wait import Notify, Wait
from luma_async.scheduling.batches import Batch
from luma_async.scheduling.changes import Grace, PollAnswer
from luma_async.scheduling.items import Group, Item, Transition
from luma_async.structs import State
from tests.fake_answers import FakeAnswer
from tests.in_memory_relays import ScriptedRelay

pytestmark = pytest.mark.virtual_time


class HangingRelay(ScriptedRelay):
    """Answers after `latency` seconds, or never while `hangs`; records what is given up, and when.

    Ids that begin with "good" are answered all the same.
    """

    def __init__(self, latency: float) -> None:
        super().__init__(lambda _: State.PROCESSING, latency)
        self.hangs = False
        self.given_up: list[float] = []
        self.begun: list[float] = []

    async def _ask(self, ids: Sequence[str]) -> FakeAnswer:
        began = asyncio.get_running_loop().time()
        try:
            if self.hangs and not all(one.startswith("good") for one in ids):
                self.begun.append(began)
                await asyncio.sleep(10_000.0)
            return await super()._ask(ids)
        except asyncio.CancelledError:
            self.given_up.append(round(asyncio.get_running_loop().time() - began, 3))
            raise


async def seconds_until_given_up(
    relay: HangingRelay,
    *ids: str,
    answered_for: float = 0.0,
    hangs_for: float = 30.0,
    request_timeout: float = 60.0,
) -> list[float]:
    """Wait for ids at a relay that answers first, and then hangs; return what is given up when."""
    poller = Poller(
        relay, Every(1.0), Limits(), Grace(), request_timeout=request_timeout, roll=lambda: 0.5
    )
    one = Wait(poller, relay, ids, None, Notify.NOTHING)
    relay.hangs = not answered_for
    await one.start()
    await asyncio.sleep(answered_for)
    relay.hangs = True
    await asyncio.sleep(hangs_for)
    given_up = list(relay.given_up)
    one.stop()
    await poller.close()
    return given_up


async def test_before_any_answer_a_batch_is_given_up_after_ten_seconds() -> None:
    assert (await seconds_until_given_up(HangingRelay(0.1), "a", "b"))[:1] == [10.0]


async def test_before_any_answer_a_request_for_one_id_is_not_given_up_early() -> None:
    assert await seconds_until_given_up(HangingRelay(0.1), "a", hangs_for=55.0) == []


@pytest.mark.parametrize(("request_timeout", "given_up"), [(10.1, [10.0]), (10.0, [])])
async def test_no_request_is_given_up_early_where_its_own_timeout_is_as_short(
    request_timeout: float, given_up: list[float]
) -> None:
    relay = HangingRelay(0.1)
    found = await seconds_until_given_up(relay, "a", "b", request_timeout=request_timeout)
    assert found[:1] == given_up


@pytest.mark.parametrize(("latency", "seconds"), [(0.1, 5.0), (0.5, 5.0), (0.8, 8.0), (2.0, 20.0)])
async def test_a_batch_is_given_up_after_ten_times_the_slowest_round_trip(
    latency: float, seconds: float
) -> None:
    relay = HangingRelay(latency)
    assert (await seconds_until_given_up(relay, "a", "b", answered_for=9.0))[:1] == [seconds]


@pytest.mark.parametrize(("answered_for", "seconds"), [(4.0, 28.5), (18.0, 13.9), (80.0, 5.0)])
async def test_a_slow_round_trip_is_forgotten_after_quick_ones(
    answered_for: float, seconds: float
) -> None:
    relay = HangingRelay(3.0)

    async def becomes_quick() -> None:
        await asyncio.sleep(2.0)
        relay.latency = 0.1

    quick = asyncio.create_task(becomes_quick())
    given_up = await seconds_until_given_up(relay, "a", "b", answered_for=answered_for)
    assert given_up[:1] == [pytest.approx(seconds, abs=0.01)]
    await quick


async def test_each_time_a_batch_is_given_up_after_twice_as_long() -> None:
    relay = HangingRelay(0.1)
    given_up = await seconds_until_given_up(relay, "a", "b", answered_for=3.0, hangs_for=200.0)
    assert given_up[:3] == [5.0, 10.0, 20.0]


async def test_while_others_are_answered_it_is_twice_as_long_every_other_time() -> None:
    relay = HangingRelay(0.1)
    good = [f"good-{number}" for number in range(100)]
    given_up = await seconds_until_given_up(
        relay, "a", "b", *good, answered_for=3.0, hangs_for=300.0
    )
    assert given_up[:4] == [5.0, 10.0, 10.0, 20.0]
    pauses = [begun - last for last, begun in pairwise(relay.begun)]
    assert pauses[0] >= 5.0 + 0.25
    assert pauses[1] >= 10.0 + 0.5


Outcome = PollAnswer | BaseException | None


class Sent:
    """Requests in flight, and their outcomes with their times."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.requests = RequestsInFlight(self.loop, copy_context(), 60.0, self._record)
        self.outcomes: list[tuple[float, Outcome]] = []

    def _record(self, batch: Batch[Watcher], outcome: Outcome) -> None:
        self.outcomes.append((self.loop.time(), outcome))

    def send(self, *ids: str, late: float, is_stubborn: bool = False) -> Batch[Watcher]:
        """Send a request that is answered late; a stubborn one goes on after a cancellation."""

        async def request() -> PollAnswer:
            try:
                await asyncio.sleep(late)
            except asyncio.CancelledError:
                if not is_stubborn:
                    raise
                await asyncio.sleep(late)
            return FakeAnswer({})

        items = [Item[Watcher](task_id, 0.0, 0.0) for task_id in ids]
        group = Group(items, 0.0)
        group.apply(Transition.SUBSCRIBE)
        batch = Batch([group], 0.0)
        self.requests.send(batch, request())
        return batch


async def test_no_timer_is_left_of_a_request_that_is_answered_or_cancelled() -> None:
    sent = Sent()
    sent.send("a", "b", late=1.0)
    cancelled = sent.send("c", "d", late=1.0)
    sent.requests.cancel(cancelled)
    await sent.requests.wait_idle()
    await asyncio.sleep(0)
    loop: Any = sent.loop
    assert [one for one in loop._scheduled if not one.cancelled()] == []
    assert [type(outcome) for _, outcome in sent.outcomes] == [asyncio.CancelledError, FakeAnswer]


async def test_requests_that_are_dropped_are_cancelled_and_have_no_outcome() -> None:
    sent = Sent()
    sent.send("a", "b", late=30.0)
    sent.send("c", late=30.0)
    await asyncio.sleep(1.0)
    begun = sent.loop.time()
    sent.requests.drop_all()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sent.outcomes == [(begun, None)] * 2


async def test_a_request_that_is_dropped_and_does_not_end_is_not_given_up_again() -> None:
    sent, faults = Sent(), list[object]()
    sent.loop.set_exception_handler(lambda _, context: faults.append(context))
    sent.send("a", "b", late=20.0, is_stubborn=True)
    await asyncio.sleep(1.0)
    sent.requests.drop_all()
    await asyncio.sleep(30.0)
    assert [outcome for _, outcome in sent.outcomes] == [None]
    assert faults == []
