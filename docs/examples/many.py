"""Wait for many videos at once, and print a table of what became of them.

python docs/examples/many.py [--timeout SECONDS] [ID …]

Without ids it submits ten videos of its own. What is not told in time is named at the end, so that
the same command with these ids goes on.
"""

import argparse
import asyncio
import os
import sys

from luma_async import Generation, Learned, LumaSession, WaitIncomplete

PACE = Learned(float(os.environ.get("PACE", "5")))  # seconds; less where videos take seconds


async def submit_ten(luma: LumaSession) -> list[str]:
    """Submit ten videos at once."""
    prompts = [f"a cat that dances, take {number}" for number in range(1, 11)]
    tasks = await asyncio.gather(*(luma.create(prompt) for prompt in prompts))
    return [task.id for task in tasks]


async def main(ids: list[str], timeout: float) -> int:
    """Wait for all, say what became of them, and return the exit code."""
    pending: list[str] = []
    async with LumaSession(pace=PACE) as luma:
        ids = ids or await submit_ten(luma)
        try:
            done = await luma.wait_until_done(ids, timeout=timeout)
        except WaitIncomplete as error:
            print(f"not all: {error}", file=sys.stderr)
            done, pending = error.done, list(error.pending)
    print_table(done)
    if pending:
        print(f"still open: {' '.join(map(printable, pending))}", file=sys.stderr)
    return 0 if len(done) == len(set(ids)) else 1


def print_table(done: dict[str, Generation]) -> None:
    """Print a line for each task that has ended."""
    for task_id, generation in done.items():
        what = generation.url or generation.failure_reason or "no link"
        print(f"{printable(task_id):36}  {generation.state.value:9}  {printable(what)}")


def printable(text: str) -> str:
    """Take out what would move the cursor: ids and reasons are other people's text."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Wait for many videos.")
    parser.add_argument("ids", nargs="*", metavar="ID")
    parser.add_argument("--timeout", type=float, default=1800.0, metavar="SECONDS")
    arguments = parser.parse_args()
    sys.exit(asyncio.run(main(arguments.ids, arguments.timeout)))
