"""Answers of a relay, as values: what the pure tests feed to the book and the poller."""

from collections.abc import Mapping
from datetime import datetime

from luma_async.structs import Generation, State

LINK = "https://cdn.example/video.mp4"


def generation(task_id: str, state: State = State.COMPLETED, url: str | None = LINK) -> Generation:
    link = url if state is State.COMPLETED else None
    return Generation(id=task_id, state=state, result_url=link)


class Told:
    """An answer that names these tasks in these states."""

    retry_after: float | None = None
    date: datetime | None = None

    def __init__(self, states: Mapping[str, State], *, url: str | None = LINK) -> None:
        self.states = states
        self.url = url

    def generation(self, task_id: str) -> Generation:
        return generation(task_id, self.states[task_id], self.url)
