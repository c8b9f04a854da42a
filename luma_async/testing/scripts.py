"""The scripts of submitted tasks: what the next submissions to a FakeRelay become.

Pure: no clock, no random numbers.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import cast

from luma_async.testing.types import TaskEnd, seconds

ENDS: tuple[TaskEnd, ...] = ("completed", "failed", "never")
MODERATED = "Advanced moderation failed"


@dataclass(frozen=True, slots=True)
class Script:
    """The script of a submitted task; set it as `FakeRelay.script`.

    The task is pending for `queued` seconds, then processing until `duration` seconds after the
    submission, then completed or failed, as `ends` says; with `ends="never"` it stays processing.
    The relay does not know it for the first `visible_after` seconds. A completed task has no link
    until `link_after` seconds later. `failure_reason` is that of a failed task.

    Raises ValueError or TypeError for invalid values.
    """

    duration: float = 0.0
    ends: TaskEnd = "completed"
    queued: float = 0.0
    visible_after: float = 0.0
    link_after: float = 0.0
    failure_reason: str = MODERATED

    def __post_init__(self) -> None:
        check_ends(self.ends, ENDS)
        for name in ("duration", "queued", "visible_after", "link_after"):
            seconds(name, getattr(self, name))
        if self.ends != "never" and self.queued > self.duration:
            raise ValueError(
                f"queued is {self.queued:g} of {self.duration:g} seconds: make duration longer"
            )


Scripts = Script | Iterable[Script] | None


class TaskScripts:
    """The scripts of the next submissions. `given` is what was set."""

    def __init__(self) -> None:
        self.given: Scripts = None
        self._next = check_scripts(None)
        self._unused: deque[Script] = deque()

    def set(self, given: Scripts) -> None:
        """Set the scripts; TypeError for other values, which change nothing."""
        following = check_scripts(given)
        is_list = isinstance(given, Sequence)
        self._unused = deque(following if is_list else ())
        self._next = iter(self._unused.copy()) if is_list else following
        self.given = given

    def next(self) -> Script | None:
        """Return the script of the next submission; None if there is none."""
        if self._unused:
            self._unused.popleft()
        return next(self._next, None)

    def unused(self) -> list[str]:
        """Return a text for each script of a list that no submission used."""
        return [str(script) for script in self._unused]


def check_scripts(value: object) -> Iterator[Script]:
    """Return an iterator over the scripts: one for ever, each of several once, or none."""
    if value is None:
        return iter(())
    if isinstance(value, Script):
        return repeat(value)
    if not isinstance(value, Iterable) or isinstance(value, str | bytes):
        raise TypeError(f"script is of type {type(value).__name__}: give a Script, or a list")
    return map(_check_script, cast("Iterable[object]", value))


def _check_script(value: object) -> Script:
    if not isinstance(value, Script):
        raise TypeError(f"a script is of type {type(value).__name__}: give a Script")
    return value


def check_ends(ends: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError if `ends` is not one of the allowed values."""
    if ends not in allowed:
        raise ValueError(f"ends is {ends!r}: give one of {', '.join(allowed)}")
