"""What is odd about one id: missing, without a link, in exile."""

from math import inf

from msgspec import Struct

LOOKS = 6


class Odd(Struct, gc=False, eq=False):
    """What is odd about one id, where anything is."""

    alone: int = 0
    exiles: int = 0
    absences: int = 0
    missing: float | None = None
    linkless: float | None = None
    ended_at: float | None = None

    @property
    def is_in_doubt(self) -> bool:
        """Whether an odd answer is to be believed or not before long."""
        return self.missing is not None or self.linkless is not None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it has to be remembered."""
        return not (self.is_in_doubt or self.exiles or self.ended_at is not None)

    def named(self) -> None:
        """Note an answer that names it."""
        self.alone = max(0, self.alone - 1)
        self.missing = None
        self.absences = 0

    def unheard(self, seconds: float) -> None:
        """Let no grace run for a time in which requests brought no answer."""
        self.missing = None if self.missing is None else self.missing + seconds
        self.linkless = None if self.linkless is None else self.linkless + seconds

    def exile(self) -> None:
        """Let it travel alone for 1, 2, 4, … answers that make sense."""
        self.alone = 2**self.exiles
        self.exiles += 1

    def hurry(self, departed: float, now: float, missing: float, link: float) -> float:
        """Return by when to look again so that no grace is overrun; inf where none is running."""
        hurry = inf
        for since, grace in ((self.missing, missing), (self.linkless, link)):
            if since is not None and since + grace > now:
                hurry = min(hurry, since + grace)
        if self.missing is not None and self.absences <= LOOKS:
            hurry = min(hurry, departed + missing / LOOKS)
        return hurry
