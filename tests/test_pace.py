"""The delay between two polls of an id."""

from math import inf, log, nan, nextafter

import pytest

from luma_async import Backoff, Every, Learned, Pace
from luma_async.scheduling.hazard import EDGES, DurationCounts
from luma_async.scheduling.pace import delay_of

MINUTE = DurationCounts.of([*((edge, 0.0, 1e5) for edge in EDGES if edge < 50.0), (60.0, 30, 150)])
"""Thirty tasks ended after a minute, none of them before."""


@pytest.mark.parametrize("age", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("seconds", [0.25, 5, 3600.0])
def test_every_has_the_same_delay_at_any_age(seconds: float, age: float) -> None:
    assert Every(seconds).rest(age) == seconds


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert Every() == Every(5.0)
    assert Backoff() == Backoff(first=1.0, factor=2.0, most=15.0)
    assert Learned() == Learned(5.0, DurationCounts())
    assert [pace.rest(0.0) for pace in (Every(), Backoff(), Learned())] == pytest.approx([5, 1, 5])


class Own:
    """A pace of the caller's own."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def rest(self, age: float) -> float:
        return self.seconds


@pytest.mark.parametrize("seconds", [1e-9, 0.5, 1e300])
def test_a_pace_of_your_own_may_have_any_delay_above_zero(seconds: float) -> None:
    assert delay_of(Own(seconds), 1.0) == seconds


@pytest.mark.parametrize("seconds", [0.0, -1.0, inf, nan])
def test_a_pace_of_your_own_with_no_delay_is_an_error(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"returned .* s; return a finite number above zero$"):
        delay_of(Own(seconds), 1.0)


@pytest.mark.parametrize("seconds", [0, -1, -0.0, inf, -inf, nan])
def test_a_delay_is_positive_and_finite(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"seconds.*; give a (finite )?number( above zero)?$"):
        Every(seconds)


@pytest.mark.parametrize("seconds", [True, "5", None, [5.0]])
def test_a_delay_is_a_number(seconds: object) -> None:
    with pytest.raises(TypeError, match=r"^seconds is .*; give a number$"):
        Every(seconds)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_every_is_a_pace() -> None:
    pace: Pace = Every()
    assert isinstance(pace, Pace)
    assert not isinstance(5.0, Pace)


def test_every_is_a_value() -> None:
    assert len({Every(5.0), Every(5.0), Every(6.0)}) == 2
    with pytest.raises(AttributeError):
        Every().seconds = 1.0  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def test_the_delay_of_a_backoff_grows_up_to_its_maximum() -> None:
    pace = Backoff(first=1.0, factor=2.0, most=15.0)
    age = 0.0
    rests: list[float] = []
    for _ in range(6):
        rests.append(pace.rest(age))
        age += rests[-1]
    assert rests == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]


def test_a_backoff_is_a_function_of_age_alone() -> None:
    assert Backoff(2.0, 1.5, 60.0).rest(1e9) == 60.0
    assert Backoff(2.0, 1.0, 60.0).rest(1e9) == 2.0
    assert Backoff(2.0, 1.5, 60.0).rest(-5.0) == 2.0
    assert Backoff(2.0, 1.5, 60.0).rest(0.5) == 2.25
    assert Backoff(7.0, 3.0, 7.0).rest(0.0) == 7.0


@pytest.mark.parametrize(
    "rests",
    [
        (0.0, 2.0, 15.0),
        (1.0, 0.9, 15.0),
        (1.0, 2.0, inf),
        (20.0, 2.0, 15.0),
        (1.0, nan, 15.0),
        (1.0, inf, 15.0),
    ],
)
def test_invalid_arguments_of_a_backoff_are_rejected(rests: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="; give "):
        Backoff(*rests)


@pytest.mark.parametrize("wrong", [True, "1", None])
def test_a_backoff_is_made_of_numbers(wrong: object) -> None:
    with pytest.raises(TypeError, match="; give a number$"):
        Backoff(wrong)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("interval", [0, -1, 1e-4, 1e160, inf, nan])
def test_an_interval_out_of_range_is_rejected(interval: float) -> None:
    with pytest.raises(ValueError, match=r"^interval.*; give (a number.*|seconds from .*)$"):
        Learned(interval)


def test_an_interval_is_from_a_millisecond_to_a_million_seconds() -> None:
    assert [Learned(seconds).interval for seconds in (0.001, 1e6)] == [0.001, 1e6]
    for wrong in (nextafter(0.001, 0.0), nextafter(1e6, inf)):
        with pytest.raises(ValueError, match=r"; give seconds from 0\.001 to a million$"):
            Learned(wrong)


@pytest.mark.parametrize("interval", [0.5, 2.0, 5.0])
def test_a_task_that_seldom_ends_at_its_age_is_polled_every_four_intervals(interval: float) -> None:
    assert Learned(interval, MINUTE).rest(0.0) == pytest.approx(4.0 * interval)


@pytest.mark.parametrize("age", [50.0, 55.0, 60.0, 200.0])
def test_the_mean_lateness_of_each_delay_is_that_of_polls_an_interval_apart(age: float) -> None:
    """√(2 · W) is the interval times the mean of √h."""
    pace = Learned(2.0, MINUTE)
    hazard, delay = pace.hazard(), pace.rest(age)
    assert delay < 8.0
    lateness = hazard.mean_lateness(age, delay)
    assert (2.0 * lateness) ** 0.5 == pytest.approx(2.0 * hazard.mean_sqrt_hazard)


def test_what_was_learned_is_shown_by_its_quantiles() -> None:
    pace = Learned(2.5, MINUTE)
    assert pace.ends == 30.0
    half, most = pace.quantile(0.5), pace.quantile(0.95)
    assert half
    assert most
    assert 55.0 < half < most
    assert repr(pace) == f"<Learned(2.5): 30 tasks, half by {half:.3g} s, 95 % by {most:.3g} s>"
    assert repr(Learned(2.5)) == "<Learned(2.5): nothing learned yet>"


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1.5, nan])
@pytest.mark.parametrize("seen", [DurationCounts(), MINUTE])
def test_a_quantile_is_of_a_share_between_0_and_1(share: float, seen: DurationCounts) -> None:
    with pytest.raises(ValueError, match=r"^share=.*; give a number between 0 and 1$"):
        Learned(5.0, seen).quantile(share)


def test_without_an_ended_task_there_is_no_quantile() -> None:
    open_only = DurationCounts.of([(10.0, 0.0, 100.0)])
    assert Learned(5.0, open_only).quantile(0.5) is None


def test_the_hazard_of_tasks_that_end_at_any_age_alike_is_their_rate() -> None:
    seen = DurationCounts.of([(edge, 20.0, 1000.0) for edge in EDGES[:-1]])
    pace = Learned(5.0, seen)
    assert pace.hazard().rate_at(100.0) == pytest.approx(0.02, rel=0.01)
    assert pace.quantile(0.5) == pytest.approx(log(2.0) / 0.02, rel=0.01)
    assert pace.rest(100.0) == pytest.approx(5.0, rel=0.01)


def test_a_snapshot_is_not_accepted_as_seen() -> None:
    with pytest.raises(TypeError, match="seen is .*; give what"):
        Learned(5.0, {})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("pace", [Backoff(), Learned()])
def test_each_pace_is_a_value(pace: Pace) -> None:
    assert isinstance(pace, Pace)
    assert pace == type(pace)()
    assert hash(pace) == hash(type(pace)())
