"""Stats: what a session has done so far."""

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from luma_async.scheduling.pace import Learned
from luma_async.structs import State
from luma_async.text import format_duration


class Stats(Struct, frozen=True, kw_only=True):
    """A snapshot of a session: what it spent, what it learned, what is open.

    Counted since the session was entered: `requests` sent, `ids_asked` in them (an id counts each
    time), `errors` (requests that brought no answer), `throttled` (the 429 among them), and the
    ended ids: `completed`, `failed`, `missing`. `lag` and `lag_most` are seconds, the mean and the
    greatest of `lags` ends, from the last request that showed a task open to the answer that showed
    its end: the most by which the news can have been late.

    As of now: ids `open`, `oldest` (seconds for which the oldest of them has been watched),
    requests `in_flight`, and `quiet_for` (seconds until the next request may be sent after a
    failure). `learned` is the pace with what it has learned, if it learns and has seen anything.
    """

    requests: int = 0
    ids_asked: int = 0
    errors: int = 0
    throttled: int = 0
    completed: int = 0
    failed: int = 0
    missing: int = 0
    lag: float = 0.0
    lag_most: float = 0.0
    lags: int = 0
    open: int = 0
    oldest: float = 0.0
    in_flight: int = 0
    quiet_for: float = 0.0
    learned: Learned | None = None

    def __str__(self) -> str:
        """Return one line for operators: open ids, requests, errors, ended tasks."""
        ends = f"{self.completed} completed, {self.failed} failed, {self.missing} missing"
        lag = f", news at most {format_duration(self.lag)} late on average" if self.lags else ""
        return f"{self.now}; {ends}{lag}"

    @property
    def now(self) -> str:
        """What is open and what was spent, in words; trouble only where there is any."""
        return ", ".join(filter(None, self._words()))

    def _words(self) -> Iterator[str]:
        yield f"{self.open} open"
        yield f"oldest {format_duration(self.oldest)}" if self.open else ""
        yield f"{self.in_flight} in flight"
        yield f"{self.requests} requests"
        yield f"{self.errors} errors" if self.errors else ""
        yield f"{self.throttled} throttled" if self.throttled else ""
        yield f"quiet for {format_duration(self.quiet_for)}" if self.quiet_for else ""

    def after_request(self, ids: int) -> "Stats":
        """Return the stats after one more request about `ids` ids."""
        return replace(self, requests=self.requests + 1, ids_asked=self.ids_asked + ids)

    def after_error(self, *, throttled: bool) -> "Stats":
        """Return the stats after a request that brought no answer."""
        return replace(self, errors=self.errors + 1, throttled=self.throttled + throttled)

    def after_end(self, state: State | None, lag: float | None) -> "Stats":
        """Return the stats after an id ended; state None means missing."""
        return self.after_ends([(state, lag)])

    def after_ends(self, ends: Sequence[tuple[State | None, float | None]]) -> "Stats":
        """Return the stats after ids have ended, each with its state (None: missing) and lag."""
        states = [state for state, _ in ends]
        failed, missing = states.count(State.FAILED), states.count(None)
        lags = [lag for state, lag in ends if state is not None and lag is not None]
        count = self.lags + len(lags)
        return replace(
            self,
            completed=self.completed + len(states) - failed - missing,
            failed=self.failed + failed,
            missing=self.missing + missing,
            lag=self.lag + sum(lag - self.lag for lag in lags) / max(1, count),
            lag_most=max([self.lag_most, *lags]),
            lags=count,
        )
