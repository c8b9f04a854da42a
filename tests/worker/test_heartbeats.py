"""When a worker extends its leases and announces its load: in virtual time, without a server."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from nats.aio.msg import Msg

from luma_async.worker.balance import Balancer, Load, Peers
from luma_async.worker.heartbeats import Heartbeats
from luma_async.worker.leases import Leases
from tests.worker.local_queue import LocalClient, LocalQueue, delivery

pytestmark = pytest.mark.virtual_time


class RecordingClient(LocalClient):
    """Records at which time each message is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[float, bytes]] = []

    async def publish(self, subject: str, payload: bytes) -> None:
        self.sent.append((asyncio.get_running_loop().time(), payload))
        await super().publish(subject, payload)

    def extended_at(self) -> list[float]:
        return [at for at, payload in self.sent if payload == Msg.Ack.Progress]

    def announced(self) -> list[tuple[float, float]]:
        """Return when a load was announced, and the lease in it."""
        others = [(at, payload) for at, payload in self.sent if payload != Msg.Ack.Progress]
        return [(at, json.loads(payload)["lease"]) for at, payload in others]


class Sender:
    """A worker with one id, and the task that sends its heartbeats."""

    def __init__(self) -> None:
        self.client = RecordingClient()
        queue = LocalQueue(self.client)
        self.leases = Leases(queue, 86_400.0)
        self.peers = Peers(queue)
        balancer = Balancer(self.peers, self.leases, 100)
        self.heartbeats = Heartbeats(queue, self.leases, self.peers, balancer)
        self.task: asyncio.Task[None] | None = None

    async def start(self, lease: float) -> None:
        await self.peers.listen()
        await self.leases.accept([delivery("a", 1)])
        self.task = asyncio.create_task(self.heartbeats.run(lease))
        await asyncio.sleep(0)


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    """Yield a Sender; end its task."""
    sender = Sender()
    yield sender
    if sender.task is not None:
        sender.task.cancel()
        await asyncio.wait([sender.task])


async def test_leases_are_extended_three_times_in_a_lease_period(sender: Sender) -> None:
    await sender.start(60.0)
    assert sender.leases.period == 60.0
    await asyncio.sleep(65.0)
    assert sender.client.extended_at() == pytest.approx([20.0, 40.0, 60.0], abs=0.1)


async def test_a_short_lease_is_extended_in_time(sender: Sender) -> None:
    """It is checked four times in a third of the period, however short that is."""
    await sender.start(0.03)
    await asyncio.sleep(0.1)
    times = [0.0, *sender.client.extended_at()]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(gaps) >= 7
    assert min(gaps) >= 0.0099
    assert max(gaps) <= 0.0126


async def test_all_leases_of_a_pool_are_extended_for_the_shortest_of_them(sender: Sender) -> None:
    """The server applies the lease that was set last to all workers."""
    await sender.start(60.0)
    await Peers(LocalQueue(sender.client)).announce(Load(1, 100), 6.0)
    await asyncio.sleep(2.1)
    assert sender.leases.period == 6.0
    assert sender.client.extended_at() == pytest.approx([2.0], abs=0.1)


async def test_the_load_is_announced_each_second_with_the_lease_that_the_worker_has_set(
    sender: Sender,
) -> None:
    await sender.start(45.0)
    await asyncio.sleep(4.5)
    times, leases = zip(*sender.client.announced(), strict=True)
    assert list(times) == pytest.approx([1.0, 2.0, 3.0, 4.0], abs=0.1)
    assert set(leases) == {45.0}


async def test_leases_are_extended_at_once_after_a_reconnect_and_not_before(
    sender: Sender,
) -> None:
    await sender.start(60.0)
    await asyncio.sleep(5.0)
    sender.client.is_connected = False
    await asyncio.sleep(30.0)
    assert sender.client.extended_at() == []
    assert sender.leases.extended_at == 0.0, "the leases are not certain"
    sender.client.is_connected = True
    await asyncio.sleep(19.0)
    assert sender.client.extended_at() == pytest.approx([35.0], abs=0.1)


async def test_after_a_short_interruption_leases_are_extended_before_they_are_due(
    sender: Sender,
) -> None:
    await sender.start(60.0)
    await asyncio.sleep(5.0)
    sender.client.is_connected = False
    await asyncio.sleep(1.0)
    sender.client.is_connected = True
    await asyncio.sleep(10.0)
    assert sender.client.extended_at() == pytest.approx([6.0], abs=0.1)
