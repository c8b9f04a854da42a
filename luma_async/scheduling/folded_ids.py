"""Ids by their name without regard to case, for relays that change the case of names."""

from collections.abc import Collection, Iterable


class FoldedIds:
    """The open ids, by their lower case."""

    __slots__ = ("_ids",)

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids: dict[str, dict[str, None]] = {}
        self.add(ids)

    def like(self, name: str) -> Collection[str]:
        """Return the ids that equal a name without regard to case."""
        return self._ids.get(name.lower(), ())

    def add(self, ids: Iterable[str]) -> None:
        """Add ids."""
        for task_id in ids:
            self._ids.setdefault(task_id.lower(), {})[task_id] = None

    def remove(self, task_id: str) -> None:
        """Remove an id."""
        alike = self._ids[task_id.lower()]
        del alike[task_id]
        if not alike:
            del self._ids[task_id.lower()]
