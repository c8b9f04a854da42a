"""Tasks that clients submit: the body of the request, and the random outcome of the task.

Pure: the random generator is an argument.
"""

import random
from dataclasses import dataclass

import msgspec

from luma_async.testing.scripts import MODERATED, Script
from luma_async.testing.types import seconds

# The official API rejects others. Source: the types of its SDK.
ASPECT_RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21")
PROMPT = "cat dance"
ASPECT_RATIO = "16:9"

MAX_QUEUED_SHARE = 0.2  # of the duration
_FAILURE_REASONS = (
    MODERATED,
    "Failed to generate: content rejected by moderation",
    "The job could not be processed",
)


class Submission(msgspec.Struct):
    """The body of a submission; other fields are ignored."""

    prompt: str = ""
    user_prompt: str = ""
    aspect_ratio: str = ASPECT_RATIO


_decoder = msgspec.json.Decoder(Submission)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The possible outcomes of submitted tasks.

    `durations` are the shortest and the longest duration in seconds, `fails` is the share of tasks
    that fail. Raises ValueError or TypeError for invalid values.
    """

    durations: tuple[float, float]
    fails: float

    def __post_init__(self) -> None:
        if not isinstance(self.durations, tuple) or len(self.durations) != 2:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"durations is {self.durations!r}: give two numbers of seconds")
        shortest, longest = (seconds("durations", duration) for duration in self.durations)
        if shortest > longest:
            raise ValueError(f"durations is {self.durations!r}: give the shorter one first")
        if isinstance(self.fails, bool) or not isinstance(self.fails, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"fails is {self.fails!r}: give a share as a number")
        if not 0 <= self.fails <= 1:
            raise ValueError(f"fails is {self.fails!r}: give a share from 0 to 1")

    def draw(self, rng: random.Random) -> Script:
        """Draw a random script; each call draws the same count of random numbers."""
        duration = rng.uniform(*self.durations)
        queued = duration * MAX_QUEUED_SHARE * rng.random()
        fails, reason = rng.random(), rng.random()
        return Script(
            duration=duration,
            queued=queued,
            ends="failed" if fails < self.fails else "completed",
            failure_reason=_FAILURE_REASONS[int(reason * len(_FAILURE_REASONS))],
        )


def decode_submission(body: bytes) -> Submission:
    """Decode the body of a submission; raise ValueError, with a text for the client."""
    try:
        submitted = _decoder.decode(body)
    except (ValueError, RecursionError):
        raise ValueError("a JSON object with text fields is needed") from None
    submitted.prompt = submitted.prompt or submitted.user_prompt
    if not submitted.prompt.strip():
        raise ValueError("prompt: a text is needed")
    if submitted.aspect_ratio not in ASPECT_RATIOS:
        raise ValueError(f"aspect_ratio: one of {', '.join(ASPECT_RATIOS)} is needed")
    return submitted
