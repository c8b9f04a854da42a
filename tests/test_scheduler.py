"""The scheduler by example: when requests are sent, which ids are in them, what is reported."""

import gc
from collections.abc import Callable, Collection
from math import inf

import pytest

from luma_async.scheduling.batches import Batch
from luma_async.scheduling.capabilities import Capabilities
from luma_async.scheduling.changes import Change, Grace
from luma_async.scheduling.items import TRANSITIONS, Group, Status, Transition, regroup
from luma_async.scheduling.missing_evidence import Sign
from luma_async.scheduling.pace import MAX_LINGER, Every, Learned
from luma_async.scheduling.scheduler import Scheduler
from luma_async.structs import State
from tests.fake_answers import FakeAnswer

OPEN, DONE, FAILED = State.PROCESSING, State.COMPLETED, State.FAILED


def make_scheduler(
    max_batch: int = 100, grace: Grace | None = None, phase: float = inf
) -> Scheduler[str]:
    return Scheduler(Every(5.0), max_batch, grace or Grace(), phase=phase)


def take(scheduler: Scheduler[str], now: float) -> Batch[str]:
    batch = scheduler.take_batch(now)
    assert batch is not None
    return batch


def answer_of(batch: Batch[str], state: State) -> FakeAnswer:
    return FakeAnswer(dict.fromkeys(batch.ids, state))


def items_in_memory() -> int:
    """Count the ids in groups; the garbage collector tracks groups alone."""
    gc.collect()
    groups: list[Group[str]] = [one for one in gc.get_objects() if isinstance(one, Group)]
    return sum(len(group.items) + 1 for group in groups)


def test_a_new_id_is_sent_at_once() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 7.0)
    assert scheduler.next_due() == 7.0
    assert take(scheduler, 7.0).ids == ("a",)


def test_ids_added_while_a_request_is_in_flight_share_the_next_one() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    first = take(scheduler, 0.0)
    for number in range(10):
        scheduler.subscribe(f"caller {number}", [f"new {number}"], 0.1)
    assert scheduler.take_batch(0.2) is None
    scheduler.complete(first, answer_of(first, OPEN), 0.3)
    shared = take(scheduler, 0.3)
    assert len(shared.ids) == 11, "the ten, and the scheduled one to fill up"


def test_a_batch_counts_as_the_attempt_of_the_id_that_failed_most_often() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    for now in (0.0, 1.0):
        scheduler.back_off(take(scheduler, now), now + 1.0)
    scheduler.subscribe("bob", ["new"], 2.0)
    batch = take(scheduler, 2.0)
    assert set(batch.ids) == {"a", "new"}
    assert batch.attempt == 3


def test_new_ids_are_sent_when_the_first_of_several_requests_returns() -> None:
    scheduler = make_scheduler(max_batch=2)
    scheduler.subscribe("ann", ["a", "b", "c", "d"], 0.0)
    first, _ = take(scheduler, 0.0), take(scheduler, 0.0)
    scheduler.subscribe("bob", ["new"], 0.1)
    assert scheduler.next_due() == 0.1 + MAX_LINGER
    scheduler.complete(first, answer_of(first, OPEN), 0.3)
    assert scheduler.next_due() <= 0.3
    assert "new" in take(scheduler, 0.3).ids


def test_of_single_requests_every_third_is_for_the_id_that_came_last() -> None:
    scheduler = make_scheduler(max_batch=1)
    for number, one in enumerate("abcdefghi"):
        scheduler.subscribe("ann", [one], 0.001 * number)
    taken = [take(scheduler, 9.0).ids[0] for _ in range(9)]
    assert taken == ["a", "b", "i", "c", "d", "h", "e", "f", "g"]


def test_a_new_id_waits_a_second_at_most_for_a_request_that_hangs() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    take(scheduler, 0.0)
    scheduler.subscribe("bob", ["b"], 0.5)
    assert scheduler.next_due() == 0.5 + MAX_LINGER
    assert take(scheduler, 0.5 + MAX_LINGER).ids == ("b",)


def test_all_ids_added_while_nothing_is_in_flight_are_sent_at_once() -> None:
    scheduler = make_scheduler(max_batch=2)
    scheduler.subscribe("ann", ["a", "b", "c"], 0.0)
    assert take(scheduler, 0.0).ids == ("a", "b")
    assert take(scheduler, 0.0).ids == ("c",)


def test_a_full_batch_does_not_wait_for_a_request_in_flight() -> None:
    scheduler = make_scheduler(max_batch=2)
    scheduler.subscribe("ann", ["a"], 0.0)
    take(scheduler, 0.0)
    scheduler.subscribe("bob", ["b"], 0.1)
    assert scheduler.take_batch(0.1) is None
    scheduler.subscribe("cyd", ["c"], 0.2)
    assert take(scheduler, 0.2).ids == ("b", "c")


def test_a_response_from_before_an_id_was_added_does_not_send_it() -> None:
    scheduler = make_scheduler(max_batch=100)
    scheduler.capabilities = Capabilities(100).reduced_to(1, 0.0)
    scheduler.subscribe("ann", ["a", "b"], 0.0)
    first, _ = take(scheduler, 0.0), take(scheduler, 0.0)
    scheduler.complete(first, answer_of(first, OPEN), 0.1)
    scheduler.capabilities = Capabilities(100)
    scheduler.subscribe("cyd", ["c"], 0.2)
    assert scheduler.next_due() == 0.2 + MAX_LINGER


def test_an_id_is_due_one_interval_after_its_last_request_was_sent() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    batch = take(scheduler, 0.0)
    scheduler.complete(batch, answer_of(batch, OPEN), 0.4)
    assert scheduler.next_due() == 5.0
    assert scheduler.take_batch(4.999) is None
    assert take(scheduler, 5.0).ids == ("a",)


def test_the_first_delay_of_a_busy_period_is_shortened_by_the_phase() -> None:
    scheduler = make_scheduler(phase=0.6)
    scheduler.subscribe("ann", ["a"], 10.0)
    batch = take(scheduler, 10.0)
    scheduler.complete(batch, answer_of(batch, OPEN), 10.1)
    assert scheduler.next_due() == 13.0
    batch = take(scheduler, 13.0)
    scheduler.complete(batch, answer_of(batch, OPEN), 13.1)
    assert scheduler.next_due() == 18.0


def test_all_ids_soon_share_one_clock() -> None:
    scheduler = make_scheduler()
    sends: list[tuple[float, int]] = []
    for number in range(20):
        scheduler.subscribe("ann", [f"id {number}"], number * 0.2)
    now = 0.0
    while (now := scheduler.next_due()) < 60.0:
        batch = take(scheduler, now)
        sends.append((now, len(batch.ids)))
        scheduler.complete(batch, answer_of(batch, OPEN), now)
    assert [count for at, count in sends if at >= 10.0] == [20] * 10


def test_a_request_in_flight_has_a_watcher_again_if_one_of_its_ids_is_watched_again() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a", "b"], 0.0)
    batch = take(scheduler, 0.0)
    assert scheduler.unsubscribe("ann", ["a"]) == []
    scheduler.subscribe("bob", ["a"], 0.1)
    assert scheduler.unsubscribe("ann", ["b"]) == [], "bob waits for it"
    assert scheduler.unsubscribe("bob", ["a"]) == [batch]


def test_ids_polled_together_are_grouped_by_their_keys() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", "abcd", 0.0)
    batch = take(scheduler, 0.0)
    for item, created_at in zip(batch.items, (1.0, 5.0, 2.0, 6.0), strict=True):
        item.created_at = created_at
    (group,) = batch.groups
    pair, other = group.split_off(batch.items[:2]), group.split_off(batch.items[2:])
    for one in (pair, other):
        one.update_age_range()
    groups = {
        "".join(sorted(item.task_id for item in one.items)): (one.oldest, one.youngest)
        for one in regroup([pair, other], lambda created_at: created_at > 4.0)
    }
    assert groups == {"ac": (1.0, 2.0), "bd": (5.0, 6.0)}


def test_a_batch_is_filled_up_with_the_ids_polled_longest_ago() -> None:
    scheduler = make_scheduler(max_batch=2)
    for number, name in enumerate("abc"):
        scheduler.subscribe("ann", [name], float(number))
        batch = take(scheduler, float(number))
        scheduler.complete(batch, answer_of(batch, OPEN), float(number))
        scheduler.capabilities = Capabilities(1)
    scheduler.capabilities = Capabilities(2)
    scheduler.subscribe("ann", ["new"], 3.0)
    assert take(scheduler, 3.0).ids == ("new", "a")


def test_an_id_with_many_watchers_is_polled_once_and_reported_to_all() -> None:
    scheduler = make_scheduler()
    for number in range(1000):
        scheduler.subscribe(f"caller {number}", ["a"], 0.0)
    batch = take(scheduler, 0.0)
    assert batch.ids == ("a",)
    (change,) = scheduler.complete(batch, answer_of(batch, DONE), 0.1)
    assert len(change.watchers) == 1000
    assert len(scheduler) == 0


def test_a_watcher_added_while_the_request_is_in_flight_receives_its_response() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    batch = take(scheduler, 0.0)
    scheduler.subscribe("bob", ["a"], 0.1)
    (change,) = scheduler.complete(batch, answer_of(batch, DONE), 0.2)
    assert change.watchers == ("ann", "bob")


def test_unsubscribe_returns_the_batch_that_has_no_watcher_left() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a", "b"], 0.0)
    scheduler.subscribe("bob", ["b"], 0.0)
    batch = take(scheduler, 0.0)
    assert scheduler.unsubscribe("ann", ["a", "b"]) == []
    assert scheduler.unsubscribe("bob", ["b"]) == [batch]


def test_an_abandoned_id_that_is_watched_again_is_not_in_two_requests() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    batch = take(scheduler, 0.0)
    scheduler.unsubscribe("ann", ["a"])
    assert scheduler.status_of("a") is Status.ABANDONED
    scheduler.subscribe("bob", ["a"], 0.1)
    assert scheduler.take_batch(100.0) is None
    (change,) = scheduler.complete(batch, answer_of(batch, DONE), 100.0)
    assert change.watchers == ("bob",)


def test_unsubscribing_twice_or_without_subscribing_is_harmless() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    assert scheduler.unsubscribe("bob", ["a", "b"]) == []
    scheduler.unsubscribe("ann", ["a"])
    assert scheduler.unsubscribe("ann", ["a"]) == []
    assert scheduler.next_due() == inf


def test_only_a_change_of_state_is_reported() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    seen: list[State] = []
    for number, state in enumerate([State.PENDING, State.PENDING, OPEN, OPEN, FAILED]):
        now = number * 5.0
        batch = take(scheduler, now)
        changes = scheduler.complete(batch, answer_of(batch, state), now)
        seen += [change.generation.state for change in changes if change.generation]
    assert seen == [State.PENDING, OPEN, FAILED]


def test_a_change_has_its_maximum_lag() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    batch = take(scheduler, 0.0)
    (first,) = scheduler.complete(batch, answer_of(batch, OPEN), 0.25)
    batch = take(scheduler, 5.0)
    (last,) = scheduler.complete(batch, answer_of(batch, DONE), 5.5)
    assert first.max_lag is None
    assert last.max_lag == 5.5, "since the request at 0, whose response may show a state of then"


def test_an_id_that_the_relay_does_not_know_is_missing_after_the_grace_period() -> None:
    scheduler = make_scheduler(grace=Grace(missing=12.0))
    scheduler.subscribe("ann", ["a"], 0.0)
    polled_at: list[float] = []
    changes: list[Change[str]] = []
    while not changes:
        polled_at.append(scheduler.next_due())
        changes = scheduler.complete(take(scheduler, polled_at[-1]), FakeAnswer({}), polled_at[-1])
    assert polled_at == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    assert changes[0].ended
    assert changes[0].generation is None
    assert len(scheduler) == 0


def test_a_few_responses_without_the_id_far_apart_do_not_make_it_missing() -> None:
    scheduler = make_scheduler(grace=Grace(missing=12.0))
    scheduler.subscribe("ann", ["a"], 0.0)
    for now in (0.0, 1000.0, 2000.0, 3000.0, 4000.0, 5000.0):
        assert not scheduler.complete(
            take(scheduler, now), FakeAnswer({}), now, sign=Sign.NOT_FOUND
        )
    assert scheduler.complete(take(scheduler, 6000.0), FakeAnswer({}), 6000.0, sign=Sign.NOT_FOUND)


def test_without_a_grace_period_one_response_is_enough() -> None:
    scheduler = make_scheduler(grace=Grace(missing=0.0))
    scheduler.subscribe("ann", ["a"], 0.0)
    assert scheduler.complete(take(scheduler, 0.0), FakeAnswer({}), 0.0)


def test_a_doubtful_response_has_many_times_the_grace_period() -> None:
    scheduler = make_scheduler(grace=Grace(missing=12.0))
    scheduler.subscribe("ann", ["a"], 0.0)
    changes: list[Change[str]] = []
    now = 0.0
    while not changes:
        now = scheduler.next_due()
        changes = scheduler.complete(take(scheduler, now), FakeAnswer({}), now, sign=Sign.REJECTED)
    assert 120.0 <= now <= 125.0


def test_the_batch_size_is_learned_once_all_parts_of_a_rejected_batch_passed_twice() -> None:
    scheduler = make_scheduler(max_batch=8)
    scheduler.subscribe("ann", "abcdefgh", 0.0)
    for now in (0.0, 5.0):
        assert scheduler.capabilities.max_ids(now) == 8
        scheduler.bisect(take(scheduler, now), size_evidence=1)
        for _ in range(2):
            half = take(scheduler, now)
            assert len(half.ids) == 4
            scheduler.complete(half, FakeAnswer(dict.fromkeys(half.ids, OPEN)), now)
    assert scheduler.capabilities.max_ids(5.0) == 4
    assert len(take(scheduler, 10.0).ids) == 4


def test_no_batch_size_is_learned_from_a_batch_that_was_not_rejected() -> None:
    scheduler = make_scheduler(max_batch=8)
    scheduler.subscribe("ann", "abcdefgh", 0.0)
    for now in (0.0, 5.0, 10.0):
        scheduler.bisect(take(scheduler, now))
        for _ in range(2):
            half = take(scheduler, now)
            scheduler.complete(half, FakeAnswer(dict.fromkeys(half.ids, OPEN)), now)
    assert scheduler.capabilities.max_ids(10.0) == 8


def test_one_bad_id_does_not_change_the_batch_size() -> None:
    scheduler = make_scheduler(max_batch=8)
    scheduler.subscribe("ann", "abcdefgh", 0.0)
    now = 0.0
    for _ in range(60):
        now = max(now, scheduler.next_due())
        batch = take(scheduler, now)
        if "c" in batch.ids and len(batch.ids) > 1:
            scheduler.bisect(batch, size_evidence=2)
        else:
            scheduler.complete(batch, FakeAnswer(dict.fromkeys(batch.ids, OPEN)), now)
    assert scheduler.capabilities.max_ids(now) == 8


def test_bisected_batches_take_turns_with_others() -> None:
    scheduler = make_scheduler(max_batch=4)
    scheduler.subscribe("ann", "abcd", 0.0)
    scheduler.bisect(take(scheduler, 0.0))
    scheduler.subscribe("bob", "xyzw", 0.0)
    assert [take(scheduler, 0.0).ids for _ in range(3)] == [("a", "b"), tuple("xyzw"), ("c", "d")]


def test_an_id_that_is_found_again_has_a_whole_new_grace_period() -> None:
    scheduler = make_scheduler(grace=Grace(missing=6.0))
    scheduler.subscribe("ann", ["a"], 0.0)
    for now, states in ((0.0, {}), (5.0, {"a": OPEN}), (10.0, {}), (15.0, {"a": OPEN})):
        batch = take(scheduler, now)
        assert not any(
            change.ended for change in scheduler.complete(batch, FakeAnswer(states), now)
        )


def test_an_id_is_asked_about_by_get_after_the_second_batch_that_leaves_it_out() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a", "b", "left out"], 0.0)
    now = 0.0
    for _ in range(2):
        batch = take(scheduler, now)
        assert "left out" in batch.ids
        assert len(batch.ids) > 1
        known = {one: OPEN for one in batch.ids if one != "left out"}
        scheduler.complete(batch, FakeAnswer(known), now)
        now = scheduler.next_due()
    assert take(scheduler, now).ids == ("left out",)


def test_a_task_completed_without_a_link_is_polled_again_then_reported_without_one() -> None:
    scheduler = make_scheduler(grace=Grace(link=7.0))
    scheduler.subscribe("ann", ["a"], 0.0)
    for now in (0.0, 5.0):
        batch = take(scheduler, now)
        assert scheduler.complete(batch, FakeAnswer({"a": DONE}, url=None), now) == []
    assert scheduler.next_due() == 7.0
    (change,) = scheduler.complete(take(scheduler, 7.0), FakeAnswer({"a": DONE}, url=None), 7.0)
    assert change.ended


def test_a_link_within_the_grace_period_ends_the_wait() -> None:
    scheduler = make_scheduler(grace=Grace(link=7.0))
    scheduler.subscribe("ann", ["a"], 0.0)
    scheduler.complete(take(scheduler, 0.0), FakeAnswer({"a": DONE}, url=None), 0.0)
    (change,) = scheduler.complete(take(scheduler, 5.0), FakeAnswer({"a": DONE}), 5.0)
    assert change.ended
    assert change.generation
    assert change.generation.url


def test_a_failed_task_needs_no_link() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    (change,) = scheduler.complete(take(scheduler, 0.0), FakeAnswer({"a": FAILED}, url=None), 0.0)
    assert change.ended


def test_a_failed_batch_counts_its_attempts_until_a_response() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    for attempt in (1, 2, 3):
        batch = take(scheduler, attempt * 1.0)
        assert batch.attempt == attempt
        scheduler.back_off(batch, (attempt + 1) * 1.0)
    batch = take(scheduler, 4.0)
    scheduler.complete(batch, answer_of(batch, OPEN), 4.0)
    assert take(scheduler, 9.0).attempt == 1


def test_a_rejected_batch_is_bisected_until_the_bad_id_is_alone() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", [f"id {number}" for number in range(8)], 0.0)
    requests: list[tuple[str, ...]] = []
    while scheduler.next_due() <= 0.0:
        batch = take(scheduler, 0.0)
        requests.append(batch.ids)
        if "id 5" in batch.ids and len(batch.ids) > 1:
            scheduler.bisect(batch, size_evidence=2)
        else:
            scheduler.complete(batch, answer_of(batch, OPEN), 0.0)
    assert ("id 5",) in requests
    assert len(requests) == 7
    assert all(scheduler.status_of(f"id {number}") is Status.SCHEDULED for number in range(8))


def test_ids_without_a_watcher_are_not_kept_behind_a_scheduled_one() -> None:
    before = items_in_memory()
    scheduler = make_scheduler(max_batch=1)
    for number in range(2000):
        watcher = "bob" if number == 0 else "ann"
        scheduler.subscribe(watcher, [f"id {number}"], 0.0)
        scheduler.complete(take(scheduler, 0.0), FakeAnswer({f"id {number}": State.PENDING}), 0.0)
        scheduler.unsubscribe("ann", [f"id {number}"])
    assert len(scheduler) == 1
    assert items_in_memory() - before < 500


def test_bisected_batches_obey_the_batch_size() -> None:
    scheduler = make_scheduler(max_batch=8)
    scheduler.subscribe("ann", [f"id {number}" for number in range(8)], 0.0)
    scheduler.bisect(take(scheduler, 0.0))
    scheduler.capabilities = Capabilities(3)
    sizes = [len(take(scheduler, 0.0).ids) for _ in range(4)]
    assert sizes == [3, 1, 3, 1]


def test_a_task_completed_without_a_link_and_then_not_found_ends_as_completed() -> None:
    scheduler = make_scheduler(grace=Grace(missing=5.0))
    scheduler.subscribe("ann", ["a"], 0.0)
    scheduler.complete(take(scheduler, 0.0), FakeAnswer({"a": DONE}, url=None), 0.0)
    for now in range(5, 11):
        assert not scheduler.complete(
            take(scheduler, now), FakeAnswer({}), now, sign=Sign.NOT_FOUND
        )
    (change,) = scheduler.complete(take(scheduler, 12.0), FakeAnswer({}), 12.0, sign=Sign.NOT_FOUND)
    assert change.generation
    assert change.generation.state is DONE


def test_a_link_has_one_grace_period_whatever_responses_are_in_between() -> None:
    scheduler = make_scheduler(grace=Grace(link=7.0))
    scheduler.subscribe("ann", ["a"], 0.0)
    for now, state in ((0.0, DONE), (5.0, OPEN)):
        changes = scheduler.complete(take(scheduler, now), FakeAnswer({"a": state}, url=None), now)
        assert not any(change.ended for change in changes)
    (change,) = scheduler.complete(take(scheduler, 10.0), FakeAnswer({"a": DONE}, url=None), 10.0)
    assert change.ended


def test_ids_that_were_added_and_removed_leave_nothing_behind() -> None:
    before = items_in_memory()
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    batch = take(scheduler, 0.0)
    for number in range(2000):
        scheduler.subscribe("bob", [f"id {number}"], 0.1)
        scheduler.unsubscribe("bob", [f"id {number}"])
    scheduler.complete(batch, answer_of(batch, OPEN), 0.2)
    for number in range(2000):
        scheduler.subscribe("bob", [f"id {number}"], 0.3)
        batch = take(scheduler, 0.3)
        scheduler.complete(batch, answer_of(batch, OPEN), 0.3)
        scheduler.unsubscribe("bob", [f"id {number}"])
    assert len(scheduler) == 1
    assert items_in_memory() - before < 300


def test_the_transitions_lead_from_untracked_to_every_status_and_back() -> None:
    reached, edge = {Status.UNTRACKED}, {Status.UNTRACKED}
    while edge := {to for status in edge for to in TRANSITIONS[status].values()} - reached:
        reached |= edge
    assert reached == set(Status)
    for status in set(Status) - {Status.UNTRACKED}:
        leaves = TRANSITIONS[status].keys() & {Transition.UNSUBSCRIBE, Transition.FINISH}
        assert leaves, f"an id can leave from {status}"


def test_a_transition_that_is_not_in_the_table_is_an_error() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    batch = take(scheduler, 0.0)
    scheduler.complete(batch, answer_of(batch, OPEN), 0.0)
    with pytest.raises(KeyError):
        scheduler.complete(batch, answer_of(batch, OPEN), 0.0)


def test_the_oldest_open_id_is_known() -> None:
    scheduler = make_scheduler()
    assert scheduler.oldest_watched_since() is None
    scheduler.subscribe("ann", ["a", "b"], 3.0)
    scheduler.subscribe("bob", ["b"], 4.0)
    assert scheduler.oldest_watched_since() == 3.0
    assert repr(scheduler) == "<Scheduler: 2 open, 0 batches in flight, 100 ids a batch>"
    assert repr(take(scheduler, 3.0)) == "<Batch of 2 ids, 2 watched>"


def test_ids_alike_are_those_that_are_open() -> None:
    scheduler = make_scheduler()
    assert not scheduler.ids_like("a")
    scheduler.subscribe("ann", ["A", "a", "b"], 0.0)
    assert set(scheduler.ids_like("a")) == {"a", "A"}
    scheduler.unsubscribe("ann", ["A"])
    assert list(scheduler.ids_like("A")) == ["a"]
    batch = take(scheduler, 0.0)
    scheduler.complete(batch, answer_of(batch, DONE), 0.1)
    assert not scheduler.ids_like("A")
    assert not scheduler.ids_like("b")
    scheduler.subscribe("ann", ["B"], 1.0)
    assert list(scheduler.ids_like("b")) == ["B"]


def test_ids_that_hang_keep_the_time_of_their_last_poll() -> None:
    """Ids that were polled at different times, or never, share a batch that times out."""
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["old"], 0.0)
    batch = take(scheduler, 0.0)
    scheduler.complete(batch, answer_of(batch, OPEN), 0.1)
    scheduler.subscribe("ann", ["new"], 4.9)
    batch = take(scheduler, 5.0)
    assert set(batch.ids) == {"old", "new"}
    scheduler.back_off_hanging(batch, 10.0)
    lags: dict[str, float | None] = {}
    while scheduler:
        batch = take(scheduler, 10.0)
        for change in scheduler.complete(batch, answer_of(batch, DONE), 10.2):
            lags[change.task_id] = change.max_lag
    assert lags == {"old": 10.2, "new": None}


def test_ids_that_are_added_later_do_not_shorten_the_first_delay_again() -> None:
    scheduler = make_scheduler(phase=0.6)
    scheduler.subscribe("ann", ["a"], 10.0)
    batch = take(scheduler, 10.0)
    scheduler.subscribe("bob", ["b"], 11.0)
    scheduler.complete(batch, answer_of(batch, OPEN), 11.1)
    batch = take(scheduler, 11.1)
    scheduler.complete(batch, answer_of(batch, OPEN), 11.2)
    assert scheduler.next_due() == 13.0, "0.6 of the interval after the first id was added"


def test_a_second_watcher_receives_the_last_row_or_the_state_if_that_was_forgotten() -> None:
    scheduler = make_scheduler()
    assert scheduler.subscribe("ann", ["a", "b"], 0.0) == {}
    assert scheduler.subscribe("bob", ["a"], 0.0) == {}, "nothing is known yet"
    batch = take(scheduler, 0.0)
    rows = {change.task_id: change.row for change in scheduler.complete(
        batch, answer_of(batch, OPEN), 0.1
    )}  # fmt: skip
    known = scheduler.subscribe("cyd", ["a", "b", "new"], 1.0)
    assert known.keys() == {"a", "b"}
    assert all(known[task_id] is rows[task_id] for task_id in known)
    scheduler.forget_row("a")
    scheduler.forget_row("not open")
    row = scheduler.subscribe("dan", ["a"], 1.0)["a"]
    assert row is not rows["a"]
    assert row.generation().state is OPEN


def test_watching_open_ids_for_a_short_time_does_not_send_new_ids_at_once() -> None:
    scheduler: Scheduler[str] = Scheduler(Learned(5.0), 100, Grace(), phase=inf)
    scheduler.subscribe("ann", ["a"], 0.0)
    batch = take(scheduler, 0.0)
    scheduler.complete(batch, answer_of(batch, OPEN), 0.1)
    scheduler.subscribe("bob", ["a"], 0.2, until=0.5)
    scheduler.subscribe("ann", ["new"], 0.3)
    assert scheduler.next_due() == 2.5


def test_an_id_that_left_during_its_request_is_not_reported() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a", "b", "c"], 0.0)
    batch = take(scheduler, 0.0)
    scheduler.unsubscribe("ann", ["a"])
    changes = scheduler.complete(batch, answer_of(batch, DONE), 0.1)
    assert [change.task_id for change in changes] == ["b", "c"]
    assert len(scheduler) == 0


def test_a_scheduler_that_is_cleared_knows_no_id() -> None:
    before = items_in_memory()
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a", "b"], 0.0)
    assert list(scheduler.ids_like("A")) == ["a"]
    batch = take(scheduler, 0.0)
    scheduler.complete(batch, answer_of(batch, OPEN), 0.1)
    scheduler.clear()
    assert not scheduler.ids_like("A")
    assert scheduler.status_of("a") is Status.UNTRACKED
    assert scheduler.oldest_watched_since() is None
    assert not batch.items[0].watchers
    del scheduler, batch
    assert items_in_memory() == before


def test_open_ids_are_sorted_by_their_lower_case_once() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    assert scheduler.ids_like("A") is scheduler.ids_like("A")


# what is learned of the relay


def play(
    rows_of_batch: Callable[[int, list[str]], Collection[str]], unknown_to_get: str = ""
) -> list[tuple[int, int]]:
    """Poll twelve running tasks for two minutes, or until the batch size is changed.

    A batch is answered by the rows that a function of its number and its sorted ids returns. Return
    for each request the number of its ids, and how many a batch may have after it.
    """
    scheduler = make_scheduler(grace=Grace(missing=1e6))
    ids = [f"id {number:02}" for number in range(12)]
    scheduler.subscribe("ann", [*ids, *filter(None, [unknown_to_get])], 0.0)
    requests: list[tuple[int, int]] = []
    now, batches = 0.0, 0
    while (now := max(now, scheduler.next_due())) < 120.0:
        batch = take(scheduler, now)
        if len(batch.ids) > 1:
            rows = rows_of_batch(batches, sorted(batch.ids))
            batches += 1
        else:
            rows = set(batch.ids) - {unknown_to_get}
        scheduler.complete(batch, FakeAnswer(dict.fromkeys(rows, OPEN)), now)
        requests.append((len(batch.ids), scheduler.capabilities.max_ids(now)))
        if requests[-1][1] != 100:
            break
    return requests


def test_batches_without_running_tasks_are_given_up_once_get_knows_ten_of_them() -> None:
    requests = play(lambda _, ids: ())
    assert [count for count, _ in requests if count > 1] == [12, 12, 12]
    assert requests[-1] == (1, 1), "a GET proves it"


def test_batches_are_not_given_up_where_get_knows_no_more() -> None:
    requests = play(lambda _, ids: (), unknown_to_get="gone")
    assert {limit for _, limit in requests} == {100}


def test_a_limit_on_rows_is_learned_from_responses_that_have_as_many() -> None:
    requests = play(lambda _, ids: ids[:5])
    assert [count for count, _ in requests] == [12, 12, 1, 1, 1]
    assert requests[-1] == (1, 5), "the third proof"


def test_a_limit_on_rows_is_learned_when_get_knows_another_id_that_is_left_out() -> None:
    requests = play(lambda number, ids: ids[:5] if number != 1 else ids[:4])
    assert sum(count == 1 for count, _ in requests) > 3, "of responses with 5 and 4 rows nothing"
    assert requests[-1] == (1, 5)


def test_a_batch_of_two_ids_teaches_as_well() -> None:
    scheduler = make_scheduler(max_batch=4)
    scheduler.subscribe("ann", "abcd", 0.0)
    scheduler.bisect(take(scheduler, 0.0), size_evidence=2)
    for _ in range(2):
        batch = take(scheduler, 0.0)
        scheduler.complete(batch, answer_of(batch, OPEN), 0.0)
    assert scheduler.capabilities.max_ids(0.0) == 2


@pytest.mark.parametrize(("round_trip", "requests"), [(0.1, 64), (0.8, 61)])
def test_the_budget_of_learned_is_what_every_sends_with_the_same_round_trips(
    round_trip: float, requests: int
) -> None:
    """An id that is added while a request is in flight does not cause one of its own."""
    scheduler: Scheduler[str] = Scheduler(Learned(5.0), 100, Grace(), phase=inf)
    scheduler.subscribe("ann", ["a"], 0.0)
    now = 0.0
    while now < 295.0:
        batch = take(scheduler, now)
        scheduler.complete(batch, answer_of(batch, OPEN), now + round_trip)
        now = scheduler.next_due()
    now -= 2.4
    for number, delay in enumerate((0.0, 0.3, 0.5, 0.7)):
        scheduler.subscribe("ann", [f"new {number}"], now + delay)
    take(scheduler, now + 0.7)
    assert f"{requests} by Every" in repr(scheduler.timing)
