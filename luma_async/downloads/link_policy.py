"""What is done about a link that fails: try it again, ask the relay for another one, give up. Pure.

    meaning of the error      first                                   then
    NOT_YET, UNAVAILABLE      the link again, until `grace` is over   the relay, once
    EXPIRED, NEEDS_KEY                                                the relay, once
    any, of the new link      as above                                an error

`grace` begins with the first failure, for both links together. It is shorter for something else
than a video with status 200: a host that says that the file is there seldom changes its mind.
"""

from enum import Enum

from luma_async.downloads.host_errors import HostError, Meaning
from luma_async.scheduling.throttle import ExponentialBackoff

DEFAULT_GRACE = 60.0  # seconds
MAX_PAGE_GRACE = 10.0  # seconds, for something else than a video with status 200
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
        self._page_at: float | None = None
        self._failures = 0
        self._has_asked = False

    def next_step(self, error: HostError, now: float, roll: float) -> tuple[Step, float]:
        """Return what is done about a failure at `now`, and the seconds to wait before."""
        self._failures += 1
        rest = self._rest_of_grace(error, now)
        if error.meaning in (Meaning.NOT_YET, Meaning.UNAVAILABLE) and rest > 0:
            delay = _BACKOFF.delay(self._failures, (1.0 + roll) / 2)
            return Step.RETRY, min(delay, rest)
        if self._has_asked:
            return Step.FAIL, 0.0
        self._has_asked = True
        return Step.ASK_RELAY, 0.0

    def _rest_of_grace(self, error: HostError, now: float) -> float:
        if self._failed_at is None:
            self._failed_at = now
        end = self._failed_at + self._grace
        if error.status in (200, 206):
            if self._page_at is None:
                self._page_at = now
            end = min(end, self._page_at + MAX_PAGE_GRACE)
        return end - now


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
