"""The demo: its plan and its arithmetic directly, a whole run of it in virtual time."""

from collections import Counter

import pytest

from luma_async import Generation, Limits, State
from luma_async.cli.demo import (
    FAILING,
    Fate,
    Progress,
    Settings,
    Tally,
    demo,
    fates,
    limits_for,
    looks_singly,
    percentile,
    report,
)

FEW = Settings(tasks=150, seconds=20.0, interval=1.0, seed=7)


def test_equal_settings_play_equal_tasks() -> None:
    assert fates(FEW) == fates(FEW)


def test_another_seed_plays_other_tasks() -> None:
    assert fates(FEW) != fates(Settings(tasks=150, seconds=20.0, interval=1.0, seed=8))


def test_the_planned_share_of_tasks_fails() -> None:
    ends = Counter(fate.ends for fate in fates(Settings(tasks=1000)))
    assert ends == {"failed": 1000 * FAILING, "completed": 1000 * (1 - FAILING)}


def test_each_task_is_queued_and_then_ends_within_the_seconds_given() -> None:
    assert all(0 <= fate.queued <= fate.duration <= FEW.seconds for fate in fates(FEW))


def test_tasks_end_all_over_the_seconds_given() -> None:
    ends = [fate.duration for fate in fates(FEW)]
    assert min(ends) < 1 < 19 < max(ends)


@pytest.mark.parametrize(
    ("duration", "looks"),
    [(0.0, 1), (0.001, 2), (0.999, 2), (1.0, 2), (1.001, 3), (10.0, 11), (9.5, 11)],
)
def test_asking_singly_looks_at_once_and_until_the_first_look_at_or_after_the_end(
    duration: float, looks: int
) -> None:
    assert looks_singly(duration, interval=1.0) == looks


def test_looks_are_counted_in_intervals() -> None:
    assert looks_singly(10.0, interval=2.5) == 5
    assert looks_singly(10.0, interval=60.0) == 2


@pytest.mark.parametrize(
    ("values", "percent", "value"),
    [
        ([], 95, 0.0),
        ([3.0], 95, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 51, 3.0),
        ([float(n) for n in range(1, 101)], 95, 95.0),
        ([1.0, 2.0], 0, 1.0),
        ([1.0, 2.0], 100, 2.0),
    ],
)
def test_a_percentile_is_one_of_the_values(
    values: list[float], percent: float, value: float
) -> None:
    assert percentile(values, percent) == value


def test_the_default_demo_keeps_the_default_limits() -> None:
    assert limits_for(Settings()) == Limits()


def test_a_round_that_does_not_fit_raises_the_rate_and_nothing_else() -> None:
    limits = limits_for(Settings(tasks=1000, interval=0.5))
    assert limits == Limits(max_rate=limits.max_rate)
    assert limits.max_rate == pytest.approx(24.0)


def test_a_report_compares_what_was_spent_with_asking_singly() -> None:
    plan = [
        Fate(queued=0.0, duration=1.5, ends="completed"),
        Fate(queued=0.5, duration=4.0, ends="failed"),
    ]
    summed = report(
        Settings(tasks=2, interval=1.0),
        plan,
        ends=Counter({State.COMPLETED: 1, State.FAILED: 1}),
        lags=[0.5, 0.25],
        requests=4,
        seconds=4.25,
    )
    assert (summed.tasks, summed.completed, summed.failed) == (2, 1, 1)
    assert (summed.requests, summed.requests_singly, summed.ratio) == (4, 3 + 5, 2.0)
    assert (summed.lag_mean, summed.lag_p95, summed.seconds) == (0.375, 0.5, 4.25)


def test_a_tally_moves_a_task_from_state_to_state() -> None:
    tally = Tally()
    tally.learn(Generation(id="a", state=State.PENDING))
    tally.learn(Generation(id="b", state=State.PENDING))
    tally.learn(Generation(id="a", state=State.PROCESSING))
    assert +tally.counts == {State.PENDING: 1, State.PROCESSING: 1}


@pytest.mark.virtual_time
async def test_every_task_ends_as_planned() -> None:
    told = await demo(FEW)
    assert (told.completed, told.failed) == (138, 12)


@pytest.mark.virtual_time
async def test_news_is_late_by_no_more_than_an_interval_and_the_spacing_of_a_round() -> None:
    told = await demo(FEW)
    assert 0.3 < told.lag_mean < 0.7
    assert told.lag_mean < told.lag_p95 < FEW.interval + 2 * 1.05 / Limits().max_rate
    assert told.seconds < FEW.seconds + FEW.interval + 0.5


@pytest.mark.virtual_time
async def test_the_shared_poller_asks_at_most_twice_an_interval_for_150_tasks() -> None:
    told = await demo(FEW)
    assert told.requests < 2 * (FEW.seconds / FEW.interval + 2)
    assert told.requests_singly == sum(looks_singly(fate.duration, 1.0) for fate in fates(FEW))
    assert told.ratio > 20


@pytest.mark.virtual_time
async def test_progress_is_shown_ten_times_a_second_and_only_grows() -> None:
    shown: list[Progress] = []
    told = await demo(FEW, shown.append)
    ended = [progress.completed + progress.failed for progress in shown]
    assert ended == sorted(ended)
    assert [p.requests for p in shown] == sorted(p.requests for p in shown)
    assert len(shown) == pytest.approx(10 * told.seconds, abs=3)


@pytest.mark.virtual_time
async def test_progress_knows_of_each_task_once_every_one_was_asked_about() -> None:
    shown: list[Progress] = []
    await demo(FEW, shown.append)
    known = [p.pending + p.processing + p.completed + p.failed for p in shown]
    assert known[0] == 0
    assert set(known[10:]) == {FEW.tasks}


@pytest.mark.virtual_time
async def test_showing_progress_costs_hardly_a_request() -> None:
    alone = await demo(FEW)
    shown = await demo(FEW, lambda progress: None)
    assert shown.requests == pytest.approx(alone.requests, abs=3)
