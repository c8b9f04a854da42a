"""What is odd about one id: missing, without a link, in exile."""

from math import inf

from msgspec import Struct

MIN_NOT_FOUND_ANSWERS = 6


class Anomaly(Struct, gc=False, eq=False):
    """What is odd about one id, where anything is."""

    solo_polls_left: int = 0
    quarantines: int = 0
    not_found_count: int = 0
    not_found_since: float | None = None
    no_link_since: float | None = None
    ended_at: float | None = None

    @property
    def is_undecided(self) -> bool:
        """Whether an odd answer is to be believed or not before long."""
        return self.not_found_since is not None or self.no_link_since is not None

    @property
    def is_clear(self) -> bool:
        """Whether nothing of it has to be remembered."""
        return not (self.is_undecided or self.quarantines or self.ended_at is not None)

    def reset_on_answer(self) -> None:
        """Note an answer that names it."""
        self.solo_polls_left = max(0, self.solo_polls_left - 1)
        self.not_found_since = None
        self.not_found_count = 0

    def extend_grace(self, seconds: float) -> None:
        """Let no grace run for a time in which requests brought no answer."""
        self.not_found_since = (
            None if self.not_found_since is None else self.not_found_since + seconds
        )
        self.no_link_since = None if self.no_link_since is None else self.no_link_since + seconds

    def quarantine(self) -> None:
        """Let it travel alone for 1, 2, 4, … answers that make sense."""
        self.solo_polls_left = 2**self.quarantines
        self.quarantines += 1

    def next_deadline(self, departed: float, now: float, missing: float, link: float) -> float:
        """Return by when to look again so that no grace is overrun; inf where none is running."""
        hurry = inf
        for since, grace in ((self.not_found_since, missing), (self.no_link_since, link)):
            if since is not None and since + grace > now:
                hurry = min(hurry, since + grace)
        if self.not_found_since is not None and self.not_found_count <= MIN_NOT_FOUND_ANSWERS:
            hurry = min(hurry, departed + missing / MIN_NOT_FOUND_ANSWERS)
        return hurry
