"""Slots: times at which a session may send a request, reserved from a budget that others share.

The poller says when it wants to send (`next_at`), the budget reserves and adds slots. A slot is
used within `MAX_LATENESS` after its time, or never: a process that was frozen holds no slot when it
continues. Clocks of several machines differ a little, and their requests take ways of different
length: SHARED_SECOND leaves 0.05 seconds for both. Pure: times are those of the event loop's clock,
given as arguments.
"""

from collections import deque
from collections.abc import Callable, Iterable
from math import inf

SHARED_SECOND = 1.07  # seconds as which a second counts, like SPACING_SECOND of one session
MAX_LATENESS = 0.02  # seconds after its time in which a slot may be used
MIN_QUIET_GAIN = 0.5  # seconds by which a shared quiet time must be longer to be shared again


def _ignore(*_: object) -> None:
    return None


class Slots:
    """The reserved slots of one session, and what it wants.

    `wanted_at` is when the next request is to be sent; inf if none is. `held` is the number of its
    open ids. `is_backlogged` is set while requests wait for slots. `quiet_until` is the end of the
    longest quiet time that is shared.

    `on_wanted` is called when a slot is wanted, `on_reserved` when one was added; `on_quiet` shares
    a quiet time with the other sessions, `on_shared_quiet` is called with one of theirs, and now.
    """

    def __init__(self) -> None:
        self.wanted_at: float = inf
        self.held: int = 0
        self.is_backlogged: bool = False
        self.quiet_until: float = -inf
        self.on_wanted: Callable[[], None] = _ignore
        self.on_reserved: Callable[[], None] = _ignore
        self.on_quiet: Callable[[float], None] = _ignore
        self.on_shared_quiet: Callable[[float, float], None] = _ignore
        self._reserved: deque[float] = deque()

    def __len__(self) -> int:
        return len(self._reserved)

    def next_at(self, wanted_at: float, now: float, held: int) -> float:
        """Return when a request that is wanted at `wanted_at` may be sent; inf without a slot."""
        self.drop_missed(now)
        self.held = held
        if wanted_at != self.wanted_at:
            self.wanted_at = wanted_at
            self.on_wanted()
        for slot in self._reserved:
            if wanted_at <= slot + MAX_LATENESS:
                return max(slot, wanted_at)
        return inf

    def take(self, now: float) -> None:
        """Use the slot of a request that is sent now."""
        self.is_backlogged = now - self.wanted_at > MAX_LATENESS
        self.drop_missed(now)
        if self._reserved:
            self._reserved.popleft()
        self.wanted_at = inf
        self.on_wanted()

    def add(self, slots: Iterable[float]) -> None:
        """Add reserved slots, each later than those before."""
        self._reserved.extend(slots)
        self.on_reserved()

    def drop_missed(self, now: float) -> None:
        """Drop the slots that can no longer be used."""
        while self._reserved and self._reserved[0] + MAX_LATENESS < now:
            self._reserved.popleft()

    def share_quiet(self, until: float) -> None:
        """Share a quiet time with the other sessions, if it is longer than the shared one."""
        if until > self.quiet_until + MIN_QUIET_GAIN:
            self.quiet_until = until
            self.on_quiet(until)

    def receive_quiet(self, until: float, now: float) -> None:
        """Receive a quiet time that another session shares."""
        if until > max(now, self.quiet_until + MIN_QUIET_GAIN):
            self.quiet_until = until
            self.on_shared_quiet(until, now)
