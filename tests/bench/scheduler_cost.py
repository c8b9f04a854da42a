"""What scheduling costs: CPU of the Scheduler alone, per id in a request.

    python -m tests.bench.scheduler_cost [--open N …] [--batches N]

Taking a batch of 100 ids and completing it with a response without news, as a session with so many
open ids does all the time; no network, no clock. One ended task in a hundred polls keeps the
learning pace learning. The figure is µs per id, the least of five runs.
"""

import argparse
import time
from collections.abc import Callable

from luma_async import Every, Learned, Limits, Pace, State
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.scheduler import Scheduler
from tests.fake_answers import FakeAnswer

PACES: dict[str, Callable[[], Pace]] = {"Every": Every, "Learned": Learned}


def cost(pace: Pace, open_ids: int, batches: int) -> float:
    """Return the microseconds that one poll of an id costs the scheduler."""
    limits = Limits()
    scheduler: Scheduler[str] = Scheduler(pace, limits.max_batch, Grace(), spacing=limits.spacing)
    scheduler.subscribe("ann", map(str, range(open_ids)), 0.0)
    now = spent = 0.0
    asked = 0
    for turn in range(batches + open_ids // limits.max_batch):
        now = max(now + limits.spacing, scheduler.next_due())
        begun = time.process_time()
        batch = scheduler.take_batch(now)
        spent_now = time.process_time() - begun
        assert batch
        answer = FakeAnswer(
            dict.fromkeys(batch.ids, State.PROCESSING) | {batch.ids[0]: State.FAILED}
        )
        begun = time.process_time()
        scheduler.complete(batch, answer, now + 0.1)
        scheduler.next_due()
        spent_now += time.process_time() - begun
        scheduler.subscribe("ann", [f"new {turn}"], now + 0.1)
        if turn >= open_ids // limits.max_batch:
            spent += spent_now
            asked += len(batch.ids)
    return 1e6 * spent / asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--open", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--batches", type=int, default=1_000)
    args = parser.parse_args()
    for open_ids in args.open:
        least = {
            name: min(cost(pace(), open_ids, args.batches) for _ in range(5))
            for name, pace in PACES.items()
        }
        figures = ", ".join(f"{name} {figure:.1f} µs" for name, figure in least.items())
        print(f"{open_ids:>7} open: {figures}; ratio {least['Learned'] / least['Every']:.1f}")


if __name__ == "__main__":
    main()
