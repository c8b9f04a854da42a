"""Where a session may be used; with real threads, loops and processes in test_misuse.py."""

import asyncio
import os

import pytest

from luma_async.polling.loop_affinity import LoopAffinity

pytestmark = pytest.mark.virtual_time


async def test_a_session_may_be_used_in_the_loop_that_opened_it() -> None:
    affinity = LoopAffinity()
    affinity.check()
    await asyncio.sleep(1.0)
    affinity.check()


async def test_a_session_that_was_opened_before_a_fork_is_refused_in_the_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    affinity, child = LoopAffinity(), os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    with pytest.raises(RuntimeError, match="opened before a fork; open one in each process$"):
        affinity.check()
