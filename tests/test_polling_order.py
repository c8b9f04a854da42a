"""Which ids the next request asks about, by example: turns, shares, limits."""

from itertools import product
from math import inf

import pytest

from luma_async.scheduling.batches import Batch
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.items import Group, Item, Status
from luma_async.scheduling.pace import MAX_LINGER, Every, Learned, Pace
from luma_async.scheduling.polling_order import MAX_EMPTY_GROUPS, PollingOrder
from luma_async.scheduling.request_timing import RequestTiming
from luma_async.scheduling.scheduler import Scheduler
from luma_async.structs import State
from tests.fake_answers import FakeAnswer
from tests.test_scheduler import take

ALONE, SHARED = ("alone",), ("a", "b")


def make_scheduler(
    max_batch: int = 100, pace: Pace | None = None, max_in_flight: int = 4
) -> Scheduler[str]:
    return Scheduler(pace or Every(5.0), max_batch, Grace(), phase=inf, max_in_flight=max_in_flight)


def answer(scheduler: Scheduler[str], batch: Batch[str], now: float) -> None:
    scheduler.complete(batch, FakeAnswer(dict.fromkeys(batch.ids, State.PROCESSING)), now)


def poll(scheduler: Scheduler[str], now: float) -> tuple[str, ...]:
    batch = take(scheduler, now)
    answer(scheduler, batch, now)
    return batch.ids


# which ids are sent first


@pytest.mark.parametrize(
    "dues", list(product((6.0, 7.0, 8.0, 11.0), (6.0, 7.0, 8.0), (6.0, 7.0, 8.0)))
)
def test_a_batch_has_the_newest_id_and_then_those_that_are_due_first(
    dues: tuple[float, float, float],
) -> None:
    retry_at, new_at, scheduled_at = dues
    scheduler = make_scheduler(max_batch=5)
    scheduler.subscribe("ann", ["retry"], 0.0)
    scheduler.back_off(take(scheduler, 0.0), retry_at)
    scheduler.subscribe("ann", ["scheduled"], scheduled_at - 5.0)
    assert poll(scheduler, scheduled_at - 5.0) == ("scheduled",)
    scheduler.subscribe("ann", ["new"], new_at)
    scheduler.subscribe("ann", ["newest"], 10.0)
    by_due = sorted([(retry_at, 0, "retry"), (new_at, 1, "new"), (scheduled_at, 2, "scheduled")])
    expected = [name for due, _, name in by_due if due <= 10.0]
    assert take(scheduler, 10.0).ids == ("newest", *expected)


@pytest.mark.parametrize(
    ("alone_at", "shared_at", "first"),
    [(3.0, 4.0, ALONE), (3.0, 3.0, ALONE), (3.0, 2.0, SHARED), (9.0, 4.0, SHARED)],
)
def test_a_quarantined_id_goes_before_the_others_if_it_is_due_first(
    alone_at: float, shared_at: float, first: tuple[str, ...]
) -> None:
    scheduler = with_quarantined(alone_at, shared_at)
    assert scheduler.status_of("alone") is Status.QUARANTINED
    assert scheduler.status_of("b") is Status.BACKING_OFF
    assert take(scheduler, 4.0).ids == first


def test_every_third_request_is_for_a_new_id_before_one_in_quarantine() -> None:
    scheduler = with_quarantined(alone_at=3.0, shared_at=9.0)
    scheduler.subscribe("ann", ["new"], 4.0)
    assert [take(scheduler, 4.0).ids for _ in range(2)] == [("new",), ALONE]


def with_quarantined(alone_at: float, shared_at: float) -> Scheduler[str]:
    """Return a scheduler with an id in quarantine and others, each due at a time.

    The next request is the third after that for the ids that came last.
    """
    scheduler = make_scheduler()
    scheduler.subscribe("ann", [*SHARED, *ALONE], 0.0)
    scheduler.bisect(take(scheduler, 0.0))
    scheduler.back_off(take(scheduler, 0.0), shared_at)
    scheduler.back_off(take(scheduler, 0.0), alone_at)
    return scheduler


def test_parts_of_a_rejected_batch_take_turns_with_others_as_long_as_there_are_both() -> None:
    scheduler = make_scheduler(max_batch=4)
    scheduler.subscribe("ann", "abcd", 0.0)
    scheduler.bisect(take(scheduler, 0.0), parts=4)
    scheduler.subscribe("bob", "efghijklmnop", 0.0)
    batches = [take(scheduler, 0.0).ids for _ in range(7)]
    assert batches[::2] == [("a",), ("b",), ("c",), ("d",)]
    assert [len(ids) for ids in batches[1::2]] == [4, 4, 4]


def test_a_request_that_must_be_sent_at_once_is_sent_in_parts_first_if_it_is_rejected() -> None:
    scheduler = make_scheduler(max_batch=4)
    scheduler.subscribe("ann", "abcd", 0.0)
    scheduler.probe()
    scheduler.bisect(take(scheduler, 0.0))
    scheduler.subscribe("bob", "wxyz", 0.0)
    assert take(scheduler, 0.0).ids == ("a", "b")


@pytest.mark.parametrize(
    ("max_in_flight", "hanging"), [(1, 1), (2, 1), (3, 2), (4, 3), (8, 7), (100, 20)]
)
def test_one_request_is_left_for_ids_that_are_answered(max_in_flight: int, hanging: int) -> None:
    """Ids that time out take all requests in flight but one; if there is one, they share it."""
    scheduler = make_scheduler(max_batch=1, max_in_flight=max_in_flight)
    for number in range(20):
        scheduler.subscribe("ann", [f"id {number}"], 0.0)
        scheduler.back_off_hanging(take(scheduler, 0.0), 1.0)
    in_flight: list[Batch[str]] = []
    while scheduler.next_due() <= 1.0:
        in_flight.append(take(scheduler, 1.0))
    assert len(in_flight) == hanging
    answer(scheduler, in_flight.pop(), 2.0)
    assert scheduler.next_due() <= 2.0 if hanging < 20 else scheduler.next_due() > 2.0


# when a request is sent


def test_a_probe_is_sent_at_once_whatever_is_due_next() -> None:
    scheduler = make_scheduler()
    scheduler.probe()
    assert scheduler.next_due() == inf, "there is no id"
    scheduler.subscribe("ann", ["a"], 0.0)
    poll(scheduler, 0.0)
    assert scheduler.next_due() == 5.0
    scheduler.probe()
    assert poll(scheduler, 1.0) == ("a",)
    assert scheduler.next_due() == 6.0, "one request is enough"


def test_a_probe_does_not_let_a_new_id_wait_for_a_request_in_flight() -> None:
    scheduler = make_scheduler()
    scheduler.subscribe("ann", ["a"], 0.0)
    take(scheduler, 0.0)
    scheduler.subscribe("ann", ["new"], 0.1)
    assert scheduler.next_due() == 0.1 + MAX_LINGER
    scheduler.probe()
    assert take(scheduler, 0.2).ids == ("new",)


def test_a_new_id_that_was_removed_does_not_fill_a_batch() -> None:
    scheduler = make_scheduler(max_batch=3)
    scheduler.subscribe("ann", ["a"], 0.0)
    take(scheduler, 0.0)
    scheduler.subscribe("ann", ["b", "c"], 0.1)
    scheduler.unsubscribe("ann", ["c"])
    scheduler.subscribe("ann", ["d"], 0.2)
    assert scheduler.next_due() == 0.1 + MAX_LINGER, "two do not"
    scheduler.subscribe("ann", ["e"], 0.3)
    assert set(take(scheduler, 0.3).ids) == {"b", "d", "e"}


def test_new_ids_linger_again_once_those_whose_watcher_leaves_soon_are_sent() -> None:
    scheduler = make_scheduler(pace=Learned(5.0))
    scheduler.subscribe("ann", ["a"], 0.0)
    poll(scheduler, 0.0)
    scheduler.subscribe("ann", ["b"], 0.1, until=2.5 + MAX_LINGER)
    assert scheduler.next_due() == 2.5, "half an interval after the last request"
    scheduler.subscribe("bob", ["c"], 0.2, until=2.4 + MAX_LINGER)
    assert set(poll(scheduler, 0.2)) == {"a", "b", "c"}
    scheduler.subscribe("ann", ["d"], 0.3)
    assert scheduler.next_due() == 2.7


@pytest.mark.parametrize(("until", "next_due"), [(inf, 2.6), (1.0, 0.1)])
def test_a_new_id_that_did_not_fit_lingers_unless_its_watcher_leaves_soon(
    until: float, next_due: float
) -> None:
    scheduler = make_scheduler(max_batch=2, pace=Learned(5.0))
    scheduler.subscribe("ann", ["a"], 0.0)
    poll(scheduler, 0.0)
    scheduler.subscribe("bob", ["b", "c", "d"], 0.1, until=until)
    assert len(poll(scheduler, 0.1)) == 2
    assert scheduler.next_due() == next_due


def test_new_ids_that_the_first_request_has_no_room_for_linger() -> None:
    scheduler = make_scheduler(max_batch=2, pace=Learned(5.0))
    scheduler.subscribe("ann", ["a", "b", "c"], 0.0)
    answer(scheduler, take(scheduler, 0.0), 0.0)
    assert scheduler.next_due() == 2.5


# what the pace receives, and what is kept


class RecordingTiming(RequestTiming):
    """A timing that keeps what it receives of requests."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        super().__init__(Every(5.0))
        self.sent: list[tuple[bool, bool]] = []

    def on_sent(self, now: float, *, open_ids: int, max_ids: int, whole: bool, again: bool) -> None:
        self.sent.append((whole, again))


def test_the_pace_receives_whether_a_request_leaves_ids_and_whether_it_is_a_retry() -> None:
    timing = RecordingTiming()
    order: PollingOrder[str] = PollingOrder(timing, 1, 4)
    for name in ("a", "b"):
        order.add_new(Group([Item[str](name, 0.0, 0.0)], 0.0), 0.0)
    first, second = order.take(0.0, 1, 2), order.take(0.0, 1, 2)
    assert timing.sent == [(False, False), (True, False)]
    order.on_returned(first)
    order.reschedule(first.groups[0], 5.0)
    for now in (1.0, 2.0):
        order.on_returned(second)
        order.back_off(second.groups[0], now)
        second = order.take(now, 1, 2)
    assert timing.sent[2:] == [(False, True), (False, True)], "the scheduled id is left"


def test_groups_of_ids_that_were_removed_are_dropped_once_they_outnumber_half_of_the_others() -> (
    None
):
    scheduler = make_scheduler(max_batch=2)
    pairs = [(f"first {number}", f"second {number}") for number in range(450)]
    for pair in pairs:
        scheduler.subscribe("ann", pair, 0.0)
        poll(scheduler, 0.0)
    scheduled = scheduler._order._scheduled  # pyright: ignore[reportPrivateUsage]
    scheduler.unsubscribe("ann", [first for first, _ in pairs[1:]])
    assert len(scheduled) == 450, "each has an id"
    dropped_after: list[int] = []
    for count, (_, second) in enumerate(pairs[1:400], 1):
        before = len(scheduled)
        scheduler.unsubscribe("ann", [second])
        if len(scheduled) < before:
            assert len(scheduled) == 450 - count
            dropped_after.append(count)
    first = MAX_EMPTY_GROUPS + 1
    assert dropped_after == [first, first + MAX_EMPTY_GROUPS + (450 - first) // 2 + 1]
