"""`luma-async demo`: many waits on a relay in this process, drawn on the terminal.

rich draws, and is imported only when there is something to draw: help and version work without.
"""

import argparse
from typing import TYPE_CHECKING

from msgspec import Struct

from luma_async.cli.demo import FAILING, Progress, Report, Settings, demo
from luma_async.cli.display.words import shares
from luma_async.cli.options.types import Commands, add_command, count, seconds, whole
from luma_async.cli.runtime import UNUSABLE, print_error, run, run_and_report
from luma_async.text import format_precisely

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

MOST_TASKS = 100_000

_NO_RICH = "the demo needs rich, which is missing; pip install 'luma-async[cli]'"
_WIDEST = 76
_COLOURS = {"completed": "green", "failed": "red", "processing": "yellow", "pending": "dim"}
_MARKS = "━━━─"
_PLAIN_MARKS = "#x=-"


class Row(Struct, frozen=True):
    """One line of the report: what, how much, and what to know about it; no value: a heading."""

    label: str
    value: str = ""
    note: str = ""


def add_demo(commands: Commands) -> None:
    """Add the command."""
    about = "wait for many tasks on a relay in this process: no key, no network"
    odds = f"About {FAILING:.0%} of the tasks fail, on purpose."
    parser = add_command(commands, "demo", about, run_demo, more=f" {odds}")
    usual = Settings()
    for name, kind, default, what in (
        ("tasks", count(MOST_TASKS), usual.tasks, "how many tasks to submit and wait for"),
        ("seconds", seconds, usual.seconds, "the tasks end at random over this many seconds"),
        ("interval", seconds, usual.interval, "seconds from one look at a task to the next"),
        ("seed", whole, usual.seed, "the same number plays the same tasks"),
    ):
        told = f"{what} (default {default:g})"
        parser.add_argument(f"--{name}", type=kind, default=default, metavar="N", help=told)


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    settings = Settings(
        tasks=arguments.tasks,
        seconds=arguments.seconds,
        interval=arguments.interval,
        seed=arguments.seed,
    )
    try:
        from rich.console import Console
    except ModuleNotFoundError:
        print_error(_NO_RICH)
        return UNUSABLE
    console = Console(highlight=False)

    def act() -> int:
        _print(console, _demo(console, settings))
        return 0

    return run_and_report(act)


def _demo(console: "Console", settings: Settings) -> Report:
    """Run the demo; live on a terminal that can take it, silent anywhere else."""
    if not (console.is_interactive and console.file.isatty()):
        return run(demo(settings))
    from rich.live import Live

    with Live(console=console, auto_refresh=False, transient=True) as live:

        def show(progress: Progress) -> None:
            live.update(_screen(console, settings, progress), refresh=True)

        return run(demo(settings, show))


def _print(console: "Console", report: Report) -> None:
    if console.is_terminal:
        console.print(_table(report))
        return
    for line in plain_lines(report):
        console.print(line, markup=False, soft_wrap=True)


def report_rows(report: Report) -> list[Row]:
    """Say what a report says, in words, row by row."""
    times = f"{report.ratio:.1f}" if report.ratio < 10 else f"{report.ratio:,.0f}"
    return [
        Row("Tasks", f"{report.tasks:,}", f"all ended, in {format_precisely(report.seconds)}"),
        Row("  completed", f"{report.completed:,}"),
        Row("  failed", f"{report.failed:,}", "on purpose" if report.failed else ""),
        Row("Requests", "", f"each task looked at every {format_precisely(report.interval)}"),
        Row("  one shared poller", f"{report.requests:,}"),
        Row("  one GET per task", f"{report.requests_singly:,}", f"{times} times as many"),
        Row("Delay", "", "from the true end of a task to its news"),
        Row("  on average", format_precisely(report.lag_mean)),
        Row("  95 of 100 within", format_precisely(report.lag_p95)),
    ]


def plain_lines(report: Report) -> list[str]:
    """Write the report as aligned lines of plain ASCII."""
    rows = report_rows(report)
    first = max(len(row.label) for row in rows)
    second = max(len(row.value) for row in rows)
    return [f"{row.label:<{first}}  {row.value:>{second}}  {row.note}".rstrip() for row in rows]


def _table(report: Report) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for row in report_rows(report):
        heading = "" if row.label.startswith(" ") else "bold"
        colour = _COLOURS.get(row.label.strip(), heading)
        table.add_row(Text(row.label, heading), Text(row.value, colour), row.note)
    return table


def _screen(console: "Console", settings: Settings, progress: Progress) -> "Text":
    """Draw the live display: a bar of all tasks by their state, the counts, the cost so far."""
    from rich.text import Text

    marks = _PLAIN_MARKS if console.no_color or console.options.ascii_only else _MARKS
    states = {state: getattr(progress, state) for state in _COLOURS}
    cells = shares(list(states.values()), progress.tasks, min(console.width - 1, _WIDEST))
    text = Text(no_wrap=True, overflow="crop", end="")
    text.append(f"Waiting for {progress.tasks:,} tasks", style="bold")
    text.append(f", each looked at every {format_precisely(settings.interval)}\n\n", style="dim")
    for mark, state, width in zip(marks, states, cells, strict=True):
        text.append(mark * width, style=_COLOURS[state])
    text.append("\n\n")
    for mark, state, cost in zip(marks, states, _costs(progress), strict=True):
        text.append(f"{mark} ", style=_COLOURS[state])
        text.append(f"{state:<11}{states[state]:>9,}      {cost}\n")
    return text


def _costs(progress: Progress) -> list[str]:
    return [
        f"requests   {progress.requests:>9,}",
        f"in flight  {progress.in_flight:>9,}",
        f"time       {progress.elapsed:>9.1f} s",
        "",
    ]
