"""VirtualTimeLoop: timers, deadlines, threads, loopback, and loops in which nothing happens."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from luma_async.testing import VirtualTimeLoop, loop_factories, run_virtual, virtual_time


async def _now() -> float:
    return asyncio.get_running_loop().time()


def test_a_sleep_of_an_hour_takes_a_moment_and_is_exact() -> None:
    began = time.perf_counter()

    async def sleep_an_hour() -> float:
        await asyncio.sleep(3600)
        return await _now()

    assert run_virtual(sleep_an_hour()) == 3600.0
    assert time.perf_counter() - began < 5.0


@pytest.mark.parametrize("start", [0.0, -5.0, 1_000.25, 1_734_874_720.5, 1e12])
def test_timers_fire_at_any_start_time(start: float) -> None:
    async def sleep() -> float:
        await asyncio.sleep(0.25)
        return await _now()

    assert run_virtual(sleep(), start=start) == pytest.approx(start + 0.25, abs=1e-3)


@pytest.mark.parametrize("start", [float("nan"), float("inf")])
def test_a_start_that_is_not_finite_is_refused(start: float) -> None:
    with pytest.raises(ValueError, match=r"finite number of seconds$"):
        VirtualTimeLoop(start)


def test_timers_fire_in_order_of_their_time() -> None:
    async def order() -> list[float]:
        fired: list[float] = []

        async def note(after: float) -> None:
            await asyncio.sleep(after)
            fired.append(await _now())

        await asyncio.gather(*map(note, (3.0, 1.0, 100_000.0, 2.0)))
        return fired

    assert run_virtual(order()) == [1.0, 2.0, 3.0, 100_000.0]


def test_a_deadline_is_exact() -> None:
    async def wait() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1800):
                await asyncio.Event().wait()
        return await _now()

    assert run_virtual(wait()) == 1800.0


def test_the_clock_does_not_jump_while_a_thread_works() -> None:
    async def work() -> float:
        async with asyncio.timeout(60):
            await asyncio.to_thread(time.sleep, 0.02)
        return await _now()

    assert run_virtual(work()) == 0.0


def test_the_clock_jumps_again_after_a_job_is_cancelled() -> None:
    async def work() -> float:
        job = asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.02)
        job.cancel()
        await asyncio.sleep(3600)
        return await _now()

    assert run_virtual(work()) == 3600.0


def test_a_loop_in_which_nothing_happens_is_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(virtual_time, "_STUCK_TIMEOUT", 0.01)
    with pytest.raises(RuntimeError, match=r"use a loop with real time$"):
        run_virtual(asyncio.Event().wait())


def test_bytes_on_loopback_arrive_before_the_clock_jumps() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async def ask() -> float:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(200):
            writer.write(b"x" * 1000 + b"\n")
            async with asyncio.timeout(0.001):
                await reader.readline()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return await _now()

    assert run_virtual(ask()) == 0.0


@pytest.mark.virtual_time
async def test_a_test_with_the_marker_has_virtual_time() -> None:
    assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)


async def test_a_test_without_the_marker_has_real_time() -> None:
    assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)


@pytest.mark.parametrize(("marker", "name"), [(None, "asyncio"), (object(), "virtual")])
def test_each_test_has_one_loop_factory(marker: object, name: str) -> None:
    item = SimpleNamespace(get_closest_marker={"virtual_time": marker}.get)
    assert list(loop_factories(cast("Any", item))) == [name]
