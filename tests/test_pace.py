"""How long an id rests between two looks."""

from math import inf, nan

import pytest

from luma_async import Every, Pace


@pytest.mark.parametrize("age", [0.0, 1.0, 1e6])
@pytest.mark.parametrize("seconds", [0.25, 5, 3600.0])
def test_every_rests_the_same_at_any_age(seconds: float, age: float) -> None:
    assert Every(seconds).rest(age) == seconds


def test_every_is_five_seconds_unless_told_otherwise() -> None:
    assert Every().rest(0.0) == 5.0


@pytest.mark.parametrize("seconds", [0, -1, -0.0, inf, -inf, nan])
def test_a_rest_is_above_zero_and_finite(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"seconds.*; give a (finite )?number( above zero)?$"):
        Every(seconds)


@pytest.mark.parametrize("seconds", [True, "5", None, [5.0]])
def test_a_rest_is_a_number(seconds: object) -> None:
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
