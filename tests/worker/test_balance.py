"""Who holds how much: claims about numbers."""

from hypothesis import given, settings
from hypothesis import strategies as st

from luma_async.worker.balance import Load, Rebalance, plan
from tests.properties import examples

MOST = 256
capacities = st.integers(1, 100_000)


def loads(most: int = 8) -> st.SearchStrategy[list[Load]]:
    def load(capacity: int) -> st.SearchStrategy[Load]:
        return st.builds(Load, st.integers(0, capacity), st.just(capacity))

    return st.lists(capacities.flatmap(load), min_size=1, max_size=most)


def decide(crew: list[Load], one: int, waiting: int = 0) -> Rebalance:
    return plan(crew[one], crew[:one] + crew[one + 1 :], waiting=waiting, most=MOST)


@given(loads(), st.integers(0, 100_000))
def test_somebody_takes_as_long_as_somebody_has_room(crew: list[Load], waiting: int) -> None:
    takes = [decide(crew, i, waiting).take for i in range(len(crew))]
    assert any(takes) or all(load.held == load.capacity for load in crew)


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=8))
def test_among_equals_the_one_that_holds_least_takes(held: list[int]) -> None:
    crew = [Load(count, 1_000_000) for count in held]
    least = min(range(len(crew)), key=lambda i: crew[i].held)
    assert decide(crew, least).take >= MOST // 2


@given(loads(), st.integers(0, 100_000))
def test_nobody_takes_more_than_there_is_room_for_or_hands_back_more_than_it_holds(
    crew: list[Load], waiting: int
) -> None:
    for i, load in enumerate(crew):
        decided = decide(crew, i, waiting)
        assert 0 <= decided.take <= min(MOST, load.capacity - load.held)
        assert 0 <= decided.hand_back <= load.held
        assert not (decided.take and decided.hand_back)


@given(loads(), st.integers(0, 50_000))
@settings(max_examples=examples(50))
def test_a_crew_comes_to_rest_with_all_that_waits_in_somebodys_hands(
    crew: list[Load], waiting: int
) -> None:
    """What each knows of the others is a round old; a round is time for many requests.

    As the worker does it: only what was too much for two rounds is handed back, and who has handed
    back takes nothing in that round.
    """
    backs, too_much = [1], [False] * len(crew)
    for _ in range(30):
        told = list(crew)
        wanted = [decide(crew, i).hand_back for i in range(len(crew))]
        backs = [back if before else 0 for back, before in zip(wanted, too_much, strict=True)]
        too_much = [back > 0 for back in wanted]
        crew = [Load(one.held - back, one.capacity) for one, back in zip(crew, backs, strict=True)]
        waiting += sum(backs)
        taking = True
        while waiting and taking:
            taking = False
            for i, load in enumerate(crew):
                known = [*told[:i], load, *told[i + 1 :]]
                take = 0 if backs[i] else min(waiting, decide(known, i, waiting).take)
                crew[i] = Load(load.held + take, load.capacity)
                waiting, taking = waiting - take, taking or take > 0
    assert not any(backs)
    assert not waiting or all(load.held == load.capacity for load in crew)


def test_a_second_worker_gets_half_and_nothing_moves_after_that() -> None:
    crew = [Load(10_000, 100_000), Load(0, 100_000)]
    assert decide(crew, 0).hand_back == 5_000
    assert decide(crew, 1).take == MOST
    even = [Load(5_000, 100_000), Load(5_000, 100_000)]
    assert decide(even, 0) == Rebalance(take=MOST)


def test_workers_that_start_together_take_their_parts_without_hearing_of_each_other() -> None:
    crew = [Load(9_000, 100_000), Load(0, 100_000)]
    assert decide(crew, 0, waiting=11_000).take == MOST
    assert decide([Load(12_000, 100_000), Load(0, 100_000)], 0, waiting=8_000) == Rebalance()


def test_one_that_is_alone_takes_until_it_is_full() -> None:
    assert decide([Load(99_900, 100_000)], 0) == Rebalance(take=100)
    assert decide([Load(100_000, 100_000)], 0) == Rebalance()
    assert decide([Load(0, 100_000)], 0) == Rebalance(take=MOST)


def test_a_small_worker_does_a_small_part() -> None:
    crew = [Load(1_000, 1_000), Load(9_000, 99_000)]
    assert decide(crew, 0).hand_back == 900
    assert decide(crew, 1).take == MOST
