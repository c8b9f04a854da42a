"""The requests that Every would have sent, simulated beside the real ones."""

import pytest

from luma_async.scheduling.interval_simulation import IntervalSimulation


def make_simulation(
    max_batch: int = 100, *, ids: int = 1, spacing: float = 0.105
) -> IntervalSimulation:
    simulation = IntervalSimulation(5.0, max_batch, spacing)
    simulation.add(ids, 0.0)
    return simulation


def run(simulation: IntervalSimulation, until: float) -> None:
    """Let time pass in steps of a second, as in a session with open ids."""
    for second in range(int(until) + 1):
        simulation.advance(second)


@pytest.mark.parametrize(("ids", "requests"), [(1, 1), (100, 1), (101, 2), (250, 3)])
def test_new_ids_are_sent_at_once_in_as_many_requests_as_needed(ids: int, requests: int) -> None:
    simulation = make_simulation(ids=ids)
    run(simulation, 1.0)
    assert simulation.requests == requests


@pytest.mark.parametrize(("ids", "requests"), [(1, 13), (100, 13), (101, 26), (1000, 130)])
def test_all_ids_are_polled_every_interval(ids: int, requests: int) -> None:
    simulation = make_simulation(ids=ids)
    run(simulation, 64.0)
    assert simulation.requests == pytest.approx(requests, rel=0.04)


def test_an_ended_id_is_polled_until_its_end_would_have_been_seen() -> None:
    simulation = make_simulation()
    run(simulation, 10.0)
    simulation.remove(12.0)
    run(simulation, 100.0)
    assert simulation.requests == 4, "at 0, 5, 10 and 15"


def test_an_end_that_was_seen_already_costs_no_request() -> None:
    simulation = make_simulation()
    run(simulation, 10.0)
    simulation.remove(9.0)
    run(simulation, 100.0)
    assert simulation.requests == 3


def test_an_id_without_a_watcher_costs_no_request() -> None:
    simulation = make_simulation()
    run(simulation, 10.0)
    simulation.remove(None)
    run(simulation, 100.0)
    assert simulation.requests == 3


@pytest.mark.parametrize(("removed", "requests"), [(1, 2), (2, 1), (3, 1)])
def test_new_ids_that_are_removed_before_they_are_polled_cost_no_request(
    removed: int, requests: int
) -> None:
    simulation = make_simulation()
    simulation.add(2, 0.01)
    simulation.remove(None)  # the first one: it was polled longest ago
    for _ in range(removed):
        simulation.remove(None)
    run(simulation, 4.0)
    assert simulation.requests == requests


def test_the_gap_between_two_polls_follows_what_was_measured() -> None:
    simulation = make_simulation()
    simulation.advance(8.0)
    assert simulation.gap == pytest.approx(5.0), "polled at 0 and 5"
    late = make_simulation(spacing=10.0)
    late.advance(10.0)
    assert late.requests == 2
    assert late.gap == pytest.approx(5.0 + 0.05 * 5.0, abs=0.01), "polled at 0 and 10"


def test_ids_added_while_a_request_is_in_flight_share_a_request() -> None:
    simulation = make_simulation()
    for _ in range(500):
        simulation.observe_round_trip(1.0)
    simulation.advance(5.0)
    for at in (5.2, 5.4, 5.9):
        simulation.add(1, at)
    simulation.advance(6.1)
    assert simulation.requests == 3


def test_a_new_id_waits_a_second_at_most_for_a_late_response() -> None:
    simulation = make_simulation()
    for _ in range(500):
        simulation.observe_round_trip(30.0)
    simulation.advance(5.0)
    simulation.add(1, 5.2)
    simulation.advance(6.3)
    assert simulation.requests == 3


def test_max_rate_limits_it() -> None:
    simulation = make_simulation(max_batch=1, ids=20, spacing=0.5)
    run(simulation, 1000.0)
    assert simulation.requests == pytest.approx(2000, abs=2)
    assert simulation.gap == pytest.approx(10.0, rel=0.05)


def test_no_requests_are_counted_for_a_jump_of_the_clock() -> None:
    simulation = make_simulation(ids=100_000)
    run(simulation, 10.0)
    before = simulation.requests
    simulation.advance(86_400.0)
    assert simulation.requests - before <= 250


@pytest.mark.parametrize("ids", [0, 1, 5])
def test_more_ends_than_ids_do_no_harm(ids: int) -> None:
    simulation = make_simulation(ids=ids)
    for _ in range(10):
        simulation.remove(1.0)
        simulation.remove(None)
    simulation.add(1, 2.0)
    run(simulation, 60.0)
    assert 12 <= simulation.requests <= 14


@pytest.mark.parametrize("ids", [1, 90, 250])
@pytest.mark.parametrize("until", [0.0, 3.0, 12.0])
def test_ids_removed_together_cost_as_many_requests_as_one_after_the_other(
    ids: int, until: float
) -> None:
    singly, together = make_simulation(ids=ids), make_simulation(ids=ids)
    ended_at = [None, until + 1.0, until - 9.0] * (ids // 4 + 1)
    for simulation in (singly, together):
        run(simulation, until)
    together.remove(*ended_at)
    for ended in ended_at:
        singly.remove(ended)
    for simulation in (singly, together):
        run(simulation, until + 60.0)
    assert together.requests == singly.requests
