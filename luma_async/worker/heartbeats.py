"""Heartbeats: a worker extends its leases, and announces its load to the others."""

import asyncio

from luma_async.worker.balance import ANNOUNCE_EVERY, Balancer, Peers
from luma_async.worker.leases import Leases
from luma_async.worker.queue import Queue

CHECK_EVERY = 0.25  # seconds


class Heartbeats:
    """Extends all leases three times per lease period; announces the load each second."""

    def __init__(self, queue: Queue, leases: Leases, peers: Peers, balancer: Balancer) -> None:
        self._queue = queue
        self._leases = leases
        self._peers = peers
        self._balancer = balancer

    async def run(self, lease: float) -> None:
        """Send heartbeats until cancelled; `lease` is the duration of a lease in seconds."""
        # Leases are extended after a third of the shortest lease, so that a lost heartbeat ends no
        # lease, and after a reconnect. An id whose lease has ended is delivered again. If to this
        # worker, the lease continues (see Leases.accept); if to another one, both poll the id, and
        # the second result is not stored.
        loop = asyncio.get_running_loop()
        announced_at = self._leases.extended_at = loop.time()
        was_connected = True
        while True:
            self._leases.period = self._peers.shortest_lease(lease)
            period = self._leases.period / 3
            await asyncio.sleep(min(CHECK_EVERY, period / 4))
            now, is_connected = loop.time(), self._queue.client.is_connected
            is_due = now - self._leases.extended_at >= period
            if is_connected and (is_due or not was_connected):
                await self._leases.extend_all()
            if now - announced_at >= ANNOUNCE_EVERY:
                announced_at = now
                await self._balancer.announce(lease)
            was_connected = is_connected
