"""The result and the error of a wait for many ids: complete, in order, and in turns of the loop."""

from collections.abc import Awaitable, Generator
from typing import Any

import pytest

from luma_async import State, WaitTimeout
from luma_async.polling.chunks import CHUNK_SIZE
from luma_async.polling.wait_errors import done_in_order, incomplete, summary
from luma_async.protocol.rows import RowText
from luma_async.structs import Generation, Image
from tests.fake_answers import generation

pytestmark = pytest.mark.virtual_time


class Turns:
    """An awaitable that counts the turns of the loop it takes."""

    def __init__(self, inner: Awaitable[Any]) -> None:
        self.count = 0
        self.result: Any = None
        self._inner = inner

    def __await__(self) -> Generator[Any, None, None]:
        steps = self._inner.__await__()
        while True:
            try:
                waited_for = next(steps)
            except StopIteration as stop:
                self.result = stop.value
                return
            self.count += 1
            yield waited_for


def names(count: int) -> list[str]:
    return [f"id {number}" for number in range(count)]


@pytest.mark.parametrize(
    ("count", "turns"),
    [(3, 0), (CHUNK_SIZE, 0), (CHUNK_SIZE + 1, 1), (3 * CHUNK_SIZE - 1, 2), (3 * CHUNK_SIZE, 3)],
)
async def test_the_results_are_in_the_order_of_the_ids_and_many_take_several_turns(
    count: int, turns: int
) -> None:
    ids = names(count)
    ended = {i: None if i == ids[1] else generation(i) for i in reversed(ids) if i != ids[2]}
    collected = Turns(done_in_order(dict.fromkeys(ids), ended))
    await collected
    assert list(collected.result) == [ids[0], *ids[3:]]
    assert collected.result[ids[0]] == generation(ids[0])
    assert collected.count == turns


async def test_an_error_has_each_id_once_and_is_built_in_several_turns() -> None:
    ids = names(3 * CHUNK_SIZE)
    ended: dict[str, Generation | None] = {
        one: generation(one) if number % 3 else None for number, one in enumerate(ids) if number % 7
    }
    seen = generation(ids[7], State.PROCESSING)
    rows = dict.fromkeys(ids) | {ids[7]: RowText(ids[7], b"", seen)}
    cause = ZeroDivisionError("a cause")
    built = Turns(incomplete(WaitTimeout, "not all ended", cause, rows, ended))
    await built
    error: WaitTimeout = built.result
    assert list(error.done) == [one for one in ids if ended.get(one)]
    assert error.pending == {one: seen if one == ids[7] else None for one in ids[::7]}
    assert list(error.pending) == ids[::7]
    assert error.missing == tuple(one for one in ids if one in ended and ended[one] is None)
    assert error.__cause__ is cause
    assert built.count > 6


def test_a_task_in_an_error_has_its_id_state_link_and_reason_alone() -> None:
    task = Generation(
        id="a",
        state=State.FAILED,
        result_url="https://cdn.example/a.mp4",
        failure_reason="no",
        thumbnail=Image(url="https://cdn.example/a.png"),
    )
    short = summary(task)
    assert (short.id, short.state, short.url, short.failure_reason) == (
        task.id, task.state, task.url, "no",
    )  # fmt: skip
    assert short.thumbnail is None
