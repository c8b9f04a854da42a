"""What is known of the ids that a command waits for: a record for the screen and the report.

Times are seconds of one clock, `now` in every call; an age is counted from the moment at which the
relay says that it made the task, where it says so, else from the moment at which the id was given.

A hundred thousand rows stay in memory, so a row is small. What a relay sent of a task, its links
and texts, is in `Details`; a command that waits for long stores them on disk, and reads
them again for what it shows.
"""

import os
from collections import Counter, OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from luma_async.cli.display.spool import Spool
from luma_async.downloads.progress import DownloadProgress
from luma_async.structs import Generation, State

WAITING = "waiting"
MISSING = "missing"
MAX_AGE = 30 * 86_400.0
MAX_CHANGED = 1000  # rows; no terminal is higher
WORDS = (WAITING, *State, MISSING)


class Details(Struct):
    """What is known of a task beyond its state, and what became of its video.

    `generation` is the task as last seen. `trouble` says why the video was not saved.
    """

    generation: Generation | None = None
    file: Path | None = None
    trouble: str | None = None

    @property
    def link(self) -> str | None:
        """The best link to the video; None if there is none."""
        return self.generation.url if self.generation else None

    @property
    def failure_reason(self) -> str | None:
        """The reason of a failed task, as the relay gives it."""
        return self.generation.failure_reason if self.generation else None

    @property
    def prompt(self) -> str:
        """What was asked for."""
        asked = self.generation
        return (asked and ((asked.request and asked.request.prompt) or asked.prompt)) or ""


class TaskRow(Struct, gc=False):
    """One id: its state, since when, and whether its video is saved.

    `word` is the state, or what there is in place of one. `saved` is None where no video is to be
    saved, or not yet. `written`: its line was printed. `details` are None where there are none, or
    where they are stored under the key `stored`.
    """

    id: str
    born: float
    word: str = WAITING
    ended_at: float | None = None
    was_open: bool = False
    saved: bool | None = None
    written: bool = False
    details: Details | None = None
    stored: int | None = None

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.ended_at is not None

    @property
    def is_good(self) -> bool:
        """Whether the task is completed, and saved where it was to be."""
        return self.ended and self.word == State.COMPLETED and self.saved is not False

    def age(self, now: float) -> float | None:
        """Return how long it has taken, in seconds; None where it had ended before it was seen."""
        if self.ended_at is None:
            return now - self.born
        return self.ended_at - self.born if self.was_open else None


class Progress:
    """The rows in the order given; `changed` has those that changed last, the latest at its end.

    `saving` has the downloads under way, by id. `saved_count` is the number of saved videos,
    `saved_bytes` what this command received of videos. `note` is a line that a command adds, of
    what has no row.
    """

    def __init__(self) -> None:
        self.rows: dict[str, TaskRow] = {}
        self.changed: OrderedDict[str, TaskRow] = OrderedDict()
        self.counts: Counter[str] = Counter()
        self.saving: dict[str, DownloadProgress] = {}
        self.saved_count: int = 0
        self.saved_bytes: int = 0
        self.note: str = ""
        self._begun: float | None = None
        self._spool = Spool()

    def add(self, ids: Iterable[str], now: float) -> list[str]:
        """Take ids in; returns those that are new."""
        self._begun = now if self._begun is None else self._begun
        new = [task_id for task_id in dict.fromkeys(ids) if task_id not in self.rows]
        for task_id in new:
            self.rows[task_id] = row = TaskRow(task_id, now)
            self._touch(row)
        self.counts[WAITING] += len(new)
        return new

    def learn(self, generation: Generation, now: float, date: datetime) -> TaskRow | None:
        """Note what a task looks like; `date` is now by the calendar.

        Return its row; None if it is not awaited, or has ended.
        """
        row = self.rows.get(generation.id)
        if row is None or row.ended:
            return None
        if row.word == WAITING and generation.created_at is not None:
            made = now - (date - generation.created_at).total_seconds()
            row.born = max(min(row.born, made), now - MAX_AGE)
        self._count(row, generation.state)
        row.details, row.stored = Details(generation), None
        row.was_open |= not generation.is_done
        self._touch(row)
        return row

    def end(
        self, task_id: str, generation: Generation | None, now: float, date: datetime
    ) -> TaskRow:
        """Record a final state; a generation of None means that the id is missing."""
        row = self.rows[task_id]
        if generation is not None:
            self.learn(generation, now, date)
        else:
            self._count(row, MISSING)
        row.ended_at = now
        self._touch(row)
        return row

    def record_download(self, event: DownloadProgress) -> None:
        """Record how much of a video is saved; the first event has what an earlier run saved."""
        before = self.saving.get(event.id, event)
        self.saved_bytes += max(event.received - before.received, 0)
        self.saving[event.id] = event
        if (row := self.rows.get(event.id)) is not None:
            self._touch(row)

    def record_file(self, row: TaskRow, file: Path | None, trouble: str | None = None) -> None:
        """Record where a video was saved, or why it was not."""
        task = self.details(row).generation
        if trouble is not None:  # a path in it may be no valid text
            trouble = trouble.encode("utf-8", "backslashreplace").decode()
        row.details, row.stored = Details(task, file, trouble), None
        row.saved = file is not None
        self.saved_count += row.saved
        self.saving.pop(row.id, None)

    def details(self, row: TaskRow) -> Details:
        """Return what is known of a task. Raise OSError if it was stored and cannot be read."""
        if row.details is not None:
            return row.details
        return Details() if row.stored is None else _decoder.decode(self._spool.get(row.stored))

    def store(self, row: TaskRow, *, original: bool) -> None:
        """Move the details of a row from memory to disk; `original`: with the relay's own text.

        What cannot be encoded, such as a number of more than 64 bits, stays in memory.
        """
        details = row.details
        if details is not None:
            task = details.generation
            if task is not None and not original:
                details = replace(details, generation=replace(task, original="{}"))
            with suppress(ValueError, OverflowError):
                row.stored = self._spool.put(_encoder.encode(details))
                row.details = None

    def drop_details(self, row: TaskRow) -> None:
        """Forget the details of a row that is not shown any more."""
        row.details = row.stored = None

    def close(self) -> None:
        """Delete what is stored on disk."""
        self._spool.close()

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

    def _count(self, row: TaskRow, word: str) -> None:
        self.counts[row.word] -= 1
        self.counts[word] += 1
        row.word = word

    def _touch(self, row: TaskRow) -> None:
        self.changed[row.id] = row
        self.changed.move_to_end(row.id)
        if len(self.changed) > MAX_CHANGED:
            self.changed.popitem(last=False)


def why(row: TaskRow, details: Details) -> str:
    """Return why there will be no video; an empty text where there may be one."""
    if row.word == MISSING:
        return "the relay does not know it"
    if row.word == State.FAILED:
        return details.failure_reason or "no reason given"
    return ""


def _path_to_bytes(value: Any) -> bytes:
    return os.fsencode(value)


def _path_of_bytes(_: type, value: Any) -> Path:
    return Path(os.fsdecode(value))


_encoder = msgspec.msgpack.Encoder(enc_hook=_path_to_bytes)
_decoder = msgspec.msgpack.Decoder(Details, dec_hook=_path_of_bytes)
