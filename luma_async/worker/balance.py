"""Rebalancing: how many ids each worker of a pool takes from the queue, and returns to it.

Each worker announces its load to the others: how many ids it holds, and its capacity. The fair
share of a worker is the share of its capacity in the total capacity, of all ids that are held or
waiting. A worker that holds somewhat more takes no new ids. One that holds much more returns the
surplus to the queue, and the server delivers it to workers that take ids. There always is one: not
all workers can hold more than their fair share. The band between "somewhat" and "much" exists
because the announcements are a moment old; without it, ids would move back and forth.

An announcement is a plain message. If one is lost, the balance suffers for a moment, no id does.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Iterable, Sized
from contextlib import suppress
from math import inf
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from luma_async.errors import QueueError
from luma_async.worker.queue import Queue
from luma_async.worker.server.invalid_messages import InvalidMessages
from luma_async.worker.server.streams import NATS_ERRORS

SURPLUS_FACTOR = 1.25
MIN_SURPLUS = 256  # ids
ANNOUNCE_EVERY = 1.0  # seconds
MIN_LEASE, MAX_LEASE = 0.5, 86_400.0  # seconds
MAX_IDS = 1_000_000_000  # that a worker may announce
MAX_NAME_LENGTH = 64  # characters of a worker's name
MAX_HOST_LENGTH = 255  # characters
MAX_PEERS = 1000  # whose announcements are kept
PEER_TIMEOUT = 3.5  # seconds without an announcement after which a worker counts as gone


class Load(Struct, frozen=True):
    """How many ids one worker holds, and how many it can hold."""

    held: int
    capacity: int


class Rebalance(Struct, frozen=True):
    """What a worker does next: take up to `take` ids, or return `release` ids to the queue."""

    take: int = 0
    release: int = 0


def plan(own: Load, others: Iterable[Load], *, waiting: int, max_take: int) -> Rebalance:
    """Return what a worker with the load `own` does next.

    `waiting` is the number of ids in the queue that no worker holds, `max_take` the number of ids
    that one request may take.
    """
    # fair  = capacity · (ids waiting + ids held by all) / (capacity of all)
    # limit = SURPLUS_FACTOR · fair + MIN_SURPLUS
    #
    #   held > limit          release held - fair
    #   no other worker       take up to the capacity
    #   otherwise             take up to (fair + limit) / 2, and not more than the capacity
    loads = [own, *others]
    total = waiting + sum(load.held for load in loads)
    fair = own.capacity * total / sum(load.capacity for load in loads)
    limit = SURPLUS_FACTOR * fair + MIN_SURPLUS
    if own.held > limit:
        return Rebalance(release=own.held - int(fair))
    room = own.capacity - own.held
    if len(loads) > 1:
        room = min(room, int((fair + limit) / 2) - own.held)
    return Rebalance(take=max(0, min(max_take, room)))


Count = Annotated[int, Meta(ge=0, le=MAX_IDS)]


class Announcement(Struct, frozen=True):
    """What a worker announces. A capacity of 0 announces that it is gone.

    `host` and `pid` say where it runs; workers of version 0.1.0 do not announce them.
    """

    worker: Annotated[str, Meta(max_length=MAX_NAME_LENGTH)]
    held: Count
    capacity: Count
    lease: Annotated[float, Meta(ge=0.0, le=MAX_LEASE)]
    host: Annotated[str, Meta(max_length=MAX_HOST_LENGTH)] = ""
    pid: Count = 0


_announcement_decoder = msgspec.json.Decoder(Announcement)


class Peers:
    """The other workers of the pool, by their recent announcements."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._name = secrets.token_hex(8)
        self._host = socket.gethostname()[:MAX_HOST_LENGTH]
        self._received: dict[str, tuple[float, Announcement]] = {}
        self._invalid = InvalidMessages("the announcement of a worker")
        self._subscription: Subscription | None = None

    async def listen(self) -> None:
        """Subscribe to the announcements of the others."""
        self._subscription = await self._queue.client.subscribe(  # pyright: ignore[reportUnknownMemberType]
            self._queue.names.peers, cb=self._on_announcement
        )

    async def leave(self) -> None:
        """Announce that this worker is gone, and unsubscribe."""
        await self.announce(Load(0, 0), 0.0)
        with suppress(*NATS_ERRORS):
            if self._subscription is not None:
                await self._subscription.unsubscribe()

    async def announce(self, load: Load, lease: float) -> None:
        """Announce the load of this worker, and the duration of its leases in seconds."""
        announcement = Announcement(
            self._name, load.held, load.capacity, lease, self._host, os.getpid()
        )
        with suppress(*NATS_ERRORS, QueueError):
            if self._queue.is_connected:
                payload = msgspec.json.encode(announcement)
                await self._queue.client.publish(self._queue.names.peers, payload)

    @property
    def loads(self) -> list[Load]:
        """The load of each of the others."""
        return [Load(peer.held, peer.capacity) for peer in self.present()]

    def shortest_lease(self, own: float) -> float:
        """Return the shortest lease of all workers in seconds; `own` is that of this worker."""
        return min([own, *(max(MIN_LEASE, peer.lease) for peer in self.present())])

    def present(self) -> list[Announcement]:
        """Return the recent announcement of each of the others."""
        oldest = asyncio.get_running_loop().time() - PEER_TIMEOUT
        self._received = {name: one for name, one in self._received.items() if one[0] >= oldest}
        return [announcement for _, announcement in self._received.values()]

    async def _on_announcement(self, message: Msg) -> None:
        try:
            peer = _announcement_decoder.decode(message.data)
        except (ValueError, RecursionError) as error:
            self._invalid.log(message.subject, error)
            return
        if peer.worker == self._name:
            return
        self._received.pop(peer.worker, None)
        if peer.capacity > 0 and len(self._received) < MAX_PEERS:
            self._received[peer.worker] = (asyncio.get_running_loop().time(), peer)


class Balancer:
    """Plans how many ids this worker takes and releases, from its leases and its peers.

    `waiting` is the number of ids in the queue that no worker holds, as of the last fetch.
    """

    def __init__(self, peers: Peers, leases: Sized, capacity: int) -> None:
        self._peers = peers
        self._leases = leases
        self._capacity = capacity
        self._surplus_since = inf
        self.waiting: int = 0

    async def announce(self, lease: float) -> None:
        """Announce the load of this worker, and the duration of its leases in seconds."""
        await self._peers.announce(self._load(), lease)

    def plan(self, max_take: int) -> Rebalance:
        """Return what this worker does next. It takes up to `max_take` ids."""
        peers, waiting = self._peers.loads, self.waiting
        rebalance = plan(self._load(), peers, waiting=waiting, max_take=max_take)
        if not rebalance.release:
            self._surplus_since = inf
        if not rebalance.take:
            self.waiting = 0  # the number is out of date when nothing is fetched
        return rebalance

    def has_lasting_surplus(self) -> bool:
        """Return whether there has been a surplus for two announcement periods.

        A shorter one may be an error: the announcements of the others are a moment old.
        """
        now = asyncio.get_running_loop().time()
        self._surplus_since = min(self._surplus_since, now)
        return now - self._surplus_since >= 2 * ANNOUNCE_EVERY

    def _load(self) -> Load:
        return Load(len(self._leases), self._capacity)
