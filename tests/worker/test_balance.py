"""Rebalancing: how many ids each worker takes and releases."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luma_async.worker.balance import Load, Rebalance, plan
from tests.properties import examples

MAX_TAKE = 256
capacities = st.integers(1, 100_000)


def pools(max_size: int = 8) -> st.SearchStrategy[list[Load]]:
    def load(capacity: int) -> st.SearchStrategy[Load]:
        return st.builds(Load, st.integers(0, capacity), st.just(capacity))

    return st.lists(capacities.flatmap(load), min_size=1, max_size=max_size)


def plan_of(pool: list[Load], i: int, waiting: int = 0) -> Rebalance:
    return plan(pool[i], pool[:i] + pool[i + 1 :], waiting=waiting, max_take=MAX_TAKE)


@given(pools(), st.integers(0, 100_000))
def test_at_least_one_worker_takes_while_one_has_room(pool: list[Load], waiting: int) -> None:
    takes = [plan_of(pool, i, waiting).take for i in range(len(pool))]
    assert any(takes) or all(load.held == load.capacity for load in pool)


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=8))
def test_among_equal_capacities_the_worker_with_the_fewest_ids_takes(held: list[int]) -> None:
    pool = [Load(count, 1_000_000) for count in held]
    least = min(range(len(pool)), key=lambda i: pool[i].held)
    assert plan_of(pool, least).take >= MAX_TAKE // 2


@given(pools(), st.integers(0, 100_000))
def test_no_worker_takes_more_than_its_room_or_releases_more_than_it_holds(
    pool: list[Load], waiting: int
) -> None:
    for i, load in enumerate(pool):
        rebalance = plan_of(pool, i, waiting)
        assert 0 <= rebalance.take <= min(MAX_TAKE, load.capacity - load.held)
        assert 0 <= rebalance.release <= load.held
        assert not (rebalance.take and rebalance.release)


@given(pools(), st.integers(0, 50_000))
@settings(max_examples=examples(50))
def test_a_pool_becomes_stable_with_all_waiting_ids_held(pool: list[Load], waiting: int) -> None:
    """Loads of the others are one round old; a round is long enough for many requests.

    As in the worker: only a surplus of two rounds is released, and a worker that has released ids
    takes none in that round.
    """
    released, had_surplus = [1], [False] * len(pool)
    for _ in range(30):
        announced = list(pool)
        surplus = [plan_of(pool, i).release for i in range(len(pool))]
        released = [n if before else 0 for n, before in zip(surplus, had_surplus, strict=True)]
        had_surplus = [n > 0 for n in surplus]
        pool = [Load(one.held - n, one.capacity) for one, n in zip(pool, released, strict=True)]
        waiting += sum(released)
        taking = True
        while waiting and taking:
            taking = False
            for i, load in enumerate(pool):
                known = [*announced[:i], load, *announced[i + 1 :]]
                take = 0 if released[i] else min(waiting, plan_of(known, i, waiting).take)
                pool[i] = Load(load.held + take, load.capacity)
                waiting, taking = waiting - take, taking or take > 0
    assert not any(released)
    assert not waiting or all(load.held == load.capacity for load in pool)


def test_a_second_worker_gets_half_of_the_ids_and_then_none_move() -> None:
    pool = [Load(10_000, 100_000), Load(0, 100_000)]
    assert plan_of(pool, 0).release == 5_000
    assert plan_of(pool, 1).take == MAX_TAKE
    even = [Load(5_000, 100_000), Load(5_000, 100_000)]
    assert plan_of(even, 0) == Rebalance(take=MAX_TAKE)


def test_workers_that_start_together_take_their_shares_of_the_waiting_ids() -> None:
    pool = [Load(9_000, 100_000), Load(0, 100_000)]
    assert plan_of(pool, 0, waiting=11_000).take == MAX_TAKE
    assert plan_of([Load(12_000, 100_000), Load(0, 100_000)], 0, waiting=8_000) == Rebalance()


def test_a_single_worker_takes_ids_up_to_its_capacity() -> None:
    assert plan_of([Load(99_900, 100_000)], 0) == Rebalance(take=100)
    assert plan_of([Load(100_000, 100_000)], 0) == Rebalance()
    assert plan_of([Load(0, 100_000)], 0) == Rebalance(take=MAX_TAKE)


def test_a_worker_with_a_small_capacity_gets_a_small_share() -> None:
    pool = [Load(1_000, 1_000), Load(9_000, 99_000)]
    assert plan_of(pool, 0).release == 900
    assert plan_of(pool, 1).take == MAX_TAKE


def test_a_worker_takes_up_to_halfway_between_its_share_and_what_it_would_return() -> None:
    """Else ids would move back and forth: a share of 1,000 ids has a limit of 1,506."""
    pool = [Load(0, 100_000), Load(0, 100_000)]
    assert plan(pool[0], pool[1:], waiting=2_000, max_take=10_000) == Rebalance(take=1_253)
    assert plan_of([Load(1_506, 100_000), Load(494, 100_000)], 0).release == 0
    assert plan_of([Load(1_507, 100_000), Load(493, 100_000)], 0).release == 507


@pytest.mark.parametrize(
    ("own", "others", "waiting", "rebalance"),
    [
        # The share is half of the ids held or waiting; the limit is 1.25 times that and 256 more.
        (Load(756, 10_000), [Load(44, 10_000)], 0, Rebalance()),
        (Load(757, 10_000), [Load(43, 10_000)], 0, Rebalance(release=357)),
        (Load(577, 10_000), [Load(223, 10_000)], 0, Rebalance(take=1)),
        (Load(578, 10_000), [Load(222, 10_000)], 0, Rebalance()),
        (Load(757, 10_000), [Load(43, 10_000)], 100, Rebalance()),
        # The share is a third, two thirds, a quarter.
        (Load(0, 1_000), [Load(300, 2_000)], 0, Rebalance(take=240)),
        (Load(0, 2_000), [Load(300, 1_000)], 0, Rebalance(take=353)),
        (Load(900, 1_000), [Load(0, 1_000)] * 3, 2, Rebalance(release=675)),
        # The capacity, and what one request may take.
        (Load(90, 100), [Load(0, 100)], 10_000, Rebalance(take=10)),
        (Load(100, 100), [Load(0, 100)], 10_000, Rebalance()),
        (Load(0, 10_000), [Load(0, 10_000)], 10_000, Rebalance(take=1_000)),
        (Load(0, 100_000), [], 0, Rebalance(take=1_000)),
        (Load(99_999, 100_000), [], 5, Rebalance(take=1)),
    ],
)
def test_a_worker_takes_its_share_and_returns_what_is_far_above_it(
    own: Load, others: list[Load], waiting: int, rebalance: Rebalance
) -> None:
    assert plan(own, others, waiting=waiting, max_take=1_000) == rebalance
