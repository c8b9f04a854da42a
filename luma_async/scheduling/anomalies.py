"""Why an id needs special care: doubted, completed without a link, or quarantined."""

from math import inf

from msgspec import Struct

from luma_async.scheduling.missing_evidence import Evidence


class Anomaly(Struct, gc=False, eq=False):
    """The special care that one id needs.

    - `solo_polls_left`: how many responses it has to get by single GET before it rejoins a batch.
    - `quarantines`: how often it was quarantined.
    - `evidence`: what the responses without a row of it add up to.
    - `doubted`: the last response had no row of it.
    - `no_link_since`: when it was first seen completed without a link.
    - `unknown_state_since`: when it first had a link beside a state that is not known.
    - `ended_at`: when it ended, if that is not reported yet.
    """

    solo_polls_left: int = 0
    quarantines: int = 0
    evidence: Evidence | None = None
    doubted: bool = False
    no_link_since: float | None = None
    unknown_state_since: float | None = None
    ended_at: float | None = None

    @property
    def waits_for_link(self) -> bool:
        """Whether the grace period of a link is running."""
        return self.no_link_since is not None or self.unknown_state_since is not None

    @property
    def is_undecided(self) -> bool:
        """Whether a grace period is running."""
        return self.doubted or self.waits_for_link

    @property
    def is_clear(self) -> bool:
        """Whether nothing has to be remembered of it."""
        return not (self.is_undecided or self.quarantines or self.evidence)

    def evidence_or_new(self) -> Evidence:
        """Return its evidence, made if there was none."""
        if self.evidence is None:
            self.evidence = Evidence()
        return self.evidence

    def on_row(self, *, single: bool) -> bool:
        """Forget the evidence after a row of it.

        Return True for the first response to a single GET after batches left it out.
        """
        # - The first GET after batches left it out: polled alone for 0, 1, 3, … more responses.
        # - Another GET: one response less. It is still remembered that batches left it out.
        # - A batch that contains it: all of that is forgotten.
        # - Batches never left it out: it is in quarantine because it made batches fail.
        self.solo_polls_left = max(0, self.solo_polls_left - 1)
        self.doubted = False
        evidence, self.evidence = self.evidence, None
        if evidence is None or not evidence.left_out:
            return False
        if not single:
            self.quarantines = 0
            return False
        self.evidence = Evidence(left_out=True)
        if not evidence.omissions:
            return False
        self.solo_polls_left = 2**self.quarantines - 1
        self.quarantines += 1
        return True

    def after_silence(self, seconds: float) -> None:
        """Do not count the seconds in which requests got no response."""
        if self.no_link_since is not None:
            self.no_link_since += seconds
        if self.unknown_state_since is not None:
            self.unknown_state_since += seconds

    def quarantine(self) -> None:
        """Quarantine the id: poll it alone for the next 1, 2, 4, … responses."""
        self.solo_polls_left = 2**self.quarantines
        self.quarantines += 1

    def link_deadline(self, now: float, grace: float) -> float:
        """Return when the grace period of a link ends; inf if none runs."""
        starts = (self.no_link_since, self.unknown_state_since)
        ends = [start + grace for start in starts if start is not None]
        return min((end for end in ends if end > now), default=inf)
