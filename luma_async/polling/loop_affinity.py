"""Where a session may be used: in the process, thread and event loop in which it was opened."""

import asyncio
import os
import threading


class LoopAffinity:
    """The process, thread and event loop in which this object was made."""

    __slots__ = ("_loop", "_process", "_thread")

    def __init__(self) -> None:
        self._process = os.getpid()
        self._thread = threading.get_ident()
        self._loop = asyncio.get_running_loop()

    def check(self) -> None:
        """Raise RuntimeError in another process, thread or loop."""
        if os.getpid() != self._process:
            raise RuntimeError("the session was opened before a fork; open one in each process")
        if threading.get_ident() != self._thread:
            raise RuntimeError(
                "the session lives in another thread; hand the call to its loop by "
                "asyncio.run_coroutine_threadsafe"
            )
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("the session belongs to another event loop; open one in each loop")
