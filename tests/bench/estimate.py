"""How often the estimate of the time left is right to a factor of two.

    python -m tests.bench.estimate

Draws of 200 tasks that were submitted together and are polled every 2.5 s; the median is 75 s.
Right: half of the rest has ended, and the last one has, after 0.5 to 2 times the estimated time.
"""

import math
import random
from collections.abc import Callable

from luma_async.cli.display.eta import remaining
from luma_async.scheduling.hazard import DurationCounter, DurationCounts

LOOK = 2.5
DRAWS, TASKS = 100, 200
Draw = Callable[[random.Random], float]
DURATIONS: dict[str, Draw] = {
    "lognormal, σ 0.35": lambda dice: dice.lognormvariate(math.log(75), 0.35),
    "lognormal, σ 1": lambda dice: dice.lognormvariate(math.log(75), 1.0),
    "exponential": lambda dice: dice.expovariate(math.log(2) / 75),
    "uniform": lambda dice: dice.uniform(0, 150),
}


def seen_at(now: float, durations: list[float]) -> DurationCounts:
    """Return what polls of all tasks have shown by some moment."""
    tally = DurationCounter(DurationCounts())
    for duration in durations:
        age = 0.0
        while age + LOOK <= now and age < duration:
            if age + LOOK < duration:
                tally.observe_open(age, age + LOOK)
            else:
                tally.observe_end(age, age + LOOK)
            age += LOOK
    return tally.counts()


def right(durations: list[float], share: float) -> tuple[bool, bool]:
    """Return whether both estimates are right when such a share has ended."""
    now = sorted(durations)[round(share * len(durations))]
    rest = sorted(one - now for one in durations if one > now)
    estimate = remaining(seen_at(now, durations), [now] * len(rest))
    assert estimate is not None
    half, last = estimate
    return 0.5 < half / rest[len(rest) // 2] < 2, 0.5 < last / rest[-1] < 2


def main() -> None:
    """Print the table."""
    print("| durations | ended | half of the rest | the last |\n|---|--:|--:|--:|")
    for name, draw in DURATIONS.items():
        for share in (0.2, 0.4, 0.6, 0.8):
            dice = random.Random(7)
            shares = [right([draw(dice) for _ in range(TASKS)], share) for _ in range(DRAWS)]
            half, last = (sum(one[n] for one in shares) / DRAWS for n in (0, 1))
            print(f"| {name} | {share:.0%} | {half:.0%} | {last:.0%} |")


if __name__ == "__main__":
    main()
