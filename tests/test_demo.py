"""The demo: its calculations, and complete runs in virtual time."""

import argparse
import re

import pytest

from luma_async import Limits
from luma_async.cli.commands.demo import demo, limits_for, polls_alone, report
from luma_async.cli.display.progress import Progress

FEW = argparse.Namespace(tasks=150, seconds=20.0, interval=1.0, seed=7)


@pytest.mark.parametrize(
    ("duration", "polls"),
    [(0.0, 1), (0.001, 2), (0.999, 2), (1.0, 2), (1.001, 3), (10.0, 11), (9.5, 11)],
)
def test_one_get_per_task_polls_at_once_and_until_the_first_poll_at_or_after_the_end(
    duration: float, polls: int
) -> None:
    assert polls_alone(duration, interval=1.0) == polls


def test_the_number_of_polls_depends_on_the_interval() -> None:
    assert polls_alone(10.0, interval=2.5) == 5
    assert polls_alone(10.0, interval=60.0) == 2


def test_the_default_demo_uses_the_default_limits() -> None:
    assert limits_for(1000, 1.0) == Limits()


def test_more_polls_than_the_default_rate_allows_raise_only_the_rate() -> None:
    limits = limits_for(1000, 0.5)
    assert limits == Limits(max_rate=limits.max_rate)
    assert limits.max_rate == pytest.approx(24.0)


def lines(lags: list[float], requests: int, singly: int) -> list[str]:
    progress = Progress()
    progress.add(map(str, range(1000)), 0.0)
    progress.counts.update(completed=920, failed=80)
    return report(progress, 1.0, lags, requests, singly, 20.13)


def test_the_report_shows_the_requests_of_the_poller_and_of_one_get_per_task() -> None:
    report_lines = lines([0.4] * 94 + [0.5] * 3 + [0.926] * 3, 119, 11573)
    assert report_lines[0].split() == ["Tasks", "1,000", "all", "ended,", "in", "20.1", "s"]
    assert report_lines[4].split()[-1] == "119"
    assert report_lines[5].endswith("11,573  97 times as many")
    assert report_lines[7].endswith("0.42 s")
    assert report_lines[8].endswith("0.5 s")
    assert all(
        line == line.rstrip() and len(line) <= 80 and line.isascii() for line in report_lines
    )


def test_a_small_ratio_has_a_decimal() -> None:
    assert lines([0.0], 2, 3)[5].endswith("1.5 times as many")


def number(line: str) -> float:
    found = re.search(r"[\d,.]+", line)
    assert found
    return float(found[0].replace(",", ""))


@pytest.mark.virtual_time
class TestRun:
    async def test_equal_settings_give_equal_tasks_and_another_seed_gives_others(self) -> None:
        first, second = await demo(FEW), await demo(FEW)
        other = await demo(argparse.Namespace(**{**vars(FEW), "seed": 8}))
        assert first[1:3] == second[1:3]
        singly = [number(said[5]) for said in (first, second, other)]
        assert singly[0] == singly[1] != singly[2]

    async def test_about_the_planned_share_of_tasks_fails(self) -> None:
        report_lines = await demo(FEW)
        assert number(report_lines[1]) + number(report_lines[2]) == 150
        assert 3 <= number(report_lines[2]) <= 24

    async def test_the_delay_is_at_most_an_interval_and_the_spacing_of_a_round(
        self,
    ) -> None:
        report_lines = await demo(FEW)
        mean, most = number(report_lines[7]), number(report_lines[8].replace("95 of 100", ""))
        assert 0.3 < mean < 0.7
        assert mean < most < FEW.interval + 2 * 1.05 / Limits().max_rate

    async def test_the_shared_poller_sends_at_most_two_requests_per_interval_for_150_tasks(
        self,
    ) -> None:
        report_lines = await demo(FEW)
        requests, singly = number(report_lines[4]), number(report_lines[5])
        assert requests < 2 * (FEW.seconds / FEW.interval + 2)
        assert singly / requests > 20
