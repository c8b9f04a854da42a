"""The calls of a session that submit tasks."""

import logging
from abc import ABC, abstractmethod
from typing import Any

from luma_async import validation as checks
from luma_async.polling.submitting import Submitter
from luma_async.protocol.submissions import Submission
from luma_async.structs import Generation
from luma_async.text import one_line

logger: logging.Logger = logging.getLogger("luma_async")


def submitter_of(session: "SubmitCalls") -> Submitter:
    """Return what submits the tasks of a session, for callers that need its hooks."""
    return session._submitter()  # pyright: ignore[reportPrivateUsage]


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    if fields.get("timeout") is not None:
        raise ValueError("a submission has no timeout; give submit_timeout to LumaSession")
    return fields


class SubmitCalls(ABC):
    """create, extend and generate."""

    @abstractmethod
    def _submitter(self) -> Submitter:
        """Return what submits; raise if the session is not open."""

    @abstractmethod
    async def _wait_for(self, task_id: str, timeout: float | None) -> Generation:
        """Wait for one task."""

    async def create(
        self,
        user_prompt: str,
        *,
        aspect_ratio: str | None = None,
        expand_prompt: bool | None = None,
        loop: bool | None = None,
        image_url: str | None = None,
        image_end_url: str | None = None,
        **fields: Any,
    ) -> Generation:
        """Submit a task, at most once, and return it: its id, and a state of pending as a rule.

        Only the fields that are given are sent; None is not. `aspect_ratio` is text such as "16:9".
        The images are https URLs, or `data:image/png;base64,…`. Other `fields` are sent by their
        names, such as model_name="ray-v2", duration="5s", resolution="720p".

        A request is retried, for `submit_timeout` seconds, only if it is certain that the relay did
        not take it: no connection, 429, or a 503 of the relay's own. Raises SubmitUnknown if a task
        may have been made. Any other LumaError means that none was: QuotaError, BadRequestError
        with the relay's words, RateLimitedError, and so on. Raises ValueError or TypeError before
        anything is sent.
        """
        return await self._submitter().submit(
            Submission(
                user_prompt=user_prompt,
                aspect_ratio=aspect_ratio,
                expand_prompt=expand_prompt,
                loop=loop,
                image_url=image_url,
                image_end_url=image_end_url,
                others=_checked(fields),
            )
        )

    async def extend(
        self,
        task_id: str,
        user_prompt: str,
        *,
        aspect_ratio: str | None = None,
        expand_prompt: bool | None = None,
        loop: bool | None = None,
        image_url: str | None = None,
        image_end_url: str | None = None,
        **fields: Any,
    ) -> Generation:
        """Submit a task that extends the video of another one, and return the new task.

        The relay and the key must be those of the task `task_id`. The other arguments and the
        errors are those of `create`.
        """
        return await self._submitter().submit(
            Submission(
                user_prompt=user_prompt,
                aspect_ratio=aspect_ratio,
                expand_prompt=expand_prompt,
                loop=loop,
                image_url=image_url,
                image_end_url=image_end_url,
                others=_checked(fields),
                extends=task_id,
            )
        )

    async def generate(
        self,
        user_prompt: str,
        *,
        timeout: float | None = 1800.0,
        aspect_ratio: str | None = None,
        expand_prompt: bool | None = None,
        loop: bool | None = None,
        image_url: str | None = None,
        image_end_url: str | None = None,
        **fields: Any,
    ) -> Generation:
        """Submit a task as `create` does, and wait for it as `wait_until_done` does.

        `timeout` limits the wait, in seconds, from the moment at which the relay has answered; None
        is no limit. Raises the errors of both calls. The id of a submitted task is never lost: it
        is in the log and in the notes of whatever is raised, asyncio.CancelledError included.
        """
        seconds = checks.timeout(timeout)
        task = await self.create(
            user_prompt,
            aspect_ratio=aspect_ratio,
            expand_prompt=expand_prompt,
            loop=loop,
            image_url=image_url,
            image_end_url=image_end_url,
            **fields,
        )
        try:
            return await self._wait_for(task.id, seconds)
        except BaseException as error:
            note = f"task {one_line(task.id)} was submitted; wait for this id to get its video"
            error.add_note(note)
            logger.warning("%s", note)
            raise
