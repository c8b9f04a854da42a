"""ThreadedRelay: a relay that answers while the loop of the test is blocked."""

import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from luma_async import LumaSession
from luma_async.testing import Reply, ThreadedRelay


def fetch(relay: ThreadedRelay, task_id: str) -> bytes:
    headers = {"Authorization": f"Bearer {relay.api_key}"}
    request = urllib.request.Request(f"{relay.url}/luma/generations/{task_id}", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return bytes(response.read())


async def test_a_request_that_blocks_the_loop_is_answered() -> None:
    with ThreadedRelay() as relay:
        assert b"completed" in fetch(relay, relay.add("a"))
        relay.reply(Reply(body=b"scripted"))
        assert fetch(relay, "a") == b"scripted"
        assert [asked.ids for asked in relay.log] == [("a",), ("a",)]
        assert relay.busiest_second() == 2


async def test_a_session_in_another_loop_waits_for_its_tasks() -> None:
    with ThreadedRelay() as relay:
        async with LumaSession(relay.url, api_key=relay.api_key) as luma:
            assert (await luma.wait_until_done(relay.add(), timeout=10)).url


def test_methods_run_in_the_thread_of_the_relay() -> None:
    with ThreadedRelay() as relay:
        thread = relay.call(threading.current_thread)
        assert thread is not threading.current_thread()
        assert relay.call(lambda: relay.call(threading.current_thread)) is thread
        with ThreadPoolExecutor(8) as threads:
            ids = list(threads.map(relay.add, map(str, range(100))))
        assert len(set(ids)) == len(relay.tasks) == 100
        with pytest.raises(ValueError, match="exists already"):
            relay.add(ids[0])
    thread.join(10)
    assert not thread.is_alive()


async def test_a_relay_that_does_not_run_says_how_to_start_it() -> None:
    relay = ThreadedRelay()
    with pytest.raises(RuntimeError, match="start it by `with` first"):
        relay.add()
    with pytest.raises(RuntimeError, match="start it by `with`"):
        await relay.start()
    with relay:
        with pytest.raises(RuntimeError, match="started already"):
            relay.__enter__()
        with pytest.raises(RuntimeError, match="leave that"):
            await relay.close()
    with relay:
        assert relay.requests == 0


def test_a_port_in_use_leaves_no_thread() -> None:
    with ThreadedRelay() as relay:
        before = threading.active_count()
        with pytest.raises(OSError, match="in use"):
            ThreadedRelay(port=int(relay.url.rpartition(":")[2])).__enter__()
        assert threading.active_count() == before
