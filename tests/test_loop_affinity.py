"""Where a session may be used; with real threads, loops and processes in test_misuse.py."""

import asyncio
import os

import pytest

from luma_async.polling.loop_affinity import LoopAffinity

pytestmark = pytest.mark.virtual_time


async def test_a_session_is_at_home_where_it_was_opened() -> None:
    home = LoopAffinity()
    home.check()
    await asyncio.sleep(1.0)
    home.check()


async def test_after_a_fork_each_process_is_to_open_a_session_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home, child = LoopAffinity(), os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    with pytest.raises(RuntimeError, match="opened before a fork; open one in each process$"):
        home.check()
