"""Wait for many videos at once, and print a table of what became of them.

python docs/examples/many.py [--timeout SECONDS] [ID …]

Without ids it submits ten videos of its own. What is not told in time is named at the end, so that
the same command with these ids goes on.
"""

import argparse
import asyncio
import os
import sys

import aiohttp

from luma_async import Generation, Learned, LumaSession, WaitIncomplete

PACE = Learned(float(os.environ.get("PACE", "5")))  # seconds; less where videos take seconds


async def submit(http: aiohttp.ClientSession, prompt: str) -> str:
    """Submit a video as your relay wants it; luma_async only waits."""
    async with http.post(
        f"{os.environ['LUMA_BASE_URL']}/luma/generations",
        json={"prompt": prompt},
        headers={"Authorization": f"Bearer {os.environ['LUMA_API_KEY']}"},
    ) as answer:
        if answer.status != 200:
            raise RuntimeError(f"the relay refuses: {answer.status} {await answer.text():.200}")
        told = await answer.json()
        return str(told["id"])


async def submit_ten() -> list[str]:
    """Submit ten videos at once."""
    async with aiohttp.ClientSession() as http:
        prompts = [f"a cat that dances, take {number}" for number in range(1, 11)]
        return await asyncio.gather(*(submit(http, prompt) for prompt in prompts))


async def main(ids: list[str], timeout: float) -> int:
    """Wait for all, say what became of them, and return the exit code."""
    ids = ids or await submit_ten()
    pending: list[str] = []
    async with LumaSession(pace=PACE) as luma:
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
