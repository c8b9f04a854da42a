"""How commands write lengths of time, and share a bar."""

from collections.abc import Sequence
from itertools import accumulate, pairwise


def duration(seconds: float) -> str:
    """Write a length of time as people do: 27 ms, 0.53 s, 20.4 s, 3 min 20 s."""
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.995:
        return f"{seconds:.2f}".rstrip("0").rstrip(".") + " s"
    if seconds < 119.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes:,} min {rest} s"


def roughly(seconds: float) -> str:
    """Write a length of time that nobody knows exactly: 8 s, 40 s, 3 min, 2 h."""
    if seconds < 10:
        return f"{max(round(seconds), 1)} s"
    if seconds < 95:
        return f"{round(seconds, -1):.0f} s"
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    return f"{round(seconds / 3600)} h"


def shares(counts: Sequence[int], total: int, width: int) -> list[int]:
    """Share `width` cells of a bar among counts out of a total; they never add up to more."""
    edges = [round(width * upto / total) for upto in accumulate(counts, initial=0)]
    return [right - left for left, right in pairwise(edges)]
