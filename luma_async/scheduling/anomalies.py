"""Why an id needs special care: not found, completed without a link, or quarantined."""

from math import inf

from msgspec import Struct

MIN_NOT_FOUND_ANSWERS = 6


class Anomaly(Struct, gc=False, eq=False):
    """The special care that one id needs.

    `solo_polls_left` is how many responses it has to get by single GET before it rejoins a batch,
    `quarantines` how often it was quarantined, `not_found_count` how many responses in a row did
    not contain it, since `not_found_since`. It is completed without a link since `no_link_since`.
    """

    solo_polls_left: int = 0
    quarantines: int = 0
    not_found_count: int = 0
    not_found_since: float | None = None
    no_link_since: float | None = None
    ended_at: float | None = None

    @property
    def is_undecided(self) -> bool:
        """Whether a grace period is running: not found, or without a link."""
        return self.not_found_since is not None or self.no_link_since is not None

    @property
    def is_clear(self) -> bool:
        """Whether nothing has to be remembered of it."""
        return not (self.is_undecided or self.quarantines or self.ended_at is not None)

    def reset_on_answer(self) -> None:
        """Reset what counts responses without the id."""
        self.solo_polls_left = max(0, self.solo_polls_left - 1)
        self.not_found_since = None
        self.not_found_count = 0

    def extend_grace(self, seconds: float) -> None:
        """Extend the grace periods by the seconds in which requests got no response."""
        self.not_found_since = (
            None if self.not_found_since is None else self.not_found_since + seconds
        )
        self.no_link_since = None if self.no_link_since is None else self.no_link_since + seconds

    def quarantine(self) -> None:
        """Quarantine the id: poll it alone for the next 1, 2, 4, … responses."""
        self.solo_polls_left = 2**self.quarantines
        self.quarantines += 1

    def next_deadline(self, sent_at: float, now: float, missing: float, link: float) -> float:
        """Return by when to poll again so that no grace period is overrun; inf if none runs."""
        deadline = inf
        for since, grace in ((self.not_found_since, missing), (self.no_link_since, link)):
            if since is not None and since + grace > now:
                deadline = min(deadline, since + grace)
        if self.not_found_since is not None and self.not_found_count <= MIN_NOT_FOUND_ANSWERS:
            deadline = min(deadline, sent_at + missing / MIN_NOT_FOUND_ANSWERS)
        return deadline
