"""Whether a rejected request (401, 402, 403) is about the API key, or about the ids in it.

It is about the key if a second request, sent within `MAX_BETWEEN` seconds, is rejected, none was
answered in between, and the second one asked about other ids, where other ids are open. Until the
next answer, one more rejection is enough.
"""

from collections.abc import Collection
from math import inf

MAX_BETWEEN = 2.0  # seconds


class KeyRejections:
    """Count requests that were rejected in a row. `is_rejected`: it is about the key.

    `spacing` is the seconds between two requests, where it is longer than `MAX_BETWEEN`.
    """

    __slots__ = ("_ids", "_max_between", "_rejected_at", "is_rejected", "rejections")

    def __init__(self, spacing: float) -> None:
        self._max_between = max(MAX_BETWEEN, 2.0 * spacing)
        self.is_rejected: bool = False
        self.rejections: int = 0
        self._rejected_at = -inf
        self._ids: frozenset[str] = frozenset()

    def record_response(self) -> None:
        """Record that a request was answered: the key is good."""
        self.is_rejected = False
        self.rejections = 0
        self._rejected_at = -inf

    def count_rejection(self) -> bool:
        """Count a rejected request. Return whether it was the second in a row, or later."""
        self.rejections += 1
        return self.rejections > 1

    def record_rejection(
        self, ids: Collection[str], sent_at: float, now: float, *, has_others: bool
    ) -> bool:
        """Record a rejected poll. Return whether it is about the key.

        `has_others`: ids are open that are not among `ids`.
        """
        self.count_rejection()
        others = not has_others or self._ids.isdisjoint(ids)
        if others and sent_at <= self._rejected_at + self._max_between:
            self.is_rejected = True
        self._rejected_at, self._ids = now, frozenset(ids)
        return self.is_rejected
