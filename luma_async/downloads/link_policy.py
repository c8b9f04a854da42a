"""What is done about a link that fails: try it again, ask the relay for another one, give up. Pure.

    meaning of the error      first                                   then
    NOT_YET, UNAVAILABLE      the link again, until `grace` is over   the relay, once
    EXPIRED, NEEDS_KEY                                                the relay, once
    any, of the new link      as above                                an error

`grace` begins with the first failure, for both links together.
"""

from enum import Enum

from luma_async.downloads.host_errors import Meaning
from luma_async.scheduling.throttle import ExponentialBackoff

DEFAULT_GRACE = 60.0  # seconds
MAX_YOUNG_AGE = 86_400.0  # seconds since the submission; the files of older tasks do not come late
MIN_DEAD_FOR = 120.0  # seconds after which a link that the relay repeats is lost
MAX_DEAD_LINKS = 10_000

_BACKOFF = ExponentialBackoff(base=1.0, cap=10.0)


class Step(Enum):
    """What is done next."""

    RETRY = "retry"
    ASK_RELAY = "ask the relay for another link"
    FAIL = "fail"


class LinkPolicy:
    """The failures of the links of one task, and what is done about them.

    `grace` is in seconds. `roll` is a random number in [0, 1).
    """

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._failed_at: float | None = None
        self._failures = 0
        self._has_asked = False

    def next_step(self, meaning: Meaning, now: float, roll: float) -> tuple[Step, float]:
        """Return what is done about a failure at `now`, and the seconds to wait before."""
        if self._failed_at is None:
            self._failed_at = now
        self._failures += 1
        rest = self._failed_at + self._grace - now
        if meaning in (Meaning.NOT_YET, Meaning.UNAVAILABLE) and rest > 0:
            delay = _BACKOFF.delay(self._failures, (1.0 + roll) / 2)
            return Step.RETRY, min(delay, rest)
        if self._has_asked:
            return Step.FAIL, 0.0
        self._has_asked = True
        return Step.ASK_RELAY, 0.0


class DeadLinks:
    """When links failed for the first time: how long a link must have been dead is known here."""

    def __init__(self) -> None:
        self._failed_at: dict[str, float] = {}

    def record(self, link: str, now: float) -> None:
        """Record a failure of a link; the first one counts."""
        self._failed_at.setdefault(link, now)
        if len(self._failed_at) > MAX_DEAD_LINKS:
            del self._failed_at[next(iter(self._failed_at))]

    def forget(self, link: str) -> None:
        """Record that a link works."""
        self._failed_at.pop(link, None)

    def dead_for(self, link: str, now: float) -> float:
        """Return the seconds since the first failure of a link."""
        return now - self._failed_at.get(link, now)
