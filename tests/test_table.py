"""The live table, warnings and final lines of a wait, rendered without a terminal."""

import asyncio
import io
import logging
from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from rich.console import Console

from luma_async import Generation, Learned, LumaSession, Request, State, Stats
from luma_async.cli.display.output import TerminalOutput
from luma_async.cli.display.progress import Progress
from luma_async.cli.display.table import LastWarning, LiveTable, outcome
from luma_async.testing import FakeRelay
from tests.bench.estimate import seen_at

DATE = datetime(2026, 11, 21, 12, tzinfo=UTC)
EVIL = "x\x1b[31m\u202e[bold]y"


def board_of(states: Iterable[State | None]) -> Progress:
    """Return the progress of ids that were added at 0 s and had these states at 10 s."""
    board = Progress()
    for number, state in enumerate(states):
        (task_id,) = board.add([f"id-{number}"], 0.0)
        if state is None:
            continue
        task = Generation(id=task_id, state=state, request=Request(prompt="a cat"))
        if state.is_done:
            board.end(task_id, task, 10.0, DATE)
        else:
            board.learn(task, 10.0, DATE)
    return board


def drawn(board: Progress, stats: Stats | None = None, *, width: int = 80, height: int = 30) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(LiveTable(console, board, lambda: stats or Stats(requests=7)).draw(12.0))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_shows_the_counts_the_requests_and_each_id() -> None:
    shown = drawn(board_of([State.COMPLETED, State.FAILED, State.PROCESSING, None]))
    assert "2 of 4 ended  1 waiting  1 processing  1 completed  1 failed" in shown
    assert "7 requests in 12 s; no estimate yet" in shown
    rows = {line.split()[1]: line for line in shown.splitlines() if " id-" in line}
    assert rows["id-0"].startswith("completed")
    assert rows["id-2"].split()[2:] == ["12", "s", "a", "cat"]
    assert "no reason given" in rows["id-1"]


def test_a_long_reason_is_cut_at_the_end_of_the_line() -> None:
    board = Progress()
    board.add(["4665a07c-7641-4809-a133-10786201bb56"], 0.0)
    task = Generation(id=next(iter(board.rows)), state=State.FAILED, failure_reason="long " * 99)
    board.rows[task.id].was_open = True
    board.end(task.id, task, 10.0, DATE)
    *_, row = drawn(board).splitlines()
    assert row.split()[:4] == ["failed", task.id, "10", "s"]
    assert row.rstrip().endswith("…")


def test_the_note_of_a_command_is_shown_below_the_rows() -> None:
    board = board_of([State.PENDING])
    assert len(drawn(board).splitlines()) == 5
    board.note = "812 rows not submitted yet"
    assert drawn(board).splitlines()[-1].strip() == "812 rows not submitted yet"


def test_the_bar_shows_the_share_of_ended_tasks() -> None:
    bar = drawn(board_of([State.COMPLETED, None, None, State.FAILED])).splitlines()[0]
    assert bar.count("━") == pytest.approx(len(bar) / 2, abs=1)


def test_a_full_table_shows_the_rows_that_changed_last() -> None:
    board = board_of([None] * 99 + [State.COMPLETED])
    shown = drawn(board, height=14)
    assert len(shown.splitlines()) <= 14
    assert "id-99" in shown
    assert "… and 94 more; those that changed last are shown" in shown


@pytest.mark.parametrize(("width", "height"), [(20, 5), (3, 1), (1, 1), (400, 200)])
def test_a_table_is_never_wider_than_the_terminal(width: int, height: int) -> None:
    shown = drawn(board_of([State.PROCESSING] * 50), width=width, height=height)
    assert max(map(len, shown.splitlines())) <= width


def test_a_rounded_estimate_is_shown_after_enough_tasks_have_ended() -> None:
    learned = Learned(2.5, seen_at(60.0, [20.0 + number for number in range(60)]))
    shown = drawn(board_of([State.PROCESSING] * 9), Stats(learned=learned, quiet_for=3.0))
    assert "left alone for 3 s; half of the rest in about " in shown
    assert "by estimate" in " ".join(shown.split())


def test_control_characters_and_markup_in_texts_are_not_interpreted() -> None:
    board = Progress()
    board.add([EVIL], 0.0)
    board.end(EVIL, Generation(id=EVIL, state=State.FAILED, failure_reason=EVIL), 1.0, DATE)
    shown = drawn(board)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert shown.count("[bold]y") == 2


def test_a_warning_of_the_library_is_shown_below_the_table() -> None:
    console = Console(file=io.StringIO(), width=80, height=30)
    table = LiveTable(console, board_of([None]), Stats)
    logger = logging.Logger("x")
    logger.addHandler(LastWarning(table))
    logger.info("no trouble")
    logger.warning("a request failed: %s", f"status 502 {EVIL}")
    console.print(table.draw(1.0))
    assert isinstance(console.file, io.StringIO)
    assert "a request failed: status 502 x\ufffd[31m\ufffd[bold]y" in console.file.getvalue()
    assert "no trouble" not in console.file.getvalue()


async def test_an_error_of_the_table_is_raised_after_the_wait(
    relay: FakeRelay, luma: LumaSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait itself continues without the table."""

    def raise_error(table: LiveTable, now: float) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(LiveTable, "draw", raise_error)
    output = TerminalOutput(Console(file=io.StringIO(), force_terminal=True))
    with pytest.raises(ZeroDivisionError):
        async with output.living(Progress(), luma):
            await asyncio.sleep(0.05)


async def test_warnings_go_to_the_table_while_it_is_shown_and_to_the_log_afterwards(
    relay: FakeRelay, luma: LumaSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("luma_async")
    monkeypatch.setattr(logger, "propagate", True)
    before = logger.handlers[:]
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    async with TerminalOutput(console).living(Progress(), luma):
        assert not logger.propagate, "a line of the log would break the table"
        (handler,) = set(logger.handlers) - set(before)
        assert isinstance(handler, LastWarning)
    assert (logger.handlers, logger.propagate) == (before, True)


def test_the_last_lines_are_the_counts_and_after_an_interruption_the_open_ids(
    capsys: pytest.CaptureFixture[str],
) -> None:
    board = board_of([State.COMPLETED, State.FAILED])
    (bad,) = outcome(board, 12.0, most=1)
    assert bad.plain.split()[:2] == ["failed", "id-1"], "failed tasks come first if not all fit"
    board.add(["[bold]x[/bold]", "b\x1b[31m"], 0.0)
    console = Console(file=io.StringIO(), width=80)
    output = TerminalOutput(console)
    output.over(board, Stats(requests=7))
    output.broken_off(board, "2 of 4 are still open")
    assert isinstance(console.file, io.StringIO)
    *_, count, first, second = console.file.getvalue().splitlines()
    assert count.startswith("2 waiting, 1 completed, 1 failed; 7 requests in ")
    assert (first, second) == ("[bold]x[/bold]", "b\ufffd[31m")
    assert capsys.readouterr().err == "luma-async: 2 of 4 are still open\n"


async def test_the_last_warning_is_printed_again_after_an_interruption(
    luma: LumaSession, capsys: pytest.CaptureFixture[str]
) -> None:
    output = TerminalOutput(Console(file=io.StringIO(), force_terminal=True, width=80))
    async with output.living(Progress(), luma):
        logging.getLogger("luma_async").warning("a request failed: %s", "status 502")
    output.broken_off(Progress(), "1 of 1 is still open")
    warning, why = capsys.readouterr().err.splitlines()
    assert warning.startswith("luma-async: the last warning, at ")
    assert warning.endswith(" a request failed: status 502")
    assert why == "luma-async: 1 of 1 is still open"
