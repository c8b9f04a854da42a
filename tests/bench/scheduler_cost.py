"""What it costs to decide who goes next: CPU of the Book alone, per id asked about.

    python -m tests.bench.scheduler_cost [--open N …] [--calls N]

Taking a call of 100 ids and settling it with an answer that shows nothing new, as a session with so
many open ids does it all day; no network, no clock. One end in a hundred looks keeps the learning
pace learning. The figure is µs per id, the least of five runs.
"""

import argparse
import time
from collections.abc import Callable

from luma_async import Every, Learned, Limits, Pace, State
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.scheduler import Scheduler
from tests.fake_answers import Told

PACES: dict[str, Callable[[], Pace]] = {"Every": Every, "Learned": Learned}


def deciding(pace: Pace, open_ids: int, calls: int) -> float:
    """Return the microseconds that one look at an id costs the book."""
    limits = Limits()
    book: Scheduler[str] = Scheduler(pace, limits.max_batch, Grace(), spacing=limits.spacing)
    book.subscribe("somebody", map(str, range(open_ids)), 0.0)
    now = spent = 0.0
    asked = 0
    for turn in range(calls + open_ids // limits.max_batch):
        now = max(now + limits.spacing, book.next_due())
        begun = time.process_time()
        call = book.take_batch(now)
        spent_now = time.process_time() - begun
        assert call
        told = Told(dict.fromkeys(call.ids, State.PROCESSING) | {call.ids[0]: State.FAILED})
        begun = time.process_time()
        book.complete(call, told, now + 0.1)
        book.next_due()
        spent_now += time.process_time() - begun
        book.subscribe("somebody", [f"new {turn}"], now + 0.1)
        if turn >= open_ids // limits.max_batch:
            spent += spent_now
            asked += len(call.ids)
    return 1e6 * spent / asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--open", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--calls", type=int, default=1_000)
    args = parser.parse_args()
    for open_ids in args.open:
        least = {
            name: min(deciding(pace(), open_ids, args.calls) for _ in range(5))
            for name, pace in PACES.items()
        }
        figures = ", ".join(f"{name} {figure:.1f} µs" for name, figure in least.items())
        print(f"{open_ids:>7} open: {figures}; ratio {least['Learned'] / least['Every']:.1f}")


if __name__ == "__main__":
    main()
