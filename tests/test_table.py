"""What a person sees of a wait, drawn without a terminal."""

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
    """Return a board of ids that were given at 0 s, and of what they were at 10 s."""
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


def test_the_counts_the_cost_and_each_id_are_there() -> None:
    shown = drawn(board_of([State.COMPLETED, State.FAILED, State.PROCESSING, None]))
    assert "2 of 4 ended  1 waiting  1 processing  1 completed  1 failed" in shown
    assert "7 requests in 12 s; no estimate yet" in shown
    rows = {line.split()[1]: line for line in shown.splitlines() if " id-" in line}
    assert rows["id-0"].startswith("completed")
    assert rows["id-2"].split()[2:] == ["12", "s", "a", "cat"]
    assert "no reason given" in rows["id-1"]


def test_what_does_not_fit_is_cut_at_the_end_of_its_line() -> None:
    board = Progress()
    board.add(["4665a07c-7641-4809-a133-10786201bb56"], 0.0)
    task = Generation(id=next(iter(board.rows)), state=State.FAILED, failure_reason="long " * 99)
    board.rows[task.id].was_open = True
    board.end(task.id, task, 10.0, DATE)
    *_, row = drawn(board).splitlines()
    assert row.split()[:4] == ["failed", task.id, "10", "s"]
    assert row.rstrip().endswith("…")


def test_the_bar_is_as_full_as_what_has_ended() -> None:
    bar = drawn(board_of([State.COMPLETED, None, None, State.FAILED])).splitlines()[0]
    assert bar.count("━") == pytest.approx(len(bar) / 2, abs=1)


def test_of_too_many_rows_those_that_changed_last_are_shown() -> None:
    board = board_of([None] * 99 + [State.COMPLETED])
    shown = drawn(board, height=14)
    assert len(shown.splitlines()) <= 14
    assert "id-99" in shown
    assert "… and 94 more; those that changed last are shown" in shown


@pytest.mark.parametrize(("width", "height"), [(20, 5), (3, 1), (1, 1), (400, 200)])
def test_a_table_fits_into_any_terminal(width: int, height: int) -> None:
    shown = drawn(board_of([State.PROCESSING] * 50), width=width, height=height)
    assert max(map(len, shown.splitlines())) <= width


def test_an_estimate_is_told_roughly_once_ends_speak_for_one() -> None:
    learned = Learned(2.5, seen_at(60.0, [20.0 + number for number in range(60)]))
    shown = drawn(board_of([State.PROCESSING] * 9), Stats(learned=learned, quiet_for=3.0))
    assert "left alone for 3 s; half of the rest in about " in shown
    assert "by estimate" in " ".join(shown.split())


def test_hostile_text_is_text_on_the_screen() -> None:
    board = Progress()
    board.add([EVIL], 0.0)
    board.end(EVIL, Generation(id=EVIL, state=State.FAILED, failure_reason=EVIL), 1.0, DATE)
    shown = drawn(board)
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert shown.count("[bold]y") == 2


def test_a_warning_of_the_librarys_is_shown_below() -> None:
    console = Console(file=io.StringIO(), width=80, height=30)
    screen = LiveTable(console, board_of([None]), Stats)
    logger = logging.Logger("x")
    logger.addHandler(LastWarning(screen))
    logger.info("no trouble")
    logger.warning("a request failed: %s", f"status 502 {EVIL}")
    console.print(screen.draw(1.0))
    assert isinstance(console.file, io.StringIO)
    assert "a request failed: status 502 x\ufffd[31m\ufffd[bold]y" in console.file.getvalue()
    assert "no trouble" not in console.file.getvalue()


async def test_a_table_that_cannot_be_drawn_is_an_error_at_the_end(
    relay: FakeRelay, luma: LumaSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait goes on without it; but nobody is left to believe that it was well."""

    def broken(screen: LiveTable, now: float) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(LiveTable, "draw", broken)
    people = TerminalOutput(Console(file=io.StringIO(), force_terminal=True))
    with pytest.raises(ZeroDivisionError):
        async with people.living(Progress(), luma):
            await asyncio.sleep(0.05)


async def test_warnings_are_the_tables_while_it_lives_and_the_logs_again_after(
    relay: FakeRelay, luma: LumaSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("luma_async")
    monkeypatch.setattr(logger, "propagate", True)
    before = logger.handlers[:]
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    async with TerminalOutput(console).living(Progress(), luma):
        assert not logger.propagate, "a line would go through the table"
        (trouble,) = set(logger.handlers) - set(before)
        assert isinstance(trouble, LastWarning)
    assert (logger.handlers, logger.propagate) == (before, True)


def test_what_stays_is_the_count_and_of_a_wait_that_broke_off_each_open_id(
    capsys: pytest.CaptureFixture[str],
) -> None:
    board = board_of([State.COMPLETED, State.FAILED])
    (bad,) = outcome(board, 12.0, most=1)
    assert bad.plain.split()[:2] == ["failed", "id-1"], "of too many, those that went wrong stay"
    board.add(["[bold]x[/bold]", "b\x1b[31m"], 0.0)
    console = Console(file=io.StringIO(), width=80)
    people = TerminalOutput(console)
    people.over(board, Stats(requests=7))
    people.broken_off(board, "2 of 4 are still open")
    assert isinstance(console.file, io.StringIO)
    *_, count, first, second = console.file.getvalue().splitlines()
    assert count.startswith("2 waiting, 1 completed, 1 failed; 7 requests in ")
    assert (first, second) == ("[bold]x[/bold]", "b\ufffd[31m")
    assert capsys.readouterr().err == "luma-async: 2 of 4 are still open\n"
