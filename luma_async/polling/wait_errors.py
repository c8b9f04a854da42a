"""The error of a wait that ends before all its ids are done: nothing that was asked is left out."""

from collections.abc import Mapping
from typing import TypeVar

from luma_async.errors import WaitIncomplete
from luma_async.polling.chunks import CHUNK_SIZE, AsyncChunks
from luma_async.protocol.rows import RowText
from luma_async.structs import Generation

READ_CHUNK_SIZE = 500  # rows decoded at a time

E = TypeVar("E", bound=WaitIncomplete)


async def done_in_order(
    rows: Mapping[str, RowText | None], ended: Mapping[str, Generation | None]
) -> dict[str, Generation]:
    """Return the tasks that are done, in the order of the ids."""
    if len(rows) <= CHUNK_SIZE:
        return {task_id: one for task_id in rows if (one := ended.get(task_id))}
    done: dict[str, Generation] = {}
    async for part in AsyncChunks(tuple(rows)):
        done |= {task_id: one for task_id in part if (one := ended.get(task_id))}
    return done


async def incomplete(
    kind: type[E],
    message: str,
    cause: Exception | None,
    rows: Mapping[str, RowText | None],
    ended: Mapping[str, Generation | None],
) -> E:
    """Build the error of a wait.

    `rows` has the last row of each id; `ended` the task of each that is done, None if missing.

    Done, pending and missing are together what was asked.
    """
    pending: dict[str, Generation | None] = {}
    missing: list[str] = []
    async for part in AsyncChunks(tuple(rows), READ_CHUNK_SIZE):
        for task_id in part:
            if task_id not in ended:
                row = rows[task_id]
                pending[task_id] = row.generation() if row else None
            elif ended[task_id] is None:
                missing.append(task_id)
    done = await done_in_order(rows, ended)
    error = kind(message, done=done, pending=pending, missing=missing)
    error.__cause__ = cause
    return error


def summary(task: Generation) -> Generation:
    """Return a task with what matters in an error: its id, state, link and failure reason."""
    return Generation(
        id=task.id, state=task.state, result_url=task.url, failure_reason=task.failure_reason
    )
