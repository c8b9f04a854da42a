"""A relay in a thread of its own, for what runs a loop itself: the command line."""

from collections.abc import Callable
from typing import Any, TypeVar

from luma_async.testing import FakeRelay, ThreadedRelay

T = TypeVar("T")


class Served(ThreadedRelay):
    """A relay that runs elsewhere; `do` does something with it there."""

    @property
    def relay(self) -> FakeRelay:
        return self

    def do(self, act: Callable[[], T]) -> T:
        return self.call(act)


def served(**options: Any) -> Served:
    """Return a relay to enter by `with`, which runs until the end of the block."""
    return Served(**options)
