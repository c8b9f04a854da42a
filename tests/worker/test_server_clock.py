"""The clock of the NATS server, by the time in its answers."""

import asyncio
import time
from datetime import UTC, datetime

import pytest

from luma_async.worker.server.server_clock import ServerClock

pytestmark = pytest.mark.virtual_time

UNIX_TIME = 1_764_000_000.0


class Server:
    """A server whose clock is ahead of the event loop's by `offset` seconds."""

    def __init__(self) -> None:
        self.clock = ServerClock()
        self.offset = UNIX_TIME

    async def ask(self, there: float, back: float) -> bool:
        """Ask for the time: the request takes `there` seconds, its answer `back`."""
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        await asyncio.sleep(there)
        moment = datetime.fromtimestamp(self.offset + loop.time(), UTC)
        await asyncio.sleep(back)
        return self.clock.add(moment, sent_at)

    @property
    def error(self) -> float:
        """By how many seconds the clock is ahead of the server's."""
        return self.clock.now() - self.offset - asyncio.get_running_loop().time()


async def test_without_an_answer_the_time_is_that_of_this_machine() -> None:
    clock = ServerClock()
    assert not clock.add(None, 0.0)
    assert not clock.is_known
    before = time.time()
    assert before <= clock.now() <= time.time()


async def test_an_answer_was_made_halfway_between_its_request_and_its_arrival() -> None:
    server = Server()
    assert not await server.ask(0.5, 0.1)
    assert server.clock.is_known
    assert server.error == pytest.approx(0.2, abs=1e-5)
    await asyncio.sleep(100.0)
    assert server.error == pytest.approx(0.2, abs=1e-5)


async def test_the_answer_with_the_shortest_round_trip_counts() -> None:
    server = Server()
    for there, back, error in ((0.0, 0.4, -0.2), (0.1, 0.0, 0.05), (0.3, 0.0, 0.05)):
        assert not await server.ask(there, back)
        assert server.error == pytest.approx(error, abs=1e-5)


async def test_the_last_eight_answers_count() -> None:
    server = Server()
    await server.ask(0.0, 0.1)
    for _ in range(7):
        await server.ask(0.2, 0.0)
        assert server.error == pytest.approx(-0.05, abs=1e-5)
    await server.ask(0.2, 0.0)
    assert server.error == pytest.approx(0.1, abs=1e-5)


@pytest.mark.parametrize(
    ("step", "round_trip", "was_set"),
    [
        (0.019, 0.0, False),
        (0.021, 0.0, True),
        (-0.019, 0.0, False),
        (-0.021, 0.0, True),
        (0.119, 0.2, False),
        (0.121, 0.2, True),
        (-3600.0, 0.2, True),
    ],
)
async def test_a_clock_that_was_set_is_known_by_an_answer_that_cannot_be_late(
    step: float, round_trip: float, was_set: bool
) -> None:
    """Half of the round trip and 20 ms may be an error; then the answers before do not count."""
    server = Server()
    await server.ask(0.0, 0.0)
    server.offset += step
    assert await server.ask(round_trip / 2, round_trip / 2) is was_set
    assert server.error == pytest.approx(0.0 if was_set else -step, abs=1e-5)


async def test_the_errors_of_both_answers_are_added() -> None:
    server = Server()
    await server.ask(0.1, 0.1)
    server.offset += 0.219
    assert not await server.ask(0.1, 0.1)
    server.offset += 0.002
    assert await server.ask(0.1, 0.1)


async def test_times_of_the_server_are_converted_to_the_loop_and_back() -> None:
    server = Server()
    await server.ask(0.0, 0.0)
    await asyncio.sleep(7.0)
    assert server.clock.to_loop_time(UNIX_TIME + 30.0) == pytest.approx(30.0, abs=1e-5)
    assert server.clock.to_unix_time(30.0) == pytest.approx(UNIX_TIME + 30.0, abs=1e-5)
