"""The queues of groups of ids: their order, parts of batches, and what is dropped."""

from math import inf

import pytest

from luma_async.scheduling.batches import Batch
from luma_async.scheduling.capabilities import Capabilities
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.items import Group, Item, Status
from luma_async.scheduling.pace import Every
from luma_async.scheduling.queues import MAX_PART, DueQueue, NewQueue
from luma_async.scheduling.scheduler import Scheduler
from tests.test_polling_order import answer
from tests.test_scheduler import take


def make_scheduler(max_batch: int = 100) -> Scheduler[str]:
    return Scheduler(Every(5.0), max_batch, Grace(), phase=inf, max_in_flight=1000)


def take_all(scheduler: Scheduler[str], now: float) -> list[Batch[str]]:
    batches: list[Batch[str]] = []
    while scheduler.next_due() <= now:
        batches.append(take(scheduler, now))
    return batches


def group_of(*ids: str) -> Group[str]:
    return Group([Item[str](task_id, 0.0, 0.0) for task_id in ids], 0.0)


def remove_all(group: Group[str]) -> None:
    for item in group.items:
        group.remove(item)


# groups whose ids were all removed


def test_the_groups_that_are_left_are_due_in_their_order() -> None:
    queue: DueQueue[str] = DueQueue()
    groups = {due: group_of(str(due)) for due in (1, 10, 2, 11, 12, 3, 4)}
    for due, group in groups.items():
        queue.push(group, due)
    for due in (1, 2):
        remove_all(groups[due])
    assert len(queue) == 7
    queue.drop_empty()
    assert len(queue) == 5
    popped: list[float] = []
    while queue:
        assert queue.due_at() == queue.pop(100).due_at
        popped.append(queue.due_at())
    assert popped == [4, 10, 11, 12, inf]


def test_new_groups_that_are_left_keep_their_order() -> None:
    queue: NewQueue[str] = NewQueue()
    groups = [group_of(name) for name in "abcd"]
    for group in groups:
        queue.push(group, 0.0)
    for group in (groups[0], groups[2]):
        remove_all(group)
    queue.drop_empty()
    assert len(queue) == 2
    assert [queue.pop(100) for _ in range(2)] == [groups[1], groups[3]]


def test_a_group_without_ids_is_not_taken_for_the_newest_ids() -> None:
    queue: NewQueue[str] = NewQueue()
    groups = [group_of(name) for name in "abc"]
    for group in groups:
        queue.push(group, 0.0)
    remove_all(groups[2])
    assert list(queue.pop_newest(1)) == [groups[1]]
    assert len(queue) == 1


# ids that time out


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (25, [[25], [10, 10, 5], [1] * 25, [1] * 25]),
        (MAX_PART + 1, [[11], [10, 1], [1] * 11]),
        (MAX_PART, [[10], [1] * 10]),
        (2, [[2], [1, 1]]),
    ],
)
def test_a_batch_that_times_out_again_is_sent_in_parts_of_ten_then_one_by_one(
    count: int, sizes: list[list[int]]
) -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", map(str, range(count)), 0.0)
    batches = [take(scheduler, 0.0)]
    for now, expected in enumerate(sizes, 1):
        for batch in batches:
            scheduler.back_off_hanging(batch, now)
        batches = take_all(scheduler, now)
        assert sorted((len(batch.ids) for batch in batches), reverse=True) == expected
        assert sorted(int(one) for batch in batches for one in batch.ids) == list(range(count))


def test_an_id_that_timed_out_alone_stays_alone_for_twice_as_many_responses_each_time() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    for now in (0.0, 1.0):
        scheduler.back_off_hanging(take(scheduler, now), now + 1.0)
    for now, status in ((2.0, Status.QUARANTINED), (7.0, Status.SCHEDULED)):
        answer(scheduler, take(scheduler, now), now)
        assert scheduler.status_of("a") is status


def test_ids_that_timed_out_together_are_not_quarantined() -> None:
    scheduler = make_scheduler()
    ids = [str(number) for number in range(20)]
    scheduler.subscribe("ann", ids, 0.0)
    scheduler.back_off_hanging(take(scheduler, 0.0), 1.0)
    scheduler.back_off_hanging(take(scheduler, 1.0), 2.0)
    for batch in take_all(scheduler, 2.0):
        answer(scheduler, batch, 2.0)
    assert {scheduler.status_of(one) for one in ids} == {Status.SCHEDULED}


# parts of rejected batches


def test_the_batch_size_is_learned_once_all_parts_passed_however_many_there_are() -> None:
    scheduler = make_scheduler(max_batch=8)
    scheduler.subscribe("ann", "abcdefgh", 0.0)
    scheduler.bisect(take(scheduler, 0.0), parts=4, size_evidence=2)
    sizes: list[int] = []
    for _ in range(4):
        answer(scheduler, take(scheduler, 0.0), 0.0)
        sizes.append(scheduler.capabilities.max_ids(0.0))
    assert sizes == [8, 8, 8, 4]


def test_a_part_that_is_sent_in_several_requests_has_passed_once_all_of_them_have() -> None:
    scheduler = make_scheduler(max_batch=8)
    scheduler.subscribe("ann", "abcdefgh", 0.0)
    scheduler.bisect(take(scheduler, 0.0), size_evidence=2)
    scheduler.capabilities = Capabilities(8).reduced_to(2, 0.0)
    learned_at: list[float] = []
    for _ in range(4):
        answer(scheduler, take(scheduler, 100.0), 100.0)
        learned_at.append(scheduler.capabilities.shrunk_at)
    assert learned_at == [0.0, 0.0, 0.0, 100.0]


@pytest.mark.parametrize(
    ("options", "order"), [({}, ["a", "b", "cd"]), ({"others_first": True}, ["cd", "a", "b"])]
)
def test_a_part_that_is_rejected_is_sent_in_parts_before_the_others_or_after_them(
    options: dict[str, bool], order: list[str]
) -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", "abcd", 0.0)
    scheduler.bisect(take(scheduler, 0.0))
    scheduler.bisect(take(scheduler, 0.0), **options)
    assert ["".join(batch.ids) for batch in take_all(scheduler, 0.0)] == order


def test_a_part_of_which_some_ids_have_left_is_sent_with_the_others() -> None:
    scheduler = make_scheduler()
    for task_id in "abcd":
        scheduler.subscribe("ann", task_id, 0.0)
    scheduler.bisect(take(scheduler, 0.0))
    (first, second) = (set("dc"), set("ba"))  # those that came last are first
    scheduler.unsubscribe("ann", ["d", "a"])
    sent = [set(batch.ids) for batch in take_all(scheduler, 0.0)]
    assert sent == [first - {"d"}, second - {"a"}]


def test_a_rejected_batch_without_watchers_is_not_sent_again() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", "ab", 0.0)
    batch = take(scheduler, 0.0)
    scheduler.unsubscribe("ann", "ab")
    scheduler.bisect(batch)
    assert scheduler.next_due() == inf
    scheduler.subscribe("ann", "c", 1.0)
    assert take(scheduler, 1.0).ids == ("c",)
