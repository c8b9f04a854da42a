"""The requests that Every would have sent, simulated beside the real ones."""

import random
from itertools import dropwhile, groupby
from math import inf

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


@pytest.mark.parametrize(
    ("first_at", "second_at", "requests"), [(0.05, 0.2, 2), (0.05, 0.05, 1), (0.2, 0.2, 2)]
)
def test_before_one_was_measured_a_response_takes_a_tenth_of_a_second(
    first_at: float, second_at: float, requests: int
) -> None:
    """New ids that are added while it is in flight share the next request."""
    simulation = make_simulation(spacing=0.0)
    simulation.add(1, first_at)
    simulation.advance(second_at)
    assert simulation.requests == requests


def test_a_response_that_arrives_as_an_id_is_added_is_not_in_flight() -> None:
    simulation = make_simulation(max_batch=1, ids=2, spacing=0.05)
    simulation.advance(0.05)
    assert simulation.requests == 2, "at 0 and 0.03, with responses at 0.1 and 0.13"
    simulation.add(1, 0.1)
    simulation.advance(0.12)
    assert simulation.requests == 2
    simulation.advance(0.131)
    assert simulation.requests == 3


def test_adding_ids_that_are_known_costs_no_request() -> None:
    simulation = make_simulation()
    simulation.add(0, 1.0)
    simulation.advance(4.0)
    assert simulation.requests == 1


@pytest.mark.parametrize(("ended_at", "requests"), [(10.0, 3), (10.1, 4)])
def test_an_end_that_a_poll_saw_at_once_costs_no_request(ended_at: float, requests: int) -> None:
    simulation = make_simulation()
    run(simulation, 10.0)
    simulation.remove(ended_at)
    simulation.advance(14.9)
    assert simulation.requests == 3, "the next poll is at 15"
    simulation.advance(100.0)
    assert simulation.requests == requests


def test_four_intervals_are_counted_of_a_jump_of_the_clock() -> None:
    simulation = make_simulation()
    run(simulation, 10.0)
    simulation.advance(86_400.0)
    assert simulation.requests == 3 + 5, "20, 15, 10, 5 and 0 s ago"


class ListedIds:
    """The same with a list of ids, each with the time of its last poll: None if it is new."""

    def __init__(self, max_batch: int, spacing: float) -> None:
        self.max_batch, self.spacing = max_batch, spacing
        self.polled_at: list[float | None] = []  # those polled longest ago first, new ones last
        self.ended = 0
        self.new_due = inf
        self.sent_at = self.spaced_until = -inf
        self.returns_at: list[float] = []
        self.round_trip = 0.1
        self.gap = self.between = 5.0
        self.requests = 0

    def add(self, added: int, now: float) -> None:
        if added:
            self.advance(now)
            in_flight = list(dropwhile(lambda at: at <= now, self.returns_at))
            due = min(in_flight[0], now + 1.0) if in_flight else now
            self.new_due = min(self.new_due, due)
            self.polled_at += [None] * added
            self.advance(now)

    def remove(self, *ended_at: float | None) -> None:
        del self.polled_at[: len(ended_at)]
        if None not in self.polled_at:
            self.new_due = inf
        self.ended += len([at for at in ended_at if at is not None and at > self.sent_at])

    def observe_round_trip(self, round_trip: float) -> None:
        self.round_trip = 0.95 * self.round_trip + 0.05 * round_trip

    def advance(self, now: float) -> None:
        while self.next_at() <= now:
            self.send(max(self.next_at(), now - 20.0))

    def next_at(self) -> float:
        known = [at for at in self.polled_at if at is not None]
        due = known[0] + 5.0 if known else self.sent_at + 5.0 if self.ended else inf
        return max(min(due, self.new_due), self.spaced_until - 0.02)

    def send(self, now: float) -> None:
        ended = min(self.ended, self.max_batch)
        self.ended -= ended
        room = self.max_batch - ended
        known = [at for at in self.polled_at if at is not None]
        new = len(self.polled_at) - len(known)
        of_new = min(new, room)
        of_known = min(len(known), room - of_new)
        for at, group in groupby(known[:of_known]):
            gap = min(now - at, 2.0 * max(self.gap, 5.0))
            self.gap += 0.05 * len(list(group)) / len(self.polled_at) * (gap - self.gap)
        left = [*known[of_known:], *[now] * (of_new + of_known)]
        self.polled_at = [*left, *[None] * (new - of_new)]
        self.new_due = now if new > of_new else inf
        self.between = 0.95 * self.between + 0.05 * min(now - self.sent_at, 5.0)
        self.sent_at = now
        self.spaced_until = max(now, self.spaced_until) + self.spacing
        self.returns_at.append(now + self.round_trip)
        self.requests += 1


@pytest.mark.parametrize("seed", range(40))
def test_counts_of_ids_cost_as_many_requests_as_a_list_of_ids(seed: int) -> None:
    dice = random.Random(seed)
    max_batch, spacing = dice.choice([1, 3, 10]), dice.choice([0.0625, 0.125, 1.5])
    counted = IntervalSimulation(5.0, max_batch, spacing)
    listed = ListedIds(max_batch, spacing)
    now = 0.0
    for _ in range(60):
        now += dice.choice([0.0, 0.0625, 0.25, 1.0, 4.0, 5.0, 11.0, 40.0])
        number = dice.choice([0, 1, 1, 2, 7])
        ended_at = [dice.choice([None, now - 6.0, now - 1.0, now]) for _ in range(number)]
        round_trip = dice.choice([0.1, 0.5, 3.0])
        action = dice.choice(["add", "add", "remove", "respond", "advance"])
        for simulation in (counted, listed):
            match action:
                case "add":
                    simulation.add(number, now)
                case "remove":
                    simulation.advance(now)
                    simulation.remove(*ended_at)
                case "respond":
                    simulation.observe_round_trip(round_trip)
                case _:
                    simulation.advance(now)
        assert counted.requests == listed.requests
        assert counted.gap == pytest.approx(listed.gap)
        assert counted.between == pytest.approx(listed.between)
