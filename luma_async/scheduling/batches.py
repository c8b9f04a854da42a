"""What one request asks about: a batch of ids, and the bisection of a batch that was rejected."""

from collections.abc import Sequence
from typing import Generic

from luma_async.scheduling.items import Group, Item, Transition, W

FAILED_ATTEMPTS_OF_SINGLE = 6  # before the batch endpoint is tried for a single id


class Batch(Generic[W]):
    """One request: the ids it asks about, and how many of them still have a watcher."""

    __slots__ = (
        "bisection", "groups", "items", "sent_at", "use_batch_endpoint", "watched_count",
    )  # fmt: skip

    def __init__(
        self, groups: Sequence[Group[W]], now: float, bisection: "Bisection | None" = None
    ) -> None:
        self.groups: Sequence[Group[W]] = groups
        self.items: list[Item[W]] = [item for group in groups for item in group.items]
        self.bisection: Bisection | None = bisection
        self.watched_count: int = len(self.items)
        self.use_batch_endpoint: bool = self.watched_count > 1
        self.sent_at: float = now
        for group in groups:
            group.apply(Transition.SEND)
            group.batch = self

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, each once."""
        return tuple([item.task_id for item in self.items])

    @property
    def attempt(self) -> int:
        """The number of requests in a row about these ids, this one included."""
        return 1 + max(group.failed_attempts for group in self.groups)

    @property
    def is_quarantined(self) -> bool:
        """Whether it asks about one id that is in quarantine."""
        anomaly = self.items[0].anomaly
        return len(self.items) == 1 and anomaly is not None and anomaly.solo_polls_left > 0

    @property
    def try_batch_endpoint(self) -> bool:
        """Whether to ask about a single id by the batch endpoint.

        Once for an id that the single endpoint does not know, and every other time where the single
        endpoint does not respond at all.
        """
        failed = self.groups[0].failed_attempts
        if failed:
            return failed > FAILED_ATTEMPTS_OF_SINGLE and failed % 2 == 0
        anomaly = self.items[0].anomaly
        evidence = anomaly.evidence if anomaly else None
        return (
            evidence is not None
            and evidence.not_found > 0
            and not (evidence.left_out or evidence.tried_batch)
        )

    def choose_endpoint(self, *, has_single: bool, has_batch: bool) -> None:
        """Use the batch endpoint for a single id, where that may say more."""
        if len(self.items) > 1:
            return
        self.use_batch_endpoint = not has_single or (has_batch and self.try_batch_endpoint)
        anomaly = self.items[0].anomaly
        if self.use_batch_endpoint and anomaly and anomaly.evidence:
            anomaly.evidence.tried_batch = True

    @property
    def hangs(self) -> bool:
        """Whether its ids timed out before, while others were answered."""
        return any(group.hangs for group in self.groups)

    @property
    def last_heard_at(self) -> float:
        """When one of its ids had a response last."""
        return max(group.last_heard_at for group in self.groups)

    @property
    def watched_since(self) -> float:
        """Since when the id watched last has been watched."""
        return max(item.watched_since for item in self.items)

    def __repr__(self) -> str:
        return f"<Batch of {len(self.items)} ids, {self.watched_count} watched>"


class Bisection:
    """A rejected batch that is sent in parts; it was too large if all parts pass.

    A part of one id proves nothing: it goes to the single endpoint. `size_evidence` is how far the
    rejection says that the batch was too large.
    """

    __slots__ = ("parts", "root", "size", "size_evidence")

    def __init__(self, size: int, parent: "Bisection | None", size_evidence: int) -> None:
        self.size: int = size
        self.parts: int = 2
        self.root: Bisection = parent.root if parent else self
        self.size_evidence: int = size_evidence

    def part_passed(self) -> bool:
        """Count a part that passed. Return whether all have."""
        self.parts -= 1
        return self.parts == 0
