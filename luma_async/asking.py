"""One look, now: the direct calls, which share the gate with the polls but not their rounds."""

from collections.abc import Sequence
from functools import partial

import anyio

from luma_async.errors import LumaError, NotFoundError
from luma_async.structs import Generation
from luma_async.verdicts import Verdict, judge
from luma_async.waiting import Poller, Relay


async def look_at_one(poller: Poller, relay: Relay, task_id: str) -> Generation:
    """Ask about one task by the single GET; NotFoundError if the relay does not know it."""
    told = await poller.turnstile.direct(partial(relay.get, task_id), 1, many=False)
    if task_id not in told.states:
        raise NotFoundError(200, None, f"the relay does not know {task_id}")
    return told.generation(task_id)


async def look_at_many(
    poller: Poller, relay: Relay, ids: Sequence[str], found: dict[str, Generation]
) -> None:
    """Ask about many tasks by batch POSTs of `poller.seats` ids, and put what is told in `found`.

    The first error ends the look; what was found before stays in `found`.
    """
    failure: LumaError | None = None

    async def part(some: Sequence[str]) -> None:
        nonlocal failure
        try:
            await _ask(poller, relay, some, found)
        except LumaError as error:
            failure = failure or error
            group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for some in _parts(ids, poller.seats):
            group.start_soon(part, some)
    if failure:
        raise failure


async def _ask(
    poller: Poller, relay: Relay, ids: Sequence[str], found: dict[str, Generation]
) -> None:
    if poller.singles:
        await _ask_singly(poller, relay, ids, found)
        return
    try:
        told = await poller.turnstile.direct(partial(relay.get_many, ids), len(ids), many=True)
    except LumaError as error:
        verdict = judge(error, many=True)
        if verdict not in (Verdict.SINGLES, Verdict.SHRINK, Verdict.SPLIT):
            raise
        poller.learn(verdict, len(ids))
    else:
        found |= {i: told.generation(i) for i in ids if i in told.states}
        return
    if verdict is Verdict.SINGLES or len(ids) == 1:
        await _ask_singly(poller, relay, ids, found)
    else:
        for half in _parts(ids, (len(ids) + 1) // 2):
            await _ask(poller, relay, half, found)


async def _ask_singly(
    poller: Poller, relay: Relay, ids: Sequence[str], found: dict[str, Generation]
) -> None:
    for task_id in ids:
        try:
            found[task_id] = await look_at_one(poller, relay, task_id)
        except LumaError as error:
            if judge(error, many=False) is not Verdict.ABSENT:
                raise


def _parts(ids: Sequence[str], seats: int) -> list[Sequence[str]]:
    return [ids[start : start + seats] for start in range(0, len(ids), seats)]
