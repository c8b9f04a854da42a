"""How commands share a bar among counts."""

from collections.abc import Sequence
from itertools import accumulate, pairwise


def shares(counts: Sequence[int], total: int, width: int) -> list[int]:
    """Share `width` cells of a bar among counts out of a total; they never add up to more."""
    edges = [round(width * upto / total) for upto in accumulate(counts, initial=0)]
    return [right - left for left, right in pairwise(edges)]
