"""The tasks of a FakeRelay and the bodies of its responses, without HTTP and an event loop."""

import random
import time
import uuid
from collections.abc import Iterable
from dataclasses import replace
from email.utils import formatdate
from typing import Literal

import msgspec

from luma_async import validation as checks
from luma_async.testing import bodies
from luma_async.testing.faults import with_strangers
from luma_async.testing.scripts import ENDS, TaskScripts, check_ends
from luma_async.testing.submissions import ASPECT_RATIO, PROMPT, Outcomes, Submission
from luma_async.testing.types import Stage, Task, TaskEnd, seconds

Envelope = Literal["bare", "wrapped"]

ENVELOPES: tuple[Envelope, ...] = ("bare", "wrapped")
_STRANGER = "5742a9e2-7c1d-4f0b-9a53-9f2f6d0c8e11"


class Simulation:
    """The tasks of one relay; `now` is always an argument, in seconds of the relay's event loop."""

    def __init__(self, envelope: Envelope, seed: int, outcomes: Outcomes) -> None:
        if envelope not in ENVELOPES:
            raise ValueError(f"envelope is {envelope!r}: give bare or wrapped")
        self.tasks: dict[str, Task] = {}
        self._wrapped = envelope == "wrapped"
        self._rows: dict[tuple[int, Stage], bytes] = {}
        self._id_rng = random.Random(seed)  # noqa: S311 - reproducible
        self.scripts: TaskScripts = TaskScripts()
        self._outcomes = outcomes
        self._outcome_rng = random.Random(f"fates of {seed}")  # noqa: S311 - reproducible
        self.base_url: str = ""
        self._submitted_count = 0
        self.created: list[str] = []
        self._unix_at_zero: float | None = None

    def set_base_url(self, base_url: str) -> None:
        """Change the base URL of all links."""
        self.base_url = base_url
        self._rows.clear()

    def submit(self, prompt: str, aspect_ratio: str, now: float) -> str:
        """Submit a task at `now`, with the next script or a random one; return its id."""
        outcome = self.scripts.next() or self._outcomes.draw(self._outcome_rng)
        return self.add(
            None,
            now,
            duration=outcome.duration,
            ends=outcome.ends,
            queued=outcome.queued,
            visible_after=outcome.visible_after,
            link_after=outcome.link_after,
            failure_reason=outcome.failure_reason,
            prompt=prompt,
            aspect_ratio=aspect_ratio,
        )

    def create(self, submission: Submission, now: float) -> str:
        """Make the task of a submission over HTTP, which is paid for; return its id."""
        task_id = self.submit(submission.prompt, submission.aspect_ratio, now)
        self.created.append(task_id)
        return task_id

    def add(
        self,
        task_id: str | None,
        now: float,
        *,
        duration: float,
        ends: TaskEnd,
        queued: float,
        visible_after: float,
        link_after: float,
        failure_reason: str,
        prompt: str,
        aspect_ratio: str,
    ) -> str:
        """Submit a task at `now`; return its id.

        Raises ValueError or TypeError for invalid arguments.
        """
        check_ends(ends, ENDS)
        duration, queued = seconds("duration", duration), seconds("queued", queued)
        if ends != "never" and queued > duration:
            raise ValueError(f"queued is {queued:g} of {duration:g} seconds: make duration longer")
        task = Task(
            id=self._new_id(task_id),
            number=self._submitted_count + 1,
            created=self._unix(now),
            submitted_at=now,
            visible_at=now + seconds("visible_after", visible_after),
            processing_at=now + queued,
            ends_at=None if ends == "never" else now + duration,
            ends=ends,
            link_after=seconds("link_after", link_after),
            failure_reason=failure_reason,
            prompt=checks.text("prompt", prompt),
            aspect_ratio=checks.text("aspect_ratio", aspect_ratio),
        )
        self._submitted_count = task.number
        self.tasks[task.id] = task
        return task.id

    def _new_id(self, task_id: str | None) -> str:
        if task_id is None:
            return str(uuid.UUID(int=self._id_rng.getrandbits(128), version=4))
        if not isinstance(task_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a task id is of type {type(task_id).__name__}: give a str")
        if not task_id:
            raise ValueError("a task id is empty: give None for a new one")
        if task_id in self.tasks:
            raise ValueError(f"task {task_id!r} exists already: forget it first, or give a new id")
        return task_id

    def date(self, now: float) -> str:
        """Return the Date header at `now`, by the same clock as `created_at`."""
        return formatdate(self._unix(now), usegmt=True)

    def _unix(self, now: float) -> float:
        if self._unix_at_zero is None:
            self._unix_at_zero = time.time() - now
        return self._unix_at_zero + now

    def finish(self, task_id: str, ends: TaskEnd, now: float) -> None:
        """Complete or fail a task at `now`; raise ValueError if it is unknown or already done."""
        check_ends(ends, ENDS[:2])
        task = self._known(task_id)
        if task.ends_at is not None and task.ends_at <= now:
            raise ValueError(f"task {task_id!r} is completed or failed already: finish it earlier")
        processing_at = min(task.processing_at, now)
        self.tasks[task_id] = replace(task, ends_at=now, ends=ends, processing_at=processing_at)

    def forget(self, task_id: str) -> None:
        """Remove a task; raise ValueError if it is unknown."""
        del self.tasks[self._known(task_id).id]

    def _known(self, task_id: str) -> Task:
        if task_id not in self.tasks:
            raise ValueError(f"task {task_id!r} is unknown: add it first")
        return self.tasks[task_id]

    def done_count(self, now: float) -> int:
        """Return how many tasks are completed or failed at `now`."""
        times = (task.ends_at for task in self.tasks.values())
        return sum(ends_at is not None and ends_at <= now for ends_at in times)

    def interned(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Return equal ids that are stored here, so that a long log does not store copies."""
        tasks = self.tasks
        return tuple([tasks[task_id].id if task_id in tasks else task_id for task_id in ids])

    def get(self, task_id: str, now: float) -> bytes | None:
        """Return the body of the response to the single GET; None if the task is unknown."""
        task = self.tasks.get(task_id)
        if task is None or task.visible_at > now:
            return None
        return self._enveloped(self._row(task, now))

    def bare_object(self, task_id: str, now: float) -> bytes:
        """Return a task as Luma sends it, without an envelope."""
        task = self.tasks[task_id]
        return msgspec.json.encode(bodies.generation(task, task.stage(now), self.base_url))

    def has_files(self, task_id: str, now: float) -> bool:
        """Return whether the links of a task work at `now`."""
        task = self.tasks.get(task_id)
        return task is not None and task.visible_at <= now and task.stage(now) == "completed"

    def get_many(self, ids: Iterable[str], now: float, *, strangers: bool = False) -> bytes:
        """Return the body of the response to the batch POST.

        The tasks are in the order of submission, each once; unknown ids are left out. With
        `strangers` the first row is of a task that was not requested, and the others are in reverse
        order, one of them twice.
        """
        tasks = (self.tasks.get(task_id) for task_id in ids)
        found = {task.number: task for task in tasks if task and task.visible_at <= now}
        rows = [self._row(found[number], now) for number in sorted(found)]
        if strangers:
            rows = with_strangers(rows, self._row(self._stranger(now), now))
        if self._wrapped and not rows:
            return self._enveloped(b"null")
        return self._enveloped(b"[" + b",".join(rows) + b"]")

    def _stranger(self, now: float) -> Task:
        return Task(
            id=_STRANGER,
            number=0,
            created=self._unix(now),
            submitted_at=now,
            visible_at=now,
            processing_at=now,
            ends_at=now,
            ends="completed",
            link_after=0.0,
            failure_reason="",
            prompt=PROMPT,
            aspect_ratio=ASPECT_RATIO,
        )

    def _row(self, task: Task, now: float) -> bytes:
        key = (task.number, stage := task.stage(now))
        row = self._rows.get(key)
        if row is None:
            build = bodies.table_row if self._wrapped else bodies.generation
            row = self._rows[key] = msgspec.json.encode(build(task, stage, self.base_url))
        return row

    def _enveloped(self, data: bytes) -> bytes:
        return b'{"code":"success","message":"","data":%b}' % data if self._wrapped else data
