"""The downloads in the live table: a bar for each, and a line for all of them."""

from collections import deque
from typing import TYPE_CHECKING

from luma_async.cli.display.progress import Progress
from luma_async.downloads.progress import DownloadProgress
from luma_async.structs import State

if TYPE_CHECKING:
    from rich.text import Text

BAR_WIDTH = 16  # characters
RATE_WINDOW = 5.0  # seconds


class TransferRate:
    """Bytes per second, over the last RATE_WINDOW seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def update(self, received: int, now: float) -> float:
        """Add the number of bytes received so far, and return the rate; 0 at the first call."""
        self._samples.append((now, received))
        while self._samples[0][0] < now - RATE_WINDOW:
            self._samples.popleft()
        begun, before = self._samples[0]
        return (received - before) / (now - begun) if now > begun else 0.0


def download_bar(event: DownloadProgress) -> "Text":
    """Draw how much of one video is saved; without a bar if its size is unknown."""
    from rich.filesize import decimal
    from rich.text import Text

    received = decimal(event.received)
    if not event.total:
        return Text(f"{received}, size unknown", "dim", no_wrap=True, overflow="ellipsis")
    filled = round(BAR_WIDTH * min(event.received / event.total, 1.0))
    return Text.assemble(
        ("━" * filled, "green"),
        ("─" * (BAR_WIDTH - filled), "dim"),
        (f" {received} of {decimal(event.total)}", "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )


def downloads_line(board: Progress, rate: float) -> str:
    """Return the sums of all downloads; an empty text if no video is to be saved."""
    from rich.filesize import decimal

    if not (board.saving or board.saved_count):
        return ""
    line = f"{board.saved_count:,} of {board.counts[State.COMPLETED]:,} videos saved"
    if not board.saving:
        return line
    events = board.saving.values()
    received = decimal(sum(event.received for event in events))
    totals = [event.total for event in events]
    of_total = f" of {decimal(sum(filter(None, totals)))}" if all(totals) else ""
    return f"{line}; {len(events)} under way: {received}{of_total}, {decimal(round(rate))}/s"
