"""What is left to do of a file of prompts. Pure: rows and the journal in, what to do out.

The journal has an Entry for each row. It is written before a request leaves (SENT), and again when
its outcome is known. So a kill at any moment leaves one of three: a row that was never sent, a task
that is known by its id, or a row that is SENT: it may have been submitted, and is not sent again
until the user says so.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from luma_async.cli.rendering.prompts import PromptRow
from luma_async.errors import (
    AuthenticationError,
    LumaError,
    NoSuchRouteError,
    PermissionDeniedError,
    QuotaError,
    SessionClosed,
    SetupError,
    SubmitUnknown,
)
from luma_async.scheduling.submission_policy import Outcome, submission_outcome


class Status(StrEnum):
    """Where a row stands."""

    NEW = "not submitted"
    REFUSED = "refused"
    SENT = "in flight"
    UNKNOWN = "unknown"
    OPEN = "open"
    MISSING = "missing"
    FAILED = "failed"
    COMPLETED = "not saved"
    SAVED = "saved"


UNDECIDED = (Status.SENT, Status.UNKNOWN)
_TO_SUBMIT = (Status.NEW, Status.REFUSED)
_TO_WAIT_FOR = (Status.OPEN, Status.MISSING, Status.COMPLETED)


class Entry(Struct, frozen=True, kw_only=True):
    """What the journal has of a row.

    `sent_at` is when its last request left, in unix seconds. `tasks` is how many tasks may have
    been paid for. `note` is a reason in the words of the relay.
    """

    key: str
    line: int
    prompt: str
    status: Status = Status.NEW
    task_id: str | None = None
    sent_at: float | None = None
    tasks: int = 0
    note: str = ""
    file: str | None = None

    def after_sending(self, now: float) -> "Entry":
        """Return the entry before its request leaves."""
        return replace(self, status=Status.SENT, sent_at=now, tasks=self.tasks + 1, note="")

    def after_refusal(self, status: Status, note: str = "") -> "Entry":
        """Return the entry of a request that made no task: NEW or REFUSED.

        It is UNKNOWN if an earlier request may have made one.
        """
        tasks = self.tasks - (self.status is Status.SENT)
        return replace(self, status=Status.UNKNOWN if tasks else status, tasks=tasks, note=note)

    def after_loss(self, note: str) -> "Entry":
        """Return the entry of a request with an unknown outcome."""
        return replace(self, status=Status.UNKNOWN, note=note)

    def after_creation(self, task_id: str) -> "Entry":
        """Return the entry of a task that the relay has."""
        return replace(self, status=Status.OPEN, task_id=task_id)

    def after_end(self, status: Status, note: str = "", file: str | None = None) -> "Entry":
        """Return the entry of a task that has ended."""
        return replace(self, status=status, note=note, file=file)

    @property
    def sent_text(self) -> str:
        """When its last request left, as text."""
        if self.sent_at is None:
            return "an unknown time"
        return f"{datetime.fromtimestamp(self.sent_at, UTC):%Y-%m-%d %H:%M:%S} UTC"


class Plan(Struct, frozen=True):
    """What to do: rows to submit, tasks to wait for, rows that may have been submitted.

    `entries` has an entry for each row that is in the file or was sent, `held_back` is how many
    rows are not submitted because of the limit.
    """

    entries: dict[str, Entry]
    submit: tuple[PromptRow, ...]
    wait: tuple[Entry, ...]
    unknown: tuple[Entry, ...]
    held_back: int = 0


def plan(
    rows: Iterable[PromptRow],
    journal: Mapping[str, Entry],
    *,
    max_tasks: int | None = None,
    resubmit_unknown: bool = False,
    lost_files: Collection[str] = (),
) -> Plan:
    """Return what is left to do.

    `max_tasks` limits how many tasks may ever be paid for, those before this run included.
    `lost_files` are the keys of rows whose saved video is not there any more.
    """
    by_key = {row.key: row for row in rows}
    entries = {key: entry for key, entry in journal.items() if entry.tasks or key in by_key}
    for key, row in by_key.items():
        new = Entry(key=key, line=row.line, prompt=row.prompt)
        entries[key] = replace(entries.get(key, new), line=row.line)
    for key in lost_files:
        entries[key] = replace(entries[key], status=Status.COMPLETED, file=None)
    again = (*_TO_SUBMIT, *UNDECIDED) if resubmit_unknown else _TO_SUBMIT
    submit = [row for key, row in by_key.items() if entries[key].status in again]
    room = len(submit)
    if max_tasks is not None:
        room = max(max_tasks - sum(entry.tasks for entry in entries.values()), 0)
    chosen = {row.key for row in submit[:room]}
    return Plan(
        entries=entries,
        submit=tuple(submit[:room]),
        wait=tuple(one for one in entries.values() if one.status in _TO_WAIT_FOR),
        unknown=tuple(
            one for key, one in entries.items() if one.status in UNDECIDED and key not in chosen
        ),
        held_back=max(len(submit) - room, 0),
    )


class Step(StrEnum):
    """What is done after an error of a submission."""

    RETRY = "submit the row again later"
    SKIP = "the relay refuses this row: submit the others"
    STOP = "the relay refuses all rows: submit no more"
    UNKNOWN = "a task may run: never submit the row again by itself"


_OF_ALL_ROWS = (
    AuthenticationError, QuotaError, PermissionDeniedError, NoSuchRouteError, SetupError,
    SessionClosed,
)  # fmt: skip


def step_after(error: LumaError) -> Step:
    """Return what is done after an error of a submission."""
    if isinstance(error, SubmitUnknown):
        return Step.UNKNOWN
    if isinstance(error, _OF_ALL_ROWS):
        return Step.STOP
    refused = submission_outcome(error, sent=True) is Outcome.REFUSED
    return Step.SKIP if refused else Step.RETRY


def summary(entries: Iterable[Entry]) -> str:
    """Return how many rows stand where, in one line."""
    counts = Counter("unknown" if one.status in UNDECIDED else one.status for one in entries)
    order = dict.fromkeys(str(status) for status in Status if status is not Status.SENT)
    parts = [f"{counts[word]:,} {word}" for word in reversed(order) if counts[word]]
    total = sum(counts.values())
    return f"{total:,} row{'' if total == 1 else 's'}: {', '.join(parts) or 'nothing to do'}"


def remarks(entries: Iterable[Entry]) -> list[str]:
    """Return a line for each row that needs the user: unknown, refused, failed or not saved."""
    return [
        f"line {one.line}, {one.prompt!r}: {text}"
        for one in sorted(entries, key=lambda one: one.line)
        if (text := _remark(one))
    ]


def _remark(entry: Entry) -> str:
    if entry.status in UNDECIDED:
        why = f" ({entry.note})" if entry.note else ""
        return (
            f"may have been submitted at {entry.sent_text}{why}; check the tasks of your account "
            "at the relay, then give --resubmit-unknown to submit it again"
        )
    if entry.status is Status.REFUSED:
        return f"refused ({entry.note}); change the row, or run it again to try again"
    if entry.status is Status.FAILED:
        return f"failed ({entry.note}); change the row to submit it again"
    if entry.status in (Status.MISSING, Status.COMPLETED):
        reason = entry.note or entry.status
        return f"task {entry.task_id} has no video here ({reason}); run it again to try again"
    return ""
