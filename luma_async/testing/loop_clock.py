"""The event loop of a FakeRelay: its clock, and the check that it can still answer."""

import asyncio

_OTHER_LOOP = (
    "this FakeRelay was started in another event loop, which does not run now, so no request would "
    "be answered; start it in the loop of the test (with pytest-asyncio: give test and fixture the "
    "same loop scope), or use luma_async.testing.ThreadedRelay"
)


class LoopClock:
    """The clock of the loop in which a relay was started, or of the running loop before that."""

    __slots__ = ("_is_started", "_loop")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_started = False

    def start(self) -> None:
        """Use the running loop from now on."""
        self._loop = asyncio.get_running_loop()
        self._is_started = True

    def stop(self) -> None:
        """Keep the clock, but no longer check from which loop it is used."""
        self._is_started = False

    def now(self) -> float:
        """Return the time of the loop in seconds; raise RuntimeError if there is none."""
        try:
            return (self._loop or asyncio.get_running_loop()).time()
        except RuntimeError:
            raise RuntimeError("no event loop runs, so no clock: call from a coroutine") from None

    def check(self) -> None:
        """Raise RuntimeError in a coroutine of another loop while the loop of the relay rests."""
        if not self._is_started or self._loop is None or self._loop.is_running():
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return  # between two runs of its loop
        raise RuntimeError(_OTHER_LOOP)
