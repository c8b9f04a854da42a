"""Responses of a relay, as values: input of the pure tests of the scheduler and the poller."""

from collections.abc import Mapping
from types import MappingProxyType

from luma_async.protocol.rows import RowText
from luma_async.structs import Generation, State

LINK = "https://cdn.example/video.mp4"


def generation(task_id: str, state: State = State.COMPLETED, url: str | None = LINK) -> Generation:
    link = url if state is State.COMPLETED else None
    return Generation(id=task_id, state=state, result_url=link)


class FakeAnswer:
    """A response with these tasks in these states."""

    retry_after: float | None = None
    unknown_states: frozenset[str] = frozenset()

    def __init__(
        self,
        states: Mapping[str, State],
        *,
        url: str | None = LINK,
        ages: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.states = states
        self.ages = ages
        self.url = url

    def age(self, task_id: str) -> float:
        return self.ages.get(task_id, 0.0)

    def row(self, task_id: str) -> RowText:
        return RowText(task_id, b"", self.generation(task_id))

    def generation(self, task_id: str) -> Generation:
        return generation(task_id, self.states[task_id], self.url)
