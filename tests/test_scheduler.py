"""The book by example: when calls depart, who is aboard, what is told."""

import gc
from collections.abc import Sized
from math import inf

import pytest

from luma_async.scheduling.batch_size import BatchSize
from luma_async.scheduling.changes import Change, Grace
from luma_async.scheduling.evidence import Sign
from luma_async.scheduling.items import TRANSITIONS, Batch, Group, Status, Transition
from luma_async.scheduling.pace import MAX_LINGER, Every
from luma_async.scheduling.scheduler import Scheduler
from luma_async.structs import State
from tests.fake_answers import Told

OPEN, DONE, FAILED = State.PROCESSING, State.COMPLETED, State.FAILED


def book(seats: int = 100, grace: Grace | None = None, phase: float = inf) -> Scheduler[str]:
    return Scheduler(Every(5.0), seats, grace or Grace(), phase=phase)


def taken(some: Scheduler[str], now: float) -> Batch[str]:
    call = some.take_batch(now)
    assert call is not None
    return call


def told(call: Batch[str], state: State) -> Told:
    return Told(dict.fromkeys(call.ids, state))


def entries_in_memory() -> int:
    """Count the ids that cohorts hold; the collector knows cohorts alone."""
    gc.collect()
    cohorts: list[Group[str]] = [one for one in gc.get_objects() if isinstance(one, Group)]
    return sum(len(cohort.items) + 1 for cohort in cohorts)


def test_what_is_new_leaves_at_once() -> None:
    some = book()
    some.subscribe("ann", ["a"], 7.0)
    assert some.next_due() == 7.0
    assert taken(some, 7.0).ids == ("a",)


def test_what_arrives_while_a_request_is_under_way_shares_the_next() -> None:
    some = book()
    some.subscribe("ann", ["a"], 0.0)
    first = taken(some, 0.0)
    for number in range(10):
        some.subscribe(f"caller {number}", [f"new {number}"], 0.1)
    assert some.take_batch(0.2) is None
    some.complete(first, told(first, OPEN), 0.3)
    shared = taken(some, 0.3)
    assert len(shared.ids) == 11, "the ten, and in a free seat the one that rests"


def test_nobody_waits_longer_than_a_second_for_a_request_that_hangs() -> None:
    some = book()
    some.subscribe("ann", ["a"], 0.0)
    taken(some, 0.0)
    some.subscribe("bob", ["b"], 0.5)
    assert some.next_due() == 0.5 + MAX_LINGER
    assert taken(some, 0.5 + MAX_LINGER).ids == ("b",)


def test_what_came_while_nothing_was_under_way_leaves_at_once_to_the_last() -> None:
    some = book(seats=2)
    some.subscribe("ann", ["a", "b", "c"], 0.0)
    assert taken(some, 0.0).ids == ("a", "b")
    assert taken(some, 0.0).ids == ("c",)


def test_a_full_request_need_not_wait_for_another_to_return() -> None:
    some = book(seats=2)
    some.subscribe("ann", ["a"], 0.0)
    taken(some, 0.0)
    some.subscribe("bob", ["b"], 0.1)
    assert some.take_batch(0.1) is None
    some.subscribe("cyd", ["c"], 0.2)
    assert taken(some, 0.2).ids == ("b", "c")


def test_a_return_that_nobody_waited_for_opens_no_door() -> None:
    some = book(seats=1)
    some.subscribe("ann", ["a", "b"], 0.0)
    first, _ = taken(some, 0.0), taken(some, 0.0)
    some.complete(first, told(first, OPEN), 0.1)
    some.batch_size = BatchSize(100)
    some.subscribe("cyd", ["c"], 0.2)
    assert some.next_due() == 0.2 + MAX_LINGER


def test_each_id_rests_one_interval_from_one_departure_to_the_next() -> None:
    some = book()
    some.subscribe("ann", ["a"], 0.0)
    call = taken(some, 0.0)
    some.complete(call, told(call, OPEN), 0.4)
    assert some.next_due() == 5.0
    assert some.take_batch(4.999) is None
    assert taken(some, 5.0).ids == ("a",)


def test_the_first_rest_of_a_busy_period_is_shortened_by_the_phase() -> None:
    some = book(phase=0.6)
    some.subscribe("ann", ["a"], 10.0)
    call = taken(some, 10.0)
    some.complete(call, told(call, OPEN), 10.1)
    assert some.next_due() == 13.0
    call = taken(some, 13.0)
    some.complete(call, told(call, OPEN), 13.1)
    assert some.next_due() == 18.0


def test_all_ids_soon_share_one_clock() -> None:
    some = book()
    departures: list[tuple[float, int]] = []
    for number in range(20):
        some.subscribe("ann", [f"id {number}"], number * 0.2)
    now = 0.0
    while (now := some.next_due()) < 60.0:
        call = taken(some, now)
        departures.append((now, len(call.ids)))
        some.complete(call, told(call, OPEN), now)
    assert [count for at, count in departures if at >= 10.0] == [20] * 10


def test_free_seats_go_to_the_ids_unasked_longest() -> None:
    some = book(seats=2)
    for number, name in enumerate("abc"):
        some.subscribe("ann", [name], float(number))
        call = taken(some, float(number))
        some.complete(call, told(call, OPEN), float(number))
        some.batch_size = BatchSize(1)
    some.batch_size = BatchSize(2)
    some.subscribe("ann", ["new"], 3.0)
    assert taken(some, 3.0).ids == ("new", "a")


def test_an_id_that_many_want_is_asked_once_and_told_to_all() -> None:
    some = book()
    for number in range(1000):
        some.subscribe(f"caller {number}", ["a"], 0.0)
    call = taken(some, 0.0)
    assert call.ids == ("a",)
    (change,) = some.complete(call, told(call, DONE), 0.1)
    assert len(change.watchers) == 1000
    assert len(some) == 0


def test_who_joins_while_the_request_is_under_way_shares_its_answer() -> None:
    some = book()
    some.subscribe("ann", ["a"], 0.0)
    call = taken(some, 0.0)
    some.subscribe("bob", ["a"], 0.1)
    (change,) = some.complete(call, told(call, DONE), 0.2)
    assert change.watchers == ("ann", "bob")


def test_a_request_that_nobody_needs_is_named_when_the_last_one_leaves() -> None:
    some = book()
    some.subscribe("ann", ["a", "b"], 0.0)
    some.subscribe("bob", ["b"], 0.0)
    call = taken(some, 0.0)
    assert some.unsubscribe("ann", ["a", "b"]) == []
    assert some.unsubscribe("bob", ["b"]) == [call]


def test_an_orphan_that_is_wanted_again_is_not_asked_twice_at_once() -> None:
    some = book()
    some.subscribe("ann", ["a"], 0.0)
    call = taken(some, 0.0)
    some.unsubscribe("ann", ["a"])
    assert some.status_of("a") is Status.ABANDONED
    some.subscribe("bob", ["a"], 0.1)
    assert some.take_batch(100.0) is None
    (change,) = some.complete(call, told(call, DONE), 100.0)
    assert change.watchers == ("bob",)


def test_leaving_twice_or_a_wait_that_never_was_is_harmless() -> None:
    some = book()
    some.subscribe("ann", ["a"], 0.0)
    assert some.unsubscribe("bob", ["a", "b"]) == []
    some.unsubscribe("ann", ["a"])
    assert some.unsubscribe("ann", ["a"]) == []
    assert some.next_due() == inf


def test_only_a_change_of_state_is_told() -> None:
    some = book()
    some.subscribe("ann", ["a"], 0.0)
    seen: list[State] = []
    for number, state in enumerate([State.PENDING, State.PENDING, OPEN, OPEN, FAILED]):
        now = number * 5.0
        call = taken(some, now)
        changes = some.complete(call, told(call, state), now)
        seen += [change.generation.state for change in changes if change.generation]
    assert seen == [State.PENDING, OPEN, FAILED]


def test_news_says_how_late_it_can_be() -> None:
    some = book()
    some.subscribe("ann", ["a"], 0.0)
    call = taken(some, 0.0)
    (first,) = some.complete(call, told(call, OPEN), 0.25)
    call = taken(some, 5.0)
    (last,) = some.complete(call, told(call, DONE), 5.5)
    assert first.max_lag is None
    assert last.max_lag == 5.25


def test_an_id_that_the_relay_does_not_know_is_missing_after_the_grace() -> None:
    some = book(grace=Grace(missing=12.0))
    some.subscribe("ann", ["a"], 0.0)
    asked: list[float] = []
    changes: list[Change[str]] = []
    while not changes:
        asked.append(some.next_due())
        changes = some.complete(taken(some, asked[-1]), Told({}), asked[-1])
    assert asked == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    assert changes[0].ended
    assert changes[0].generation is None
    assert len(some) == 0


def test_a_few_odd_answers_far_apart_are_not_enough_for_missing() -> None:
    some = book(grace=Grace(missing=12.0))
    some.subscribe("ann", ["a"], 0.0)
    for now in (0.0, 1000.0):
        assert not some.complete(taken(some, now), Told({}), now, sign=Sign.NOT_FOUND)
    assert some.complete(taken(some, 2000.0), Told({}), 2000.0, sign=Sign.NOT_FOUND)


def test_without_a_grace_one_answer_is_enough() -> None:
    some = book(grace=Grace(missing=0.0))
    some.subscribe("ann", ["a"], 0.0)
    assert some.complete(taken(some, 0.0), Told({}), 0.0)


def test_an_answer_in_doubt_needs_many_times_the_grace() -> None:
    some = book(grace=Grace(missing=12.0))
    some.subscribe("ann", ["a"], 0.0)
    changes: list[Change[str]] = []
    now = 0.0
    while not changes:
        now = some.next_due()
        changes = some.complete(taken(some, now), Told({}), now, sign=Sign.REJECTED)
    assert 120.0 <= now <= 125.0


def test_a_size_is_learned_once_all_parts_of_a_refused_call_passed_twice() -> None:
    some = book(seats=8)
    some.subscribe("ann", "abcdefgh", 0.0)
    for now in (0.0, 5.0):
        assert some.batch_size.current(now) == 8
        some.bisect(taken(some, now), size_evidence=1)
        for _ in range(2):
            half = taken(some, now)
            assert len(half.ids) == 4
            some.complete(half, Told(dict.fromkeys(half.ids, OPEN)), now)
    assert some.batch_size.current(5.0) == 4
    assert len(taken(some, 10.0).ids) == 4


def test_of_what_was_not_refused_no_size_is_learned() -> None:
    some = book(seats=8)
    some.subscribe("ann", "abcdefgh", 0.0)
    for now in (0.0, 5.0, 10.0):
        some.bisect(taken(some, now))
        for _ in range(2):
            half = taken(some, now)
            some.complete(half, Told(dict.fromkeys(half.ids, OPEN)), now)
    assert some.batch_size.current(10.0) == 8


def test_one_bad_id_teaches_nothing_about_the_size() -> None:
    some = book(seats=8)
    some.subscribe("ann", "abcdefgh", 0.0)
    now = 0.0
    for _ in range(60):
        now = max(now, some.next_due())
        call = taken(some, now)
        if "c" in call.ids and len(call.ids) > 1:
            some.bisect(call, size_evidence=2)
        else:
            some.complete(call, Told(dict.fromkeys(call.ids, OPEN)), now)
    assert some.batch_size.current(now) == 8


def test_suspects_take_turns_with_the_rest() -> None:
    some = book(seats=4)
    some.subscribe("ann", "abcd", 0.0)
    some.bisect(taken(some, 0.0))
    some.subscribe("bob", "xyzw", 0.0)
    assert [taken(some, 0.0).ids for _ in range(3)] == [("a", "b"), tuple("xyzw"), ("c", "d")]


def test_an_id_that_comes_back_has_its_whole_grace_again() -> None:
    some = book(grace=Grace(missing=6.0))
    some.subscribe("ann", ["a"], 0.0)
    for now, states in ((0.0, {}), (5.0, {"a": OPEN}), (10.0, {}), (15.0, {"a": OPEN})):
        call = taken(some, now)
        assert not any(change.ended for change in some.complete(call, Told(states), now))


def test_completed_without_a_link_is_asked_again_then_told_as_it_is() -> None:
    some = book(grace=Grace(link=7.0))
    some.subscribe("ann", ["a"], 0.0)
    for now in (0.0, 5.0):
        call = taken(some, now)
        assert some.complete(call, Told({"a": DONE}, url=None), now) == []
    assert some.next_due() == 7.0
    (change,) = some.complete(taken(some, 7.0), Told({"a": DONE}, url=None), 7.0)
    assert change.ended


def test_a_link_that_comes_in_time_ends_the_wait() -> None:
    some = book(grace=Grace(link=7.0))
    some.subscribe("ann", ["a"], 0.0)
    some.complete(taken(some, 0.0), Told({"a": DONE}, url=None), 0.0)
    (change,) = some.complete(taken(some, 5.0), Told({"a": DONE}), 5.0)
    assert change.ended
    assert change.generation
    assert change.generation.url


def test_failed_needs_no_link() -> None:
    some = book()
    some.subscribe("ann", ["a"], 0.0)
    (change,) = some.complete(taken(some, 0.0), Told({"a": FAILED}, url=None), 0.0)
    assert change.ended


def test_a_spoiled_call_counts_its_tries_until_an_answer_comes() -> None:
    some = book()
    some.subscribe("ann", ["a"], 0.0)
    for tries in (1, 2, 3):
        call = taken(some, tries * 1.0)
        assert call.attempt == tries
        some.back_off(call, (tries + 1) * 1.0)
    call = taken(some, 4.0)
    some.complete(call, told(call, OPEN), 4.0)
    assert taken(some, 9.0).attempt == 1


def test_a_refused_call_is_halved_until_the_bad_id_stands_alone() -> None:
    some = book()
    some.subscribe("ann", [f"id {number}" for number in range(8)], 0.0)
    requests: list[tuple[str, ...]] = []
    while some.next_due() <= 0.0:
        call = taken(some, 0.0)
        requests.append(call.ids)
        if "id 5" in call.ids and len(call.ids) > 1:
            some.bisect(call, size_evidence=2)
        else:
            some.complete(call, told(call, OPEN), 0.0)
    assert ("id 5",) in requests
    assert len(requests) == 7
    assert all(some.status_of(f"id {number}") is Status.SCHEDULED for number in range(8))


def test_ids_that_nobody_wants_any_more_are_not_kept_behind_one_that_rests() -> None:
    before = entries_in_memory()
    some = book(seats=1)
    for number in range(2000):
        watcher = "bob" if number == 0 else "ann"
        some.subscribe(watcher, [f"id {number}"], 0.0)
        some.complete(taken(some, 0.0), Told({f"id {number}": State.PENDING}), 0.0)
        some.unsubscribe("ann", [f"id {number}"])
    assert len(some) == 1
    assert entries_in_memory() - before < 500


def test_suspects_travel_in_no_more_seats_than_there_are() -> None:
    some = book(seats=8)
    some.subscribe("ann", [f"id {number}" for number in range(8)], 0.0)
    some.bisect(taken(some, 0.0))
    some.batch_size = BatchSize(3)
    sizes = [len(taken(some, 0.0).ids) for _ in range(4)]
    assert sizes == [3, 1, 3, 1]


def test_completed_without_a_link_and_then_unknown_ends_as_it_was_seen() -> None:
    some = book(grace=Grace(missing=5.0))
    some.subscribe("ann", ["a"], 0.0)
    some.complete(taken(some, 0.0), Told({"a": DONE}, url=None), 0.0)
    for now in range(5, 10):
        assert not some.complete(taken(some, now), Told({}), now, sign=Sign.NOT_FOUND)
    (change,) = some.complete(taken(some, 10.0), Told({}), 10.0, sign=Sign.NOT_FOUND)
    assert change.generation
    assert change.generation.state is DONE


def test_a_link_has_its_grace_once_whatever_is_said_in_between() -> None:
    some = book(grace=Grace(link=7.0))
    some.subscribe("ann", ["a"], 0.0)
    for now, state in ((0.0, DONE), (5.0, OPEN)):
        changes = some.complete(taken(some, now), Told({"a": state}, url=None), now)
        assert not any(change.ended for change in changes)
    (change,) = some.complete(taken(some, 10.0), Told({"a": DONE}, url=None), 10.0)
    assert change.ended


def test_who_came_and_left_leaves_nothing_behind() -> None:
    some = book()
    some.subscribe("ann", ["a"], 0.0)
    call = taken(some, 0.0)
    for number in range(2000):
        some.subscribe("bob", [f"id {number}"], 0.1)
        some.unsubscribe("bob", [f"id {number}"])
    some.complete(call, told(call, OPEN), 0.2)
    for number in range(2000):
        some.subscribe("bob", [f"id {number}"], 0.3)
        call = taken(some, 0.3)
        some.complete(call, told(call, OPEN), 0.3)
        some.unsubscribe("bob", [f"id {number}"])
    assert len(some) == 1
    rooms = [len(room) for room in vars(some).values() if isinstance(room, Sized)]
    assert max(rooms) < 300


def test_the_table_leads_from_absent_to_every_phase_and_back() -> None:
    reached, edge = {Status.UNTRACKED}, {Status.UNTRACKED}
    while edge := {to for phase in edge for to in TRANSITIONS[phase].values()} - reached:
        reached |= edge
    assert reached == set(Status)
    for phase in set(Status) - {Status.UNTRACKED}:
        leaves = TRANSITIONS[phase].keys() & {Transition.UNSUBSCRIBE, Transition.FINISH}
        assert leaves, f"an id can leave from {phase}"


def test_what_is_not_in_the_table_is_refused() -> None:
    some = book()
    some.subscribe("ann", ["a"], 0.0)
    call = taken(some, 0.0)
    some.complete(call, told(call, OPEN), 0.0)
    with pytest.raises(KeyError):
        some.complete(call, told(call, OPEN), 0.0)


def test_the_oldest_open_id_is_known() -> None:
    some = book()
    assert some.oldest_watched_since() is None
    some.subscribe("ann", ["a", "b"], 3.0)
    some.subscribe("bob", ["b"], 4.0)
    assert some.oldest_watched_since() == 3.0
    assert repr(some) == "<Scheduler: 2 open, 0 batches in flight, 100 ids a batch>"
    assert repr(taken(some, 3.0)) == "<Batch of 2 ids, 2 watched>"
