"""What a relay knows of its tasks, and its two answers, without HTTP and without a loop."""

import random
import time
import uuid
from collections.abc import Iterable
from dataclasses import replace
from email.utils import formatdate
from typing import Literal

import msgspec

from luma_async.testing import bodies as shapes
from luma_async.testing.faults import among_strangers
from luma_async.testing.submissions import ASPECT_RATIO, PROMPT, Outcomes
from luma_async.testing.types import Ends, Stage, Task, seconds, text

Envelope = Literal["bare", "wrapped"]

ENVELOPES: tuple[Envelope, ...] = ("bare", "wrapped")
_ENDS: tuple[Ends, ...] = ("completed", "failed", "never")
_STRANGER = "5742a9e2-7c1d-4f0b-9a53-9f2f6d0c8e11"


class Simulation:
    """The tasks of one relay; `now` is an argument everywhere, in seconds of the relay's loop."""

    def __init__(self, envelope: Envelope, seed: int, fates: Outcomes) -> None:
        if envelope not in ENVELOPES:
            raise ValueError(f"envelope is {envelope!r}: say bare or wrapped")
        self.tasks: dict[str, Task] = {}
        self._wrapped = envelope == "wrapped"
        self._rows: dict[tuple[int, Stage], bytes] = {}
        self._dice = random.Random(seed)  # noqa: S311 - ids that repeat are the point
        self._fates = fates
        self._fate_dice = random.Random(f"fates of {seed}")  # noqa: S311 - fates that repeat
        self._base = ""
        self._submitted = 0
        self._unix_at_zero: float | None = None

    def move(self, base: str) -> None:
        """Let the links lead to this base URL from now on."""
        self._base = base
        self._rows.clear()

    def submit(self, prompt: str, aspect_ratio: str, now: float) -> str:
        """Submit a task at `now` whose fate the dice choose."""
        fate = self._fates.draw(self._fate_dice)
        return self.add(
            None,
            now,
            duration=fate.duration,
            ends=fate.ends,
            queued=fate.queued,
            visible_after=0.0,
            link_after=0.0,
            failure_reason=fate.failure_reason,
            prompt=prompt,
            aspect_ratio=aspect_ratio,
        )

    def add(
        self,
        task_id: str | None,
        now: float,
        *,
        duration: float,
        ends: Ends,
        queued: float,
        visible_after: float,
        link_after: float,
        failure_reason: str,
        prompt: str,
        aspect_ratio: str,
    ) -> str:
        """Submit a task at `now`; ValueError or TypeError for what makes no sense."""
        check_ends(ends, _ENDS)
        duration, queued = seconds("duration", duration), seconds("queued", queued)
        if ends != "never" and queued > duration:
            raise ValueError(f"queued is {queued:g} of {duration:g} seconds: make duration longer")
        task = Task(
            id=self._new_id(task_id),
            number=self._submitted + 1,
            created=self._unix(now),
            submitted_at=now,
            visible_at=now + seconds("visible_after", visible_after),
            processing_at=now + queued,
            ends_at=None if ends == "never" else now + duration,
            ends=ends,
            link_after=seconds("link_after", link_after),
            failure_reason=failure_reason,
            prompt=text("prompt", prompt),
            aspect_ratio=text("aspect_ratio", aspect_ratio),
        )
        self._submitted = task.number
        self.tasks[task.id] = task
        return task.id

    def _new_id(self, task_id: str | None) -> str:
        if task_id is None:
            return str(uuid.UUID(int=self._dice.getrandbits(128), version=4))
        if not isinstance(task_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a task id is text, not {type(task_id).__name__}: pass a str")
        if not task_id:
            raise ValueError("a task id is never empty: pass None for a new one")
        if task_id in self.tasks:
            raise ValueError(f"task {task_id!r} is here already: forget it first, or take a new id")
        return task_id

    def date(self, now: float) -> str:
        """Return the Date of an answer, by the clock that `created_at` is read from."""
        return formatdate(self._unix(now), usegmt=True)

    def _unix(self, now: float) -> float:
        if self._unix_at_zero is None:
            self._unix_at_zero = time.time() - now
        return self._unix_at_zero + now

    def finish(self, task_id: str, ends: Ends, now: float) -> None:
        """End a task at `now`; ValueError if it is not here or has ended."""
        check_ends(ends, _ENDS[:2])
        task = self._known(task_id)
        if task.ends_at is not None and task.ends_at <= now:
            raise ValueError(f"task {task_id!r} has ended already: finish it sooner")
        processing_at = min(task.processing_at, now)
        self.tasks[task_id] = replace(task, ends_at=now, ends=ends, processing_at=processing_at)

    def forget(self, task_id: str) -> None:
        """Lose a task; ValueError if it is not here."""
        del self.tasks[self._known(task_id).id]

    def _known(self, task_id: str) -> Task:
        if task_id not in self.tasks:
            raise ValueError(f"no task {task_id!r} here: add it first")
        return self.tasks[task_id]

    def has_ended(self, now: float) -> int:
        """Count the tasks that have ended at `now`."""
        ends = (task.ends_at for task in self.tasks.values())
        return sum(end is not None and end <= now for end in ends)

    def same(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Swap ids for the equal ones that are kept here, so that a long log keeps no copies."""
        tasks = self.tasks
        return tuple([tasks[task_id].id if task_id in tasks else task_id for task_id in ids])

    def get(self, task_id: str, now: float) -> bytes | None:
        """Answer the single call, or None: there is no such task at `now`."""
        task = self.tasks.get(task_id)
        if task is None or task.visible_at > now:
            return None
        return self._envelop(self._row(task, now))

    def shows(self, task_id: str, now: float) -> bool:
        """Tell whether a task's files are there at `now`."""
        task = self.tasks.get(task_id)
        return task is not None and task.visible_at <= now and task.stage(now) == "completed"

    def get_many(self, ids: Iterable[str], now: float, *, strangers: bool = False) -> bytes:
        """Answer the batch call: in order of submission, each task once, unknown ids left out.

        With `strangers` none of that holds, and the first row is of a task of somebody else.
        """
        tasks = (self.tasks.get(task_id) for task_id in ids)
        found = {task.number: task for task in tasks if task and task.visible_at <= now}
        rows = [self._row(found[number], now) for number in sorted(found)]
        if strangers:
            rows = among_strangers(rows, self._row(self._stranger(now), now))
        if self._wrapped and not rows:
            return self._envelop(b"null")
        return self._envelop(b"[" + b",".join(rows) + b"]")

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
            build = shapes.row if self._wrapped else shapes.generation
            row = self._rows[key] = msgspec.json.encode(build(task, stage, self._base))
        return row

    def _envelop(self, data: bytes) -> bytes:
        return b'{"code":"success","message":"","data":%b}' % data if self._wrapped else data


def check_ends(ends: str, allowed: tuple[str, ...]) -> None:
    """Refuse, with a ValueError, an end that is not among those allowed."""
    if ends not in allowed:
        raise ValueError(f"ends is {ends!r}: say one of {', '.join(allowed)}")
