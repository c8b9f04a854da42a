"""What workers know of each other, and when they return a surplus: without a server."""

import asyncio

import pytest

from luma_async.worker.balance import (
    ANNOUNCE_EVERY,
    MAX_PEERS,
    PEER_TIMEOUT,
    Balancer,
    Load,
    Peers,
)
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
    await asyncio.sleep(PEER_TIMEOUT)
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
    others = [Peers(LocalQueue(client)) for _ in range(MAX_PEERS + 3)]
    for other in others:
        await other.announce(LOAD, 60.0)
    assert len(listener.loads) == MAX_PEERS
    await others[0].announce(Load(9, 100), 60.0)
    assert listener.loads.count(Load(9, 100)) == 1
    assert len(listener.loads) == MAX_PEERS


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
    await asyncio.sleep(2 * ANNOUNCE_EVERY - 0.1)
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
    await asyncio.sleep(2 * ANNOUNCE_EVERY)
    leases += [0] * 10_000
    assert balancer.plan(256).release
    assert not balancer.has_lasting_surplus()


async def test_ids_that_wait_count_only_while_ids_are_fetched() -> None:
    """Else a worker that is full would count ids that others have taken since, for ever."""
    balancer, _, _ = await surplus(12_000)
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
