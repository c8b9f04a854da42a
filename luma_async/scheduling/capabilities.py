"""Batch size: how many ids one request may carry, learned from what the two endpoints do."""

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from math import inf

from msgspec import Struct
from msgspec.structs import replace

from luma_async.structs import State

REGROW_EVERY = 600.0  # seconds
FIRST_PROBE_DELAY = 60.0  # seconds
MAX_PROBE_DELAY = 3600.0  # seconds
EQUAL_ROW_COUNTS = 2  # short responses in a row with as many rows, which show a cap on rows
MIN_PROOFS_OF_CAP = 3
MIN_PROOFS_OF_FILTER = 10
RESPONSES_OF_FILTER = 3


class Capabilities(Struct, frozen=True):
    """The number of ids that a request may carry: `limit` at most, 1 until `no_batch_until`.

    After a request was too large, or a response had fewer rows than ids, fewer ids are sent; every
    `REGROW_EVERY` seconds twice as many are tried, up to `limit`.

    The relay counts as having no batch endpoint after two batches in a row got 404, 405 or 501. If
    other ids are open, the two must have no id in common: a firewall may reject one certain id
    (`no_route_ids`: the ids of the first one). Single requests are sent for
    `probe_delay` seconds, then the batch endpoint is tried again: a proxy may have answered for the
    relay. Each probe delay is twice the one before, `MAX_PROBE_DELAY` at most, until a batch is
    answered. `no_single_until` is the same for the single endpoint.
    """

    limit: int
    shrunk_to: float = inf
    shrunk_at: float = -inf
    no_route_ids: frozenset[str] = frozenset()
    no_batch_until: float = -inf
    no_single_until: float = -inf
    probe_delay: float = FIRST_PROBE_DELAY

    def max_ids(self, now: float) -> int:
        """Return how many ids a request sent at `now` may carry."""
        return 1 if now < self.no_batch_until else self.batch_limit(now)

    def batch_limit(self, now: float) -> int:
        """Return how many ids a batch request sent at `now` may carry."""
        if self.shrunk_to >= self.limit:
            return self.limit
        regrown = self.shrunk_to * 2.0 ** min((now - self.shrunk_at) // REGROW_EVERY, 32)
        return int(min(self.limit, regrown))

    def has_batch(self, now: float) -> bool:
        """Return whether the relay has a batch endpoint, as far as is known."""
        return now >= self.no_batch_until

    def has_single(self, now: float) -> bool:
        """Return whether the relay has a single endpoint, as far as is known."""
        return now >= self.no_single_until

    def reduced_to(self, ids: int, now: float) -> "Capabilities":
        """Return the batch size after `ids` ids proved to be the most that pass."""
        return replace(self, shrunk_to=min(self.batch_limit(now), ids), shrunk_at=now)

    def halved(self, ids: int, now: float) -> "Capabilities":
        """Return the batch size after a request with `ids` ids was too large."""
        return self.reduced_to((ids + 1) // 2, now)

    def after_no_route(
        self, ids: Collection[str], now: float, *, has_others: bool
    ) -> "Capabilities":
        """Return the batch size after a batch was answered as though there were no endpoint.

        `has_others`: ids are open that are not among its `ids`.
        """
        rejected, known = self.no_route_ids, self.probe_delay > FIRST_PROBE_DELAY
        if known or (rejected and (not has_others or rejected.isdisjoint(ids))):
            return self.without_batch(now)
        return replace(self, no_route_ids=frozenset(ids))

    def without_batch(self, now: float) -> "Capabilities":
        """Return the batch size after the relay had no batch endpoint at `now`."""
        if now < self.no_batch_until:
            return self
        longer = min(2.0 * self.probe_delay, MAX_PROBE_DELAY)
        return replace(
            self,
            no_batch_until=now + self.probe_delay,
            probe_delay=longer,
            no_route_ids=frozenset(),
        )

    def without_single(self, now: float) -> "Capabilities":
        """Return the batch size after the relay had no single endpoint at `now`.

        If it had no batch endpoint either, a proxy answered, and both may exist.
        """
        if now < self.no_batch_until:
            return replace(self, no_batch_until=-inf, probe_delay=FIRST_PROBE_DELAY)
        return replace(self, no_single_until=now + MAX_PROBE_DELAY)

    def confirmed(self) -> "Capabilities":
        """Return the batch size after a batch was answered."""
        if self.probe_delay > FIRST_PROBE_DELAY or self.no_route_ids:
            return replace(self, probe_delay=FIRST_PROBE_DELAY, no_route_ids=frozenset())
        return self


def is_filtered(asked: int, states: Mapping[str, State]) -> bool:
    """Return whether a batch response may have left out all tasks that are still running."""
    return len(states) < asked and all(state.is_done for state in states.values())


class RowCoverage:
    """Learn from batch responses that leave out ids which the single endpoint knows.

    Two kinds of relays do: one that caps its rows (responses have the same number of rows again and
    again, never more), and one that filters them (no response has a task that is still running).
    An id that is left out now and then, by a stale replica, proves neither.
    """

    __slots__ = ("_max_rows", "_proofs", "_row_counts", "_without_running")

    def __init__(self) -> None:
        self._max_rows = 0
        self._row_counts: deque[int] = deque(maxlen=EQUAL_ROW_COUNTS)
        self._proofs: dict[str, None] = {}
        self._without_running = 0

    def record(self, asked: int, states: Mapping[str, State]) -> None:
        """Record the rows of a batch response, which asked about `asked` ids."""
        rows = len(states)
        self._max_rows = max(self._max_rows, rows)
        if rows < asked:
            self._row_counts.append(rows)
        filtered = is_filtered(asked, states)
        self._without_running = self._without_running + 1 if filtered else 0

    def record_none(self) -> None:
        """Record that the single endpoint answered none, too: batches are no worse than it."""
        self._without_running = 0

    def prove(self, ids: Iterable[str]) -> int | None:
        """Count ids that batches left out and the single endpoint knows, each once.

        Return the batch size that follows, 0 if batches are of no use; None while nothing does.
        """
        self._proofs |= dict.fromkeys(ids)
        while len(self._proofs) > MIN_PROOFS_OF_FILTER:
            del self._proofs[next(iter(self._proofs))]
        capped = self._row_counts.count(self._max_rows) == EQUAL_ROW_COUNTS
        filtered = self._without_running >= RESPONSES_OF_FILTER
        if capped and self._max_rows and len(self._proofs) >= MIN_PROOFS_OF_CAP:
            self._proofs.clear()
            return self._max_rows
        if filtered and len(self._proofs) >= MIN_PROOFS_OF_FILTER:
            self._proofs.clear()
            return 0
        return None
