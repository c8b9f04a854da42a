"""How the table of a wait shows downloads."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from luma_async import DownloadProgress, State
from luma_async.cli.display.progress import Progress
from luma_async.cli.display.saving import BAR_WIDTH, TransferRate, download_bar, downloads_line
from luma_async.cli.display.table import LiveTable
from luma_async.polling.stats import Stats
from tests.test_progress import board_of, task


def saving(task_id: str, received: int, total: int | None) -> DownloadProgress:
    return DownloadProgress(id=task_id, received=received, total=total, path=None)


@pytest.mark.parametrize(
    ("received", "total", "filled", "text"),
    [
        (0, 2_000_000, 0, "0 bytes of 2.0 MB"),
        (500_000, 2_000_000, BAR_WIDTH // 4, "500.0 kB of 2.0 MB"),
        (2_000_000, 2_000_000, BAR_WIDTH, "2.0 MB of 2.0 MB"),
        (3_000_000, 2_000_000, BAR_WIDTH, "3.0 MB of 2.0 MB"),
        (500_000, None, 0, "500.0 kB, size unknown"),
        (0, 0, 0, "0 bytes, size unknown"),
    ],
)
def test_the_bar_shows_the_share_of_the_size(
    received: int, total: int | None, filled: int, text: str
) -> None:
    drawn = download_bar(saving("a", received, total)).plain
    assert drawn.count("━") == filled
    assert drawn.lstrip("━─ ") == text


def test_the_line_of_all_downloads_has_counts_bytes_and_rate() -> None:
    board = board_of(task("a"), task("b"), task("c", State.PROCESSING))
    assert downloads_line(board, 0.0) == ""
    board.record_download(saving("a", 1_000_000, 4_000_000))
    board.record_download(saving("b", 500_000, 2_000_000))
    expected = "0 of 2 videos saved; 2 under way: 1.5 MB of 6.0 MB, 2.5 MB/s"
    assert downloads_line(board, 2_500_000.0) == expected
    board.record_download(saving("b", 900_000, None))
    assert "2 under way: 1.9 MB, " in downloads_line(board, 1.0), "one size is unknown"
    board.record_file(board.rows["a"], Path("a.mp4"))
    board.record_file(board.rows["b"], None, "dead")
    assert downloads_line(board, 0.0) == "1 of 2 videos saved"


def test_bytes_of_an_earlier_run_are_not_in_the_rate() -> None:
    board = board_of(task("a"))
    board.record_download(saving("a", 3_000_000, 4_000_000))
    assert board.saved_bytes == 0
    board.record_download(saving("a", 3_500_000, 4_000_000))
    board.record_download(saving("a", 0, 4_000_000))  # begun again
    board.record_download(saving("a", 100, 4_000_000))
    assert board.saved_bytes == 500_100


def test_the_rate_is_that_of_the_last_seconds() -> None:
    rate = TransferRate()
    assert rate.update(0, 0.0) == 0.0
    assert rate.update(100, 1.0) == 100.0
    assert rate.update(1000, 4.0) == 250.0
    assert rate.update(1000, 6.5) == 0.0


def test_the_table_shows_the_bar_of_a_download_in_the_row_of_its_task() -> None:
    board: Progress = board_of(task("a"), task("b"))
    board.record_download(saving("b", 1_000_000, 4_000_000))
    console = Console(file=io.StringIO(), width=80, height=30, force_terminal=False)
    console.print(LiveTable(console, board, Stats).draw(12.0))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert "0 of 2 videos saved; 1 under way: 1.0 MB of 4.0 MB, 0 bytes/s" in lines
    assert any(line.startswith("completed  b ") and "━─" in line for line in lines)
    assert not any(line.startswith("completed  a ") and "━" in line for line in lines)


def test_a_download_is_among_the_rows_that_changed_last() -> None:
    board = board_of(task("a"), task("b"))
    board.record_download(saving("a", 0, None))
    assert list(board.changed) == ["b", "a"]
    board.record_download(saving("stranger", 0, None))
    assert list(board.changed) == ["b", "a"]
