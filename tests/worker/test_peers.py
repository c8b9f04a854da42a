"""What workers know of each other, and when they return a surplus: without a server."""

import asyncio
import json
import logging
import os
import socket

import pytest

from luma_async.worker.balance import Balancer, Load, Peers
from tests.worker.local_queue import LocalClient, LocalQueue

pytestmark = pytest.mark.virtual_time

LOAD = Load(5, 100)


async def pool(count: int) -> list[Peers]:
    """Return workers that listen to each other."""
    client = LocalClient()
    workers = [Peers(LocalQueue(client)) for _ in range(count)]
    for worker in workers:
        await worker.listen()
    return workers


async def test_a_worker_knows_the_load_of_each_other_one_and_not_its_own() -> None:
    first, second, third = await pool(3)
    await first.announce(LOAD, 60.0)
    await second.announce(Load(7, 10), 60.0)
    await second.announce(Load(8, 10), 60.0)
    assert first.loads == [Load(8, 10)]
    assert second.loads == [LOAD]
    assert third.loads == [LOAD, Load(8, 10)]


async def test_a_worker_that_announces_nothing_counts_as_gone() -> None:
    first, second = await pool(2)
    await first.announce(LOAD, 60.0)
    await asyncio.sleep(3.5)
    assert second.loads == [LOAD]
    await asyncio.sleep(0.1)
    assert second.loads == []


async def test_a_worker_that_leaves_is_gone_at_once_and_hears_nothing_more() -> None:
    first, second = await pool(2)
    await first.announce(LOAD, 60.0)
    await first.leave()
    assert second.loads == []
    await second.announce(LOAD, 60.0)
    assert first.loads == []


async def test_the_shortest_lease_of_all_counts_but_none_below_half_a_second() -> None:
    first, second, third = await pool(3)
    assert first.shortest_lease(60.0) == 60.0
    await second.announce(LOAD, 20.0)
    assert first.shortest_lease(60.0) == 20.0
    await third.announce(LOAD, 0.0)
    assert first.shortest_lease(60.0) == 0.5
    assert first.shortest_lease(0.1) == 0.1


async def test_the_number_of_workers_that_are_kept_is_limited_and_known_ones_are_updated() -> None:
    client = LocalClient()
    listener = Peers(LocalQueue(client))
    await listener.listen()
    others = [Peers(LocalQueue(client)) for _ in range(1_003)]
    for other in others:
        await other.announce(LOAD, 60.0)
    assert len(listener.loads) == 1_000
    await others[0].announce(Load(9, 100), 60.0)
    assert listener.loads.count(Load(9, 100)) == 1
    assert len(listener.loads) == 1_000


async def listener_of(announcement: dict[str, object]) -> Peers:
    """Return a worker that received an announcement as another program writes it."""
    client = LocalClient()
    peers = Peers(LocalQueue(client))
    await peers.listen()
    await client.publish("luma.workers", json.dumps(announcement).encode())
    return peers


@pytest.mark.parametrize(
    ("changed", "is_kept"),
    [
        ({}, True),
        ({"held": 0, "capacity": 1, "lease": 0, "pid": 0, "host": ""}, True),
        ({"held": 1_000_000_000, "capacity": 1_000_000_000, "pid": 1_000_000_000}, True),
        ({"worker": "w" * 64, "host": "h" * 255, "lease": 86_400}, True),
        ({"held": 1_000_000_001}, False),
        ({"capacity": 1_000_000_001}, False),
        ({"pid": 1_000_000_001}, False),
        ({"held": -1}, False),
        ({"capacity": -1}, False),
        ({"pid": -1}, False),
        ({"lease": -0.1}, False),
        ({"lease": 86_400.1}, False),
        ({"worker": "w" * 65}, False),
        ({"host": "h" * 256}, False),
    ],
)
async def test_an_announcement_beyond_its_limits_is_dropped_with_a_warning(
    changed: dict[str, object], is_kept: bool, caplog: pytest.LogCaptureFixture
) -> None:
    announcement = {"worker": "w", "held": 1, "capacity": 2, "lease": 60, "host": "h", "pid": 3}
    changed = announcement | changed
    peers = await listener_of(changed)
    assert [one.worker for one in peers.present()] == ([changed["worker"]] if is_kept else [])
    levels = [level for _, level, text in caplog.record_tuples if "luma.workers" in text]
    assert levels == ([] if is_kept else [logging.WARNING])


async def test_a_worker_of_the_first_version_announces_no_host_and_no_process() -> None:
    peers = await listener_of({"worker": "w", "held": 1, "capacity": 2, "lease": 60})
    (one,) = peers.present()
    assert (one.host, one.pid) == ("", 0)


async def test_a_worker_announces_its_name_host_and_process() -> None:
    first, second, third = await pool(3)
    await first.announce(LOAD, 60.0)
    await second.announce(LOAD, 60.0)
    one, other = third.present()
    assert (one.host, one.pid) == (socket.gethostname(), os.getpid())
    assert len({one.worker, other.worker}) == 2


class DisconnectedQueue(LocalQueue):
    @property
    def is_connected(self) -> bool:
        return False


async def test_nothing_is_announced_while_the_server_is_not_reachable() -> None:
    """It would be sent after the reconnect, when it is out of date."""
    client = LocalClient()
    worker = Peers(DisconnectedQueue(client))
    await worker.announce(LOAD, 60.0)
    assert client.replies == []


async def test_a_worker_that_never_listened_can_leave() -> None:
    client = LocalClient()
    listener, worker = Peers(LocalQueue(client)), Peers(LocalQueue(client))
    await listener.listen()
    await worker.announce(LOAD, 60.0)
    await worker.leave()
    assert listener.loads == []
    last = json.loads(client.replies[-1][1])
    assert (last["held"], last["capacity"], last["lease"]) == (0, 0, 0.0)


async def surplus(held: int = 10_000) -> tuple[Balancer, list[int], Peers]:
    """Return the balancer of a worker with all ids, its leases, and a worker with none."""
    own, other = await pool(2)
    await other.announce(Load(0, 100_000), 60.0)
    leases = [0] * held
    return Balancer(own, leases, 100_000), leases, other


async def test_a_surplus_is_returned_after_two_announcements_of_the_others() -> None:
    balancer, _, _ = await surplus()
    assert balancer.plan(256).release == 5_000
    assert not balancer.has_lasting_surplus()
    await asyncio.sleep(1.9)
    assert balancer.plan(256).release
    assert not balancer.has_lasting_surplus()
    await asyncio.sleep(0.1)
    assert balancer.has_lasting_surplus()


async def test_a_surplus_that_was_gone_in_between_begins_again() -> None:
    balancer, leases, _ = await surplus()
    balancer.plan(256)
    assert not balancer.has_lasting_surplus()
    leases.clear()
    assert not balancer.plan(256).release
    await asyncio.sleep(2.0)
    leases += [0] * 10_000
    assert balancer.plan(256).release
    assert not balancer.has_lasting_surplus()


async def test_ids_that_wait_count_only_while_ids_are_fetched() -> None:
    """Else a worker that is full would count ids that others have taken since, for ever."""
    balancer, _, _ = await surplus(12_000)
    assert balancer.waiting == 0
    balancer.waiting = 8_000
    assert not balancer.plan(256).take
    assert balancer.waiting == 0
    balancer, _, _ = await surplus(100)
    balancer.waiting = 8_000
    assert balancer.plan(256).take == 256
    assert balancer.waiting == 8_000


async def test_a_worker_announces_what_it_holds() -> None:
    first, second = await pool(2)
    await Balancer(first, ["a", "b"], 100).announce(60.0)
    (announcement,) = second.present()
    assert (announcement.held, announcement.capacity, announcement.lease) == (2, 100, 60.0)
