"""The slots of one session: which may be used, which are missed, what is shared with others."""

from math import inf

import pytest

from luma_async.scheduling.slots import MAX_LATENESS, MIN_QUIET_GAIN, Slots


def with_slots(*reserved: float) -> Slots:
    slots = Slots()
    slots.add(reserved)
    return slots


def test_without_slots_no_request_is_sent() -> None:
    slots = Slots()
    assert (slots.wanted_at, slots.held, slots.is_backlogged, len(slots)) == (inf, 0, False, 0)
    assert slots.next_at(5.0, 5.0, 3) == inf
    assert slots.wanted_at == 5.0
    slots.take(5.0)
    assert slots.wanted_at == inf


@pytest.mark.parametrize(
    ("wanted_at", "now", "sent_at"),
    [
        (9.0, 9.0, 10.0),
        (10.0 + MAX_LATENESS, 9.0, 10.0 + MAX_LATENESS),
        (10.0 + 1.5 * MAX_LATENESS, 9.0, 11.0),
        (10.5, 9.0, 11.0),
        (9.0, 10.0 + MAX_LATENESS, 10.0),
        (9.0, 10.0 + 1.5 * MAX_LATENESS, 11.0),
        (11.5, 9.0, inf),
        (9.0, 11.5, inf),
    ],
)
def test_a_request_is_sent_in_the_first_slot_that_is_not_missed(
    wanted_at: float, now: float, sent_at: float
) -> None:
    assert with_slots(10.0, 11.0).next_at(wanted_at, now, 1) == sent_at


@pytest.mark.parametrize(
    ("now", "left"),
    [(10.0, 2), (10.0 + MAX_LATENESS, 2), (10.0 + 1.5 * MAX_LATENESS, 1), (11.5, 0), (99.0, 0)],
)
def test_a_request_uses_one_slot_and_drops_the_missed_ones(now: float, left: int) -> None:
    slots = with_slots(10.0, 11.0, 12.0)
    slots.take(now)
    assert len(slots) == left


@pytest.mark.parametrize("late", [0.0, MAX_LATENESS, 2.0 * MAX_LATENESS])
def test_a_backlog_is_a_request_that_was_later_than_a_slot_may_be(late: float) -> None:
    slots = with_slots(0.0)
    slots.next_at(0.0, 0.0, 1)
    slots.take(late)
    assert slots.is_backlogged is (late > MAX_LATENESS)


def test_a_slot_that_was_added_is_announced() -> None:
    slots, added = Slots(), list[int]()
    slots.on_reserved = lambda: added.append(len(slots))
    slots.add([1.0, 2.0])
    slots.add([3.0])
    assert added == [2, 3]


@pytest.mark.parametrize(("longer", "is_shared"), [(-1.0, False), (0.0, False), (0.1, True)])
def test_a_quiet_time_that_is_hardly_longer_is_not_shared_again(
    longer: float, is_shared: bool
) -> None:
    slots, shared, received = Slots(), list[float](), list[tuple[float, float]]()
    slots.on_quiet = shared.append
    slots.on_shared_quiet = lambda until, now: received.append((until, now))
    until = 10.0 + MIN_QUIET_GAIN + longer
    slots.share_quiet(10.0)
    slots.share_quiet(until)
    slots.share_quiet(until)
    assert shared == [10.0, until][: 1 + is_shared]
    slots = Slots()
    slots.on_shared_quiet = lambda until, now: received.append((until, now))
    slots.receive_quiet(10.0, 1.0)
    slots.receive_quiet(until, 2.0)
    slots.receive_quiet(until, 3.0)
    assert received == [(10.0, 1.0), (until, 2.0)][: 1 + is_shared]
    assert slots.quiet_until == received[-1][0]


@pytest.mark.parametrize(("now", "is_received"), [(4.9, True), (5.0, False), (6.0, False)])
def test_a_quiet_time_that_is_over_is_not_received(now: float, is_received: bool) -> None:
    slots, received = Slots(), list[float]()
    slots.on_shared_quiet = lambda until, _: received.append(until)
    slots.receive_quiet(5.0, now)
    assert received == [5.0] * is_received
