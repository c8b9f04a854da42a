"""What a client may submit, and what becomes of it: pure, from dice that are an argument."""

import random
from dataclasses import dataclass
from typing import Literal

import msgspec

from luma_async.testing.types import seconds

# The official API refuses others; what is typed in full here is what its SDK allows.
ASPECT_RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21")
PROMPT = "cat dance"
ASPECT_RATIO = "16:9"

_QUEUED = 0.2
_REASONS = (
    "Advanced moderation failed",
    "Failed to generate: content rejected by moderation",
    "The job could not be processed",
)


class Submission(msgspec.Struct):
    """The body of a submission; fields that have no name here are not looked at."""

    prompt: str = ""
    user_prompt: str = ""
    aspect_ratio: str = ASPECT_RATIO


_decode = msgspec.json.Decoder(Submission).decode


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a task: queued, then running, ended after `duration`; all in seconds."""

    duration: float
    queued: float
    ends: Literal["completed", "failed"]
    failure_reason: str


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What may become of submitted tasks: how long they take at least and at most, how many fail.

    ValueError or TypeError for what makes no sense.
    """

    durations: tuple[float, float]
    fails: float

    def __post_init__(self) -> None:
        if not isinstance(self.durations, tuple) or len(self.durations) != 2:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"durations is {self.durations!r}: give two numbers of seconds")
        least, most = (seconds("durations", each) for each in self.durations)
        if least > most:
            raise ValueError(f"durations is {self.durations!r}: give the least one first")
        if isinstance(self.fails, bool) or not isinstance(self.fails, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"fails is {self.fails!r}: give a share as a number")
        if not 0 <= self.fails <= 1:
            raise ValueError(f"fails is {self.fails!r}: give a share from 0 to 1")

    def draw(self, dice: random.Random) -> Outcome:
        """Draw what becomes of one; each draw rolls equally often."""
        duration = dice.uniform(*self.durations)
        queued, fails, reason = duration * _QUEUED * dice.random(), dice.random(), dice.random()
        return Outcome(
            duration=duration,
            queued=queued,
            ends="failed" if fails < self.fails else "completed",
            failure_reason=_REASONS[int(reason * len(_REASONS))],
        )


def read(body: bytes) -> Submission:
    """Read the body of a submission; ValueError, made for the client, where it is none."""
    try:
        submitted = _decode(body)
    except (ValueError, RecursionError):
        raise ValueError("a JSON object is needed, with texts in it") from None
    submitted.prompt = submitted.prompt or submitted.user_prompt
    if not submitted.prompt.strip():
        raise ValueError("prompt: a text is needed")
    if submitted.aspect_ratio not in ASPECT_RATIOS:
        raise ValueError(f"aspect_ratio: one of {', '.join(ASPECT_RATIOS)} is needed")
    return submitted
