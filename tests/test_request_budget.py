"""The requests that Every would have sent, simulated beside the real ones."""

import pytest

from luma_async.scheduling.request_budget import FixedIntervalBudget


def make_budget(
    max_batch: int = 100, *, ids: int = 1, spacing: float = 0.105
) -> FixedIntervalBudget:
    budget = FixedIntervalBudget(5.0, max_batch, spacing)
    budget.add(ids, 0.0)
    return budget


def run(budget: FixedIntervalBudget, until: float) -> None:
    """Let time pass in steps of a second, as in a session with open ids."""
    for second in range(int(until) + 1):
        budget.advance(second)


@pytest.mark.parametrize(("ids", "requests"), [(1, 1), (100, 1), (101, 2), (250, 3)])
def test_new_ids_are_sent_at_once_in_as_many_requests_as_needed(ids: int, requests: int) -> None:
    budget = make_budget(ids=ids)
    run(budget, 1.0)
    assert budget.requests == requests


@pytest.mark.parametrize(("ids", "requests"), [(1, 13), (100, 13), (101, 26), (1000, 130)])
def test_all_ids_are_polled_every_interval(ids: int, requests: int) -> None:
    budget = make_budget(ids=ids)
    run(budget, 64.0)
    assert budget.requests == pytest.approx(requests, rel=0.04)


def test_an_ended_id_is_polled_until_its_end_would_have_been_seen() -> None:
    budget = make_budget()
    run(budget, 10.0)
    budget.remove(12.0)
    run(budget, 100.0)
    assert budget.requests == 4, "at 0, 5, 10 and 15"


def test_an_end_that_was_seen_already_costs_no_request() -> None:
    budget = make_budget()
    run(budget, 10.0)
    budget.remove(9.0)
    run(budget, 100.0)
    assert budget.requests == 3


def test_an_id_without_a_watcher_costs_no_request() -> None:
    budget = make_budget()
    run(budget, 10.0)
    budget.remove()
    run(budget, 100.0)
    assert budget.requests == 3


def test_ids_added_while_a_request_is_in_flight_share_a_request() -> None:
    budget = make_budget()
    for _ in range(500):
        budget.observe_round_trip(1.0)
    budget.advance(5.0)
    for at in (5.2, 5.4, 5.9):
        budget.add(1, at)
    budget.advance(6.1)
    assert budget.requests == 3


def test_a_new_id_waits_a_second_at_most_for_a_late_response() -> None:
    budget = make_budget()
    for _ in range(500):
        budget.observe_round_trip(30.0)
    budget.advance(5.0)
    budget.add(1, 5.2)
    budget.advance(6.3)
    assert budget.requests == 3


def test_max_rate_limits_it() -> None:
    budget = make_budget(max_batch=1, ids=20, spacing=0.5)
    run(budget, 1000.0)
    assert budget.requests == pytest.approx(2000, abs=2)
    assert budget.gap == pytest.approx(10.0, rel=0.05)


def test_no_requests_are_counted_for_a_jump_of_the_clock() -> None:
    budget = make_budget(ids=100_000)
    run(budget, 10.0)
    before = budget.requests
    budget.advance(86_400.0)
    assert budget.requests - before <= 250


@pytest.mark.parametrize("ids", [0, 1, 5])
def test_more_ends_than_ids_do_no_harm(ids: int) -> None:
    budget = make_budget(ids=ids)
    for _ in range(10):
        budget.remove(1.0)
        budget.remove()
    budget.add(1, 2.0)
    run(budget, 60.0)
    assert 12 <= budget.requests <= 14
