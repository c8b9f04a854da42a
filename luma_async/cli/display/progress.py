"""What is known of the ids that a command waits for: a pure record, for the screen and the report.

Times are seconds of one clock, `now` in every call; an age is counted from the moment at which the
relay says that it made the task, where it says so, else from the moment at which the id was given.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from luma_async.structs import Generation, State

WAITING = "waiting"
MISSING = "missing"
MAX_AGE = 30 * 86_400.0
WORDS = (WAITING, *State, MISSING)


class TaskRow(Struct):
    """One id: where it stands, since when, and what became of its video."""

    id: str
    born: float
    generation: Generation | None = None
    ended_at: float | None = None
    is_missing: bool = False
    was_open: bool = False
    file: Path | None = None
    trouble: str | None = None

    @property
    def word(self) -> str:
        """The state, or what there is in place of one."""
        if self.is_missing:
            return MISSING
        return WAITING if self.generation is None else self.generation.state

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.ended_at is not None

    @property
    def is_good(self) -> bool:
        """Whether the task is completed, and saved where it was to be."""
        return self.ended and self.word == State.COMPLETED and self.trouble is None

    @property
    def why(self) -> str:
        """Why there will be no video; empty where there may be one."""
        if self.is_missing:
            return "the relay does not know it"
        if self.generation is not None and self.generation.state is State.FAILED:
            return self.generation.failure_reason or "no reason given"
        return ""

    @property
    def prompt(self) -> str:
        """What was asked for."""
        asked = self.generation
        return (asked and ((asked.request and asked.request.prompt) or asked.prompt)) or ""

    def age(self, now: float) -> float | None:
        """Return how long it has taken, in seconds; None where it had ended before it was seen."""
        if self.ended_at is None:
            return now - self.born
        return self.ended_at - self.born if self.was_open else None


class Progress:
    """The rows in the order given; `changed` has them with the latest change last.

    `note` is a line that a command adds, of what has no row.
    """

    def __init__(self) -> None:
        self.rows: dict[str, TaskRow] = {}
        self.changed: dict[str, TaskRow] = {}
        self.counts: Counter[str] = Counter()
        self.note: str = ""
        self._begun: float | None = None

    def add(self, ids: Iterable[str], now: float) -> list[str]:
        """Take ids in; returns those that are new."""
        self._begun = now if self._begun is None else self._begun
        new = [task_id for task_id in dict.fromkeys(ids) if task_id not in self.rows]
        for task_id in new:
            self.rows[task_id] = self.changed[task_id] = TaskRow(task_id, now)
        self.counts[WAITING] += len(new)
        return new

    def learn(self, generation: Generation, now: float, date: datetime) -> None:
        """Note what a task looks like; `date` is now by the calendar."""
        row = self.rows.get(generation.id)
        if row is None or row.ended:
            return
        if row.generation is None and generation.created_at is not None:
            made = now - (date - generation.created_at).total_seconds()
            row.born = max(min(row.born, made), now - MAX_AGE)
        self.counts[row.word] -= 1
        row.generation = generation
        row.was_open |= not generation.is_done
        self.counts[row.word] += 1
        self.changed[row.id] = self.changed.pop(row.id)

    def end(
        self, task_id: str, generation: Generation | None, now: float, date: datetime
    ) -> TaskRow:
        """Record a final state; a generation of None means that the id is missing."""
        row = self.rows[task_id]
        if generation is not None:
            self.learn(generation, now, date)
        else:
            self.counts[row.word] -= 1
            row.is_missing = True
            self.counts[MISSING] += 1
        row.ended_at = now
        self.changed[task_id] = self.changed.pop(task_id)
        return row

    def spent(self, now: float) -> float:
        """Return the seconds since the first ids came."""
        return 0.0 if self._begun is None else now - self._begun

    @property
    def open(self) -> list[TaskRow]:
        """The rows that have not ended."""
        return [row for row in self.rows.values() if not row.ended]

    @property
    def ended(self) -> int:
        """How many have ended."""
        return sum(self.counts[word] for word in (State.COMPLETED, State.FAILED, MISSING))

    @property
    def is_good(self) -> bool:
        """Whether all are completed, and saved where they were to be."""
        return all(row.is_good for row in self.rows.values())
