"""The pictures of docs/howto/shell.md: the table as it lives, and the page of videos in a browser.

    python -m tests.bench.pictures            # into docs/; needs chromium

The relay, its tasks and their prompts are made up; the table is a moment of a real wait.
"""

import asyncio
import html
import io
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from luma_async import Learned, LumaSession
from luma_async.cli.commands.relay import PROMPTS
from luma_async.cli.display import html_report as report
from luma_async.cli.display.progress import Progress
from luma_async.cli.display.table import LiveTable
from luma_async.polling.hooks import ChangeEvent
from luma_async.testing import FakeRelay

DOCS = Path(__file__).parent.parent.parent / "docs"
WIDE, HIGH = 1200, 790
FONTS = re.compile(r"@font-face \{.*?\}\n", re.DOTALL)  # they would be fetched
TEXT = re.compile(r'textLength="[\d.]+"([^>]*)>([^<]*)</text>')
CELL_WIDTH = 12.2  # of a cell in a picture of rich
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--virtual-time-budget=4000",
)  # fmt: skip


async def main() -> None:
    """Draw both."""
    board = Progress()

    def learn(event: ChangeEvent) -> None:
        if event.generation is not None:
            board.learn(event.generation, time.monotonic(), datetime.now(UTC))

    async with (
        FakeRelay(seed=3) as relay,
        LumaSession(relay.url, api_key=relay.api_key, pace=Learned(0.5), on_change=learn) as luma,
    ):
        for number in range(18):
            relay.add(
                prompt=PROMPTS[number % len(PROMPTS)],
                duration=1.0 + 0.35 * number,
                queued=0.2 + 0.3 * number,
                ends="failed" if number % 7 == 4 else "completed",
            )
        drawn = LiveTable(_console(), board, lambda: luma.stats)
        await _wait(luma, board, list(relay.tasks), most=9)
        console = _console()
        console.print(drawn.draw(time.monotonic()))
        picture = console.export_svg(title="luma-async wait --file ids.txt")
        (DOCS / "table.svg").write_text(TEXT.sub(_by_cells, FONTS.sub("", picture)))
        await _wait(luma, board, [row.id for row in board.open], most=99)
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "videos.html"
            few = Progress()
            few.rows = dict(islice(board.rows.items(), 9))
            few.counts = Counter(row.word for row in few.rows.values())
            now, date = time.monotonic(), datetime.now(UTC)
            report.write(page, report.Page(few, now, date, page.parent, ["127.0.0.1"]))
            await asyncio.to_thread(shoot, page, page.with_suffix(".png"))
            Image.open(page.with_suffix(".png")).save(DOCS / "report.webp", quality=85)


async def _wait(luma: LumaSession, board: Progress, ids: list[str], *, most: int) -> None:
    board.add(ids, time.monotonic())
    following = luma.follow()
    following.add(ids)
    async for ended in following:
        board.end(ended.id, ended.generation, time.monotonic(), datetime.now(UTC))
        if board.ended >= most or not following:
            following.close()


def _by_cells(found: re.Match[str]) -> str:
    """Give a text the width of its cells: rich counts characters, and a Chinese one has two."""
    width = cell_len(html.unescape(found[2])) * CELL_WIDTH
    return f'textLength="{width:g}"{found[1]}>{found[2]}</text>'


def _console() -> Console:
    return Console(
        record=True, width=104, height=28, file=io.StringIO(), force_terminal=True, highlight=False
    )


def shoot(page: Path, picture: Path) -> None:
    """Let a browser draw a page."""
    chromium = shutil.which("chromium") or sys.exit("there is no chromium; apt-get install it")
    with tempfile.TemporaryDirectory() as profile:
        options = [f"--user-data-dir={profile}", f"--window-size={WIDE},{HIGH}"]
        command = [chromium, *QUIET, *options, f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    asyncio.run(main())
