"""What Every would have spent, counted beside the real thing."""

import pytest

from luma_async.scheduling.request_budget import FixedIntervalBudget


def shadow(seats: int = 100, *, ids: int = 1, spacing: float = 0.105) -> FixedIntervalBudget:
    some = FixedIntervalBudget(5.0, seats, spacing)
    some.add(ids, 0.0)
    return some


def run(some: FixedIntervalBudget, until: float) -> None:
    """Let time pass in steps as small as those of a session that is at work."""
    for second in range(int(until) + 1):
        some.advance(second)


@pytest.mark.parametrize(("ids", "requests"), [(1, 1), (100, 1), (101, 2), (250, 3)])
def test_what_is_new_departs_at_once_in_as_many_requests_as_it_takes(
    ids: int, requests: int
) -> None:
    some = shadow(ids=ids)
    run(some, 1.0)
    assert some.requests == requests


@pytest.mark.parametrize(("ids", "requests"), [(1, 13), (100, 13), (101, 26), (1000, 130)])
def test_all_ids_are_asked_about_at_each_interval(ids: int, requests: int) -> None:
    some = shadow(ids=ids)
    run(some, 64.0)
    assert some.requests == pytest.approx(requests, rel=0.04)


def test_an_id_that_ended_stays_aboard_until_that_would_have_been_found() -> None:
    some = shadow()
    run(some, 10.0)
    some.remove(12.0)
    run(some, 100.0)
    assert some.requests == 4, "at 0, 5, 10 and 15"


def test_an_end_that_was_found_already_costs_no_more() -> None:
    some = shadow()
    run(some, 10.0)
    some.remove(9.0)
    run(some, 100.0)
    assert some.requests == 3


def test_an_id_that_nobody_wants_any_more_costs_no_more() -> None:
    some = shadow()
    run(some, 10.0)
    some.remove()
    run(some, 100.0)
    assert some.requests == 3


def test_ids_that_come_while_an_answer_is_awaited_share_a_request() -> None:
    some = shadow()
    for _ in range(500):
        some.observe_round_trip(1.0)
    some.advance(5.0)
    for at in (5.2, 5.4, 5.9):
        some.add(1, at)
    some.advance(6.1)
    assert some.requests == 3


def test_nobody_waits_longer_than_a_second_for_an_answer_that_is_late() -> None:
    some = shadow()
    for _ in range(500):
        some.observe_round_trip(30.0)
    some.advance(5.0)
    some.add(1, 5.2)
    some.advance(6.3)
    assert some.requests == 3


def test_max_rate_bounds_it() -> None:
    some = shadow(seats=1, ids=20, spacing=0.5)
    run(some, 1000.0)
    assert some.requests == pytest.approx(2000, abs=2)
    assert some.gap == pytest.approx(10.0, rel=0.05)


def test_a_clock_that_jumps_is_not_made_up_for() -> None:
    some = shadow(ids=100_000)
    run(some, 10.0)
    before = some.requests
    some.advance(86_400.0)
    assert some.requests - before <= 250


@pytest.mark.parametrize("ids", [0, 1, 5])
def test_more_ends_than_ids_do_no_harm(ids: int) -> None:
    some = shadow(ids=ids)
    for _ in range(10):
        some.remove(1.0)
        some.remove()
    some.add(1, 2.0)
    run(some, 60.0)
    assert 12 <= some.requests <= 14
