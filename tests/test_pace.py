"""The delay between two polls of an id."""

from math import inf, nan

import pytest

from luma_async import Backoff, Every, Learned, Pace


@pytest.mark.parametrize("age", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("seconds", [0.25, 5, 3600.0])
def test_every_has_the_same_delay_at_any_age(seconds: float, age: float) -> None:
    assert Every(seconds).rest(age) == seconds


def test_every_is_five_seconds_by_default() -> None:
    assert Every().rest(0.0) == 5.0


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


def test_a_snapshot_is_not_accepted_as_seen() -> None:
    with pytest.raises(TypeError, match="seen is .*; give what"):
        Learned(5.0, {})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("pace", [Backoff(), Learned()])
def test_each_pace_is_a_value(pace: Pace) -> None:
    assert isinstance(pace, Pace)
    assert pace == type(pace)()
    assert hash(pace) == hash(type(pace)())
