"""The deadlines of waits: each at its own time, with one timer for each timeout."""

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pytest

from luma_async.polling.deadlines import Deadlines

pytestmark = pytest.mark.virtual_time


class Wait:
    """Records when it expired."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.expired_at: list[float] = []
        self._then = then

    def expire(self) -> None:
        self.expired_at.append(asyncio.get_running_loop().time())
        self._then()


def new_deadlines() -> Deadlines:
    return Deadlines(asyncio.get_running_loop(), copy_context())


async def test_each_wait_expires_once_at_its_own_deadline() -> None:
    loop, deadlines = asyncio.get_running_loop(), new_deadlines()
    waits, due = [Wait() for _ in range(6)], list[float]()
    for wait, timeout in zip(waits, (10.0, 3.0, 10.0, 3.0, 0.5, 10.0), strict=True):
        due.append(deadlines.add(wait, timeout))
        await asyncio.sleep(1.0)
    await asyncio.sleep(30.0)
    assert due == pytest.approx([loop.time() - 36.0 + at for at in (10, 4, 12, 6, 4.5, 15)])
    assert [wait.expired_at for wait in waits] == [[pytest.approx(one)] for one in due]


async def test_a_wait_that_was_removed_does_not_expire_and_those_after_it_do() -> None:
    deadlines = new_deadlines()
    first, second, third = waits = [Wait(), Wait(), Wait()]
    for wait in waits:
        deadlines.add(wait, 5.0)
        await asyncio.sleep(1.0)
    deadlines.remove(first, 5.0)
    deadlines.remove(first, 5.0)
    await asyncio.sleep(3.5)
    deadlines.remove(third, 5.0)
    await asyncio.sleep(10.0)
    assert [len(wait.expired_at) for wait in waits] == [0, 1, 0]
    assert not second.expired_at[0] % 1.0


async def test_a_wait_may_remove_another_or_begin_a_new_one_while_it_expires() -> None:
    deadlines = new_deadlines()
    removed, again = Wait(), Wait()

    def expired() -> None:
        deadlines.remove(removed, 5.0)
        deadlines.add(again, 5.0)

    first = Wait(expired)
    deadlines.add(first, 5.0)
    deadlines.add(removed, 5.0)
    await asyncio.sleep(11.0)
    assert [len(wait.expired_at) for wait in (first, removed, again)] == [1, 0, 1]


async def test_a_thousand_waits_with_one_timeout_have_one_timer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop, timers = asyncio.get_running_loop(), list[asyncio.TimerHandle]()
    call_at = loop.call_at

    def counted(*args: object, **options: object) -> asyncio.TimerHandle:
        timers.append(call_at(*args, **options))  # type: ignore[arg-type]
        return timers[-1]

    monkeypatch.setattr(loop, "call_at", counted)
    deadlines, waits = new_deadlines(), [Wait() for _ in range(1000)]
    for wait in waits:
        deadlines.add(wait, 1800.0)
    assert len(timers) == 1
    for wait in waits:
        deadlines.remove(wait, 1800.0)
    assert timers[0].cancelled()


async def test_nothing_is_kept_of_a_timeout_that_no_wait_has_any_more() -> None:
    deadlines, expired = new_deadlines(), Wait()
    for number in range(100):
        wait, timeout = Wait(), 100.0 + number
        deadlines.add(wait, timeout)
        deadlines.remove(wait, timeout)
    deadlines.add(expired, 5.0)
    await asyncio.sleep(6.0)
    assert len(expired.expired_at) == 1
    assert not deadlines._waits  # pyright: ignore[reportPrivateUsage]
    assert not deadlines._timers  # pyright: ignore[reportPrivateUsage]


async def test_after_a_blocked_loop_all_waits_that_are_due_expire_at_once() -> None:
    loop: Any = asyncio.get_running_loop()
    deadlines, waits = new_deadlines(), [Wait(), Wait(), Wait()]
    for wait in waits:
        deadlines.add(wait, 5.0)
        await asyncio.sleep(1.0)
    loop._jumping.now += 20.0
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [len(wait.expired_at) for wait in waits] == [1, 1, 1]


async def test_a_wait_that_raises_keeps_no_other_from_its_end() -> None:
    deadlines = new_deadlines()

    def broken() -> None:
        raise ZeroDivisionError

    first, second, later = Wait(broken), Wait(), Wait()
    deadlines.add(first, 5.0)
    deadlines.add(second, 5.0)
    reported = list[dict[str, object]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    await asyncio.sleep(6.0)
    deadlines.add(later, 5.0)
    await asyncio.sleep(6.0)
    assert [len(wait.expired_at) for wait in (first, second, later)] == [1, 1, 1]
    assert len(reported) == 1
