"""What each odd relay makes the library believe: reported rightly, wrongly missing, another's.

    python -m tests.bench.odd [--tasks N] [--seed N] [--only TEXT] [--replay FILE …] [--write]

Each row is a run of its own in virtual time: the same tasks, through real HTTP to a relay with one
oddity (tests/odd_relays.py), beside the run with the honest relay. With --replay the relays are
those of captured files (luma-async capture) instead. --write puts the table into
docs/reliability.md.
"""

import argparse
import asyncio
import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from luma_async import Generation, GenerationsMissing, LumaSession, WaitAborted, WaitIncomplete
from luma_async.testing import FakeRelay, run_virtual
from tests.bench.pages import write_table
from tests.odd_relays import ODDITIES, Oddity, OddRelay

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
HEAD = (
    "| relay | tasks | reported rightly | wrongly missing | another's | requests | "
    "against honest | last reported after |\n|---|--:|--:|--:|--:|--:|--:|--:|"
)


@dataclass(frozen=True)
class Run:
    """What one run showed; `seconds` until the last task was reported."""

    name: str
    tasks: int
    right: int
    missing: int
    others: int
    requests: int
    seconds: float

    def row(self, honest: "Run") -> str:
        cells = [
            self.name.replace("|", "\\|"), self.tasks, self.right, self.missing, self.others,
            self.requests, f"{self.requests / honest.requests:.2f}", f"{self.seconds:.0f} s",
        ]  # fmt: skip
        return "| " + " | ".join(map(str, cells)) + " |"


async def against(relay: FakeRelay, name: str, tasks: int, gone: int, seed: int) -> Run:
    """Wait for all tasks of a relay; `gone` more do not exist."""
    dice = random.Random(seed)
    loop = asyncio.get_running_loop()
    async with relay:
        ids = [
            relay.add(
                duration=dice.uniform(20.0, 180.0),
                ends="failed" if dice.random() < 0.1 else "completed",
            )
            for _ in range(tasks)
        ]
        unknown = [f"gone-{number}" for number in range(gone)]
        begun = loop.time()
        done: dict[str, Generation] = {}
        missing: tuple[str, ...] = ()
        async with LumaSession(relay.url, api_key=relay.api_key) as luma:
            try:
                done = await luma.wait_until_done([*ids, *unknown], timeout=7200.0)
            except (GenerationsMissing, WaitAborted) as error:
                done, missing = error.done, error.missing
            except WaitIncomplete as error:
                done, missing = error.done, error.missing
        seconds = loop.time() - begun
        right = sum(
            task_id in done and done[task_id].state == relay.tasks[task_id].ends for task_id in ids
        )
        wrong = sum(task_id not in unknown for task_id in missing)
        others = sum("stranger" in (one.url or "") for one in done.values())
        return Run(name, tasks, right, wrong, others, relay.requests, seconds)


def table(args: argparse.Namespace) -> Iterator[str]:
    yield HEAD

    def run(oddity: Oddity | None, gone: int = 0) -> Run:
        name = oddity.name if oddity else f"honest, {gone} gone" if gone else "honest"
        relay = OddRelay(oddity, seed=args.seed, latency=0.05)
        return run_virtual(against(relay, name, args.tasks, gone, args.seed))

    honest = run(None)
    yield honest.row(honest)
    for file in args.replay:
        replayed = FakeRelay.replay(file, seed=args.seed, latency=0.05)
        yield run_virtual(against(replayed, file.name, args.tasks, 0, args.seed)).row(honest)
    if args.replay:
        return
    yield run(None, args.tasks // 20).row(honest)
    for name, oddity in ODDITIES.items():
        if args.only in name:
            yield run(oddity).row(honest)


def main() -> None:
    logging.getLogger("luma_async").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="TEXT", help="oddities with this in the name")
    parser.add_argument(
        "--replay", nargs="+", default=[], type=Path, metavar="FILE", help="captured files"
    )
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    lines: list[str] = []
    for line in table(args):
        print(line, flush=True)
        lines.append(line)
    if args.write:
        write_table(PAGE, "odd", lines)


if __name__ == "__main__":
    main()
