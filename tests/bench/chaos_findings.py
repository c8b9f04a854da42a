"""What `chaos` finds: results that are wrong, old, or stored twice."""

from collections import Counter

from luma_async import State
from luma_async.structs import Generation
from luma_async.worker import End


def version_of(task: Generation | None) -> int:
    """Return the version of a task that a result reports; -1 if it reports none."""
    if task is None or task.state is not State.FAILED or not task.failure_reason:
        return -1
    word, _, number = task.failure_reason.partition(" ")
    return int(number) if word == "version" else -1


class Findings:
    """What was found."""

    def __init__(self) -> None:
        self.reported: Counter[tuple[str, int]] = Counter()
        self.accepted: Counter[tuple[str, int]] = Counter()
        self.newest: dict[str, int] = {}
        self.wrong: list[str] = []
        self.old: list[str] = []
        self.events: Counter[str] = Counter()
        self.submissions = 0

    def read(self, end: End) -> None:
        """Check a result that a reader of all results has read."""
        version = version_of(end.generation)
        if version < 0:
            self.wrong.append(f"{end.id}: {end.state}")
        self.reported[end.id, version] += 1
        if version < self.newest.get(end.id, 0):
            self.old.append(f"{end.id}: stored {version} after {self.newest[end.id]}")
        self.newest[end.id] = max(version, self.newest.get(end.id, 0))

    def returned(self, task_id: str, version: int, generation: Generation) -> None:
        """Check what a wait has returned for a submission."""
        found = version_of(generation)
        if generation.id != task_id or found < 0 or found > version:
            self.wrong.append(f"{task_id}: {generation.id} {found}")
        elif found < version:
            self.old.append(f"{task_id}: returned {found} for {version}")

    @property
    def twice(self) -> int:
        return sum(max(0, n - self.accepted[key]) for key, n in self.reported.items())
