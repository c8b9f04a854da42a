"""When an id is due, and when the next request is sent: a pace as the scheduler uses it.

Here for a pace that is a function of age: a request is sent when its first id is due. For `Learned`
see `learned_timing`.
"""

from collections.abc import Sequence
from math import inf

from luma_async.scheduling.pace import Backoff, Every, Pace, delay_of


class RequestTiming:
    """When ids are due and requests are sent, for a pace that is a function of age."""

    __slots__ = ("_pace",)

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    @property
    def pace(self) -> Pace:
        """The pace, with what it has learned."""
        return self._pace

    @property
    def linger_until(self) -> float:
        """Until when a new id waits to share a request with others."""
        return -inf

    @property
    def uses_task_age(self) -> bool:
        """Whether age is that of the task; if not, it is the time since the id was watched."""
        return False

    def group_key(self, created_at: float, sent_at: float) -> float:
        """Return a key: ids with the same key are due together, and ids of all ages between."""
        monotonic = type(self._pace) in (Every, Backoff)
        return delay_of(self._pace, sent_at - created_at) if monotonic else created_at

    def delay(self, created_at: float, sent_at: float, count: int = 1) -> float:
        """Return the seconds until `count` ids of this age, polled at `sent_at`, are due again."""
        return delay_of(self._pace, sent_at - created_at)

    def base_delay(self, created_at: float, sent_at: float) -> float:
        """Return the seconds until an id that is polled alone is due again."""
        return delay_of(self._pace, sent_at - created_at)

    def start_busy_period(self, phase: float) -> None:
        """Begin a busy period; its first delays are cut to this share, from 0 to 1."""

    def expedite(self, due: float) -> None:
        """Send the next request by `due` at the latest."""

    def send_at(self, first: float) -> float:
        """Return when the next request is sent; `first` is when the first id is due."""
        return first

    def on_added(self, added: int, now: float) -> None:
        """Count ids that are watched for the first time."""

    def on_removed(self, ended_at: Sequence[float | None]) -> None:
        """Remove ids that have ended at about these times; None: it has no watcher any more."""

    def on_sent(self, now: float, *, open_ids: int, max_ids: int, whole: bool, again: bool) -> None:
        """Count a request that was sent.

        `whole`: no id that was due is left; `again`: it retries ids that got no response.
        """

    def on_answer(self, sent_at: float, now: float) -> None:
        """Count a response to a request sent at `sent_at`."""

    def observe_open(self, created_at: float, last: float, sent_at: float, count: int) -> None:
        """Count `count` ids that were open at a poll, after the last one, at this age."""

    def observe_end(self, created_at: float, last: float, sent_at: float, count: int) -> None:
        """Count `count` ids of this age whose end was seen at a poll, after the last one."""
