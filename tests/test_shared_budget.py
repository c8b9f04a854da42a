"""One rate limit for several sessions: the timetable, the slots, and sessions that share them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from math import inf

import msgspec
import pytest

from luma_async import Every, Limits, LumaSession, WaitTimeout
from luma_async.scheduling.shared_budget import (
    HORIZON,
    Later,
    Member,
    Reservation,
    Timetable,
    Wish,
    plan,
    quiet_until,
    share,
    with_quiet,
)
from luma_async.scheduling.slots import MAX_LATENESS, Slots
from luma_async.scheduling.throttle import MAX_RETRY_AFTER, Throttle
from luma_async.testing import FakeRelay, Reply

SPACING = 0.105  # of ten requests per second


def wish(name: str = "a", *, count: int = 1, held: int = 0, own_next: float = 0.0) -> Wish:
    return Wish(name, held, SPACING, count, own_next)


def reserved(timetable: Timetable | None, wanted: Wish, now: float) -> Reservation:
    planned = plan(timetable, wanted, now)
    assert isinstance(planned, Reservation)
    return planned


def later(timetable: Timetable, wanted: Wish, now: float) -> float:
    planned = plan(timetable, wanted, now)
    assert isinstance(planned, Later)
    return planned.at


def test_without_a_record_no_slot_is_reserved_until_all_earlier_ones_have_passed() -> None:
    barrier = reserved(None, wish(), 100.0)
    assert barrier.slots == ()
    assert barrier.timetable.last_slot == 100.0 + HORIZON
    assert isinstance(plan(barrier.timetable, wish(), 100.0), Later)
    first = reserved(barrier.timetable, wish(), 100.2)
    assert first.slots == pytest.approx((100.0 + HORIZON + SPACING,))


def test_slots_are_a_spacing_after_the_last_one_and_not_in_the_past() -> None:
    assert reserved(Timetable(last_slot=100.0), wish(), 100.01).slots == (100.0 + SPACING,)
    assert reserved(Timetable(last_slot=90.0), wish(), 100.01).slots == (100.01,)


def test_a_session_reserves_several_slots_but_none_beyond_the_horizon() -> None:
    slots = reserved(Timetable(last_slot=90.0), wish(count=100), 100.0).slots
    assert len(slots) == 1 + int(HORIZON / SPACING)
    assert slots[-1] <= 100.0 + HORIZON


def test_without_a_free_slot_a_session_plans_again_when_the_next_one_is_within_the_horizon() -> (
    None
):
    full = Timetable(last_slot=100.0 + HORIZON)
    assert later(full, wish(), 100.0) == pytest.approx(100.0 + SPACING)
    assert reserved(full, wish(), 100.0 + SPACING).slots


def test_a_session_that_had_its_share_waits_while_others_have_slots_ahead() -> None:
    timetable = Timetable(last_slot=100.1)
    first = 100.1 + SPACING
    assert reserved(timetable, wish(own_next=first + 0.4 * SPACING), 100.0).slots
    waits_until = later(timetable, wish(own_next=first + 0.6 * SPACING), 100.0)
    assert waits_until == pytest.approx(100.0 + 0.6 * SPACING)
    assert reserved(Timetable(last_slot=99.0), wish(own_next=200.0), 100.0).slots


def test_the_lowest_rate_counts_while_its_session_is_there() -> None:
    slow = Wish("slow", 0, 0.5)
    timetable = reserved(Timetable(last_slot=100.0), slow, 100.1).timetable
    (slot,) = reserved(timetable, wish(), 100.6).slots
    assert slot == pytest.approx(timetable.last_slot + 0.5)
    later = Timetable(last_slot=200.0, spacing=0.5, spacing_until=110.0)
    assert reserved(later, wish(), 200.05).slots == pytest.approx((200.0 + SPACING,))


def test_a_clock_that_was_set_back_stops_the_sessions_for_the_horizon_only() -> None:
    barrier = reserved(Timetable(last_slot=5000.0), wish(), 100.0)
    assert barrier.timetable.last_slot == 100.0 + HORIZON


def test_shares_are_by_the_ids_that_each_session_holds() -> None:
    members = {"a": Member(299, 110.0), "b": Member(99, 110.0), "gone": Member(9999, 90.0)}
    timetable = Timetable(members=members)
    assert share(timetable, wish("a", held=299), 100.0) == 0.75
    assert share(timetable, wish("b", held=99), 100.0) == 0.25


EIGHTH = 0.125  # seconds: exact, like the sums of it


def exact(*, count: int = 1, own_next: float = 0.0, needs_barrier: bool = False) -> Wish:
    return Wish("a", 2, EIGHTH, count, own_next, needs_barrier)


@pytest.mark.parametrize(
    ("last_slot", "wanted", "slots", "own_next"),
    [
        (90.0, exact(), (100.0,), 100.125),
        (100.0, exact(), (100.125,), 100.25),
        (99.9375, exact(), (100.0625,), 100.1875),
        (90.0, exact(count=3), (100.0, 100.125, 100.25), 100.375),
        (90.0, exact(own_next=200.0), (100.0,), 200.125),
        (100.0, exact(own_next=200.0), (100.125,), 200.125),
        (100.0625, exact(own_next=100.25), (100.1875,), 100.375),
        (100.875, exact(count=9), (101.0,), 101.125),
        (100.75, exact(count=9), (100.875, 101.0), 101.125),
    ],
)
def test_a_session_alone_has_the_slots_within_a_second_at_its_spacing(
    last_slot: float, wanted: Wish, slots: tuple[float, ...], own_next: float
) -> None:
    timetable = Timetable(slots[-1], EIGHTH, 110.0, 0.0, {"a": Member(2, 110.0)})
    assert reserved(Timetable(last_slot), wanted, 100.0) == Reservation(timetable, slots, own_next)


@pytest.mark.parametrize(
    ("last_slot", "own_next", "at"),
    [(101.0, 0.0, 100.125), (101.5, 0.0, 100.625), (100.0625, 100.3125, 100.0625),
     (100.5, 100.75, 100.125), (100.5, 102.0, 100.5)],
)  # fmt: skip
def test_a_session_that_has_no_slot_knows_when_to_plan_again(
    last_slot: float, own_next: float, at: float
) -> None:
    """When a slot is within a second, when its share is reached, or without contention."""
    assert later(Timetable(last_slot), exact(own_next=own_next), 100.0) == at


@pytest.mark.parametrize(
    ("last_slot", "needs_barrier", "barrier"),
    [(None, False, 101.0), (90.0, True, 101.0), (101.25, True, 101.25), (101.5, True, 101.5),
     (101.625, True, 101.0), (101.625, False, 101.0), (None, True, 101.0)],
)  # fmt: skip
def test_a_record_that_is_missing_or_in_doubt_stops_all_sessions_for_a_second(
    last_slot: float | None, needs_barrier: bool, barrier: float
) -> None:
    """A record of more than half a second beyond that is of a clock that was set back."""
    record = None if last_slot is None else Timetable(last_slot)
    wanted = exact(own_next=7.0, needs_barrier=needs_barrier)
    timetable = Timetable(barrier, EIGHTH, 110.0, 0.0, {"a": Member(2, 110.0)})
    assert reserved(record, wanted, 100.0) == Reservation(timetable, (), 7.0)


@pytest.mark.parametrize(
    ("until", "slot", "spacing", "spacing_until", "own_next"),
    [(100.0, 100.125, EIGHTH, 110.0, 100.25), (100.5, 100.5, 0.5, 100.5, 103.5)],
)
def test_other_sessions_count_until_their_time_is_over(
    until: float, slot: float, spacing: float, spacing_until: float, own_next: float
) -> None:
    """Their ids reduce the share, and their lower rate is that of all."""
    other = Member(5 if until == 100.0 else 14, until)
    record = Timetable(100.0, 0.5, until, 0.0, {"a": Member(9, 100.0), "b": other})
    members = {"a": Member(2, 110.0)} | ({"b": other} if until > 100.0 else {})
    assert reserved(record, exact(), 100.0) == Reservation(
        Timetable(slot, spacing, spacing_until, 0.0, members), (slot,), own_next
    )


@pytest.mark.parametrize(("others", "is_known", "is_counted"), [
    (998, False, True), (999, False, True), (1000, False, False), (999, True, True),
])  # fmt: skip
def test_of_a_record_of_a_thousand_sessions_another_one_has_slots_but_is_not_counted(
    others: int, is_known: bool, is_counted: bool
) -> None:
    members = {str(number): Member(1, 105.0) for number in range(others)}
    known = members | ({"a": Member(1, 101.0)} if is_known else {})
    found = reserved(Timetable(90.0, members=known), exact(), 100.0)
    counted = {"a": Member(2, 110.0)} if is_counted else {}
    assert found.slots == (100.0,)
    assert found.timetable.members == members | counted
    msgspec.json.decode(msgspec.json.encode(found.timetable), type=Timetable)


def test_an_empty_record_restricts_no_session() -> None:
    record = msgspec.json.decode(b"{}", type=Timetable)
    assert record == Timetable(0.0, 0.0, 0.0, 0.0, {})
    assert reserved(record, wish(), 0.5).slots == (0.5,)


def test_by_default_a_session_wants_one_slot() -> None:
    assert Wish("a", 3, SPACING) == Wish("a", 3, SPACING, 1, 0.0, False)
    found = reserved(Timetable(90.0), Wish("a", 3, SPACING), 100.0)
    assert len(found.slots) == 1
    assert Reservation(found.timetable) == Reservation(found.timetable, (), 0.0)


def test_a_quiet_time_is_only_extended() -> None:
    assert with_quiet(with_quiet(None, 200.0, 100.0), 150.0, 100.0).quiet_until == 200.0


def test_a_quiet_time_of_more_than_a_day_in_a_record_stops_no_session() -> None:
    """No session shares one: it would stop all of them for good."""
    day, now = MAX_RETRY_AFTER + 3600.0, 1e9
    longest = Timetable(last_slot=now, quiet_until=now + day)
    assert quiet_until(longest, now) == now + day
    wrong = Timetable(last_slot=now, quiet_until=now + day + 0.5)
    assert quiet_until(wrong, now) == 0.0
    assert with_quiet(wrong, now + 9.0, now).quiet_until == now + 9.0
    assert reserved(longest, wish(), now).timetable.quiet_until == now + day
    assert reserved(wrong, wish(), now).timetable.quiet_until == 0.0


def test_under_contention_each_session_gets_its_share() -> None:
    sessions = {"a": 600, "b": 300, "c": 100}
    timetable, now = Timetable(last_slot=99.0), 100.0
    own_next = dict.fromkeys(sessions, 0.0)
    slots: dict[str, list[float]] = {name: [] for name in sessions}
    while now < 140.0:
        for name, held in sessions.items():
            if slots[name] and slots[name][-1] > now:
                continue
            planned = plan(timetable, Wish(name, held, SPACING, 1, own_next[name]), now)
            if isinstance(planned, Reservation):
                timetable, own_next[name] = planned.timetable, planned.own_next
                slots[name] += planned.slots
        now += 0.005
    total = sum(map(len, slots.values()))
    assert total >= 0.9 * 40 / SPACING
    for name, held in sessions.items():
        assert len(slots[name]) / total == pytest.approx(held / 1000, abs=0.12)


# slots


def test_a_slot_is_used_at_its_time_or_a_little_later_or_never() -> None:
    slots = Slots()
    slots.add([10.0, 10.1])
    assert slots.next_at(9.5, 9.5, 1) == 10.0
    assert slots.next_at(9.5, 10.0 + MAX_LATENESS / 2, 1) == 10.0
    assert slots.next_at(9.5, 10.0 + 2 * MAX_LATENESS, 1) == 10.1
    slots.take(10.11)
    assert slots.next_at(10.2, 10.2, 1) == inf


def test_a_backlog_is_known_when_a_request_was_late_by_its_slot() -> None:
    slots = Slots()
    slots.add([10.0, 11.0])
    slots.next_at(9.99, 9.99, 1)
    slots.take(10.0)
    assert not slots.is_backlogged
    slots.next_at(10.2, 10.2, 1)
    slots.take(11.0)
    assert slots.is_backlogged


def test_a_slot_is_asked_for_when_a_request_is_wanted_and_when_one_was_sent() -> None:
    slots, asked = Slots(), list[float]()
    slots.on_wanted = lambda: asked.append(slots.wanted_at)
    slots.next_at(5.0, 1.0, 1)
    slots.next_at(5.0, 2.0, 1)
    slots.add([5.0])
    slots.take(5.0)
    assert asked == [5.0, inf]


def test_the_number_of_open_ids_is_that_of_the_last_request() -> None:
    slots = Slots()
    for held in (30, 7):
        slots.next_at(1.0, 1.0, held)
        assert slots.held == held


def test_a_quiet_time_is_shared_once_and_honoured_by_the_others() -> None:
    shared: list[float] = []
    slots = Slots()
    throttle = Throttle(Limits(), lambda: 0.0, slots)
    slots.on_quiet = shared.append
    throttle.honour_retry_after(20.0, 100.0)
    throttle.honour_retry_after(19.9, 100.2)
    slots.receive_quiet(120.1, 101.0)
    assert shared == [120.0]
    slots.receive_quiet(150.0, 101.0)
    assert shared == [120.0]
    assert throttle.next_slot_at() == 150.0


# sessions in one event loop, with a record in memory


class LocalBudget:
    """A shared budget without a server: each session plans on the newest record."""

    def __init__(self) -> None:
        self.record: Timetable | None = None
        self.members: list[Slots] = []

    @asynccontextmanager
    async def share(
        self, account: str, slots: Slots, spacing: float, /
    ) -> AsyncGenerator[None, None]:
        def share_quiet(until: float) -> None:
            for other in self.members:
                other.receive_quiet(until, asyncio.get_running_loop().time())

        slots.on_quiet = share_quiet
        self.members.append(slots)
        task = asyncio.create_task(self._run(account + str(len(self.members)), slots, spacing))
        yield
        task.cancel()

    async def _run(self, name: str, slots: Slots, spacing: float) -> None:
        loop, own_next = asyncio.get_running_loop(), 0.0
        while True:
            await asyncio.sleep(0.005)
            now = loop.time()
            slots.drop_missed(now)
            if slots.wanted_at > now or len(slots):
                continue
            planned = plan(self.record, Wish(name, slots.held, spacing, 1, own_next), now)
            if isinstance(planned, Reservation):
                self.record, own_next = planned.timetable, planned.own_next
                slots.add(planned.slots)


async def poll(relay: FakeRelay, budget: LocalBudget, ids: list[str], timeout: float) -> None:
    limits = Limits(max_rate=10.0, max_batch=10)
    async with LumaSession(
        relay.url, api_key=relay.api_key, limits=limits, pace=Every(1.0), budget=budget
    ) as luma:
        with pytest.raises(WaitTimeout):
            await luma.wait_until_done(ids, timeout=timeout)


@pytest.mark.virtual_time
async def test_sessions_together_send_no_more_than_the_total_and_use_it(relay: FakeRelay) -> None:
    budget = LocalBudget()
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        for seconds in (30.0, 20.0, 30.0):  # one leaves early
            ids = [relay.add(duration=1000) for _ in range(200)]
            group.create_task(poll(relay, budget, ids, seconds))
        begun = loop.time()
    times = [asked.at for asked in relay.log]
    assert relay.busiest_second() <= 10
    at_rest = sum(begun + 5 <= one < begun + 25 for one in times)
    assert at_rest >= 0.9 * 10 * 20


@pytest.mark.virtual_time
async def test_a_retry_after_that_one_session_receives_quiets_all(relay: FakeRelay) -> None:
    budget = LocalBudget()
    ids = [[relay.add(duration=1000) for _ in range(20)] for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        for one in ids:
            group.create_task(poll(relay, budget, one, 30.0))
        await asyncio.sleep(5.0)
        relay.reply(Reply(429, headers={"Retry-After": "12"}))
    (rejected,) = [asked.at for asked in relay.log if asked.status == 429]
    assert not [a for a in relay.log if rejected < a.at < rejected + 12.0]
    assert [a for a in relay.log if a.at > rejected + 12.0]


async def test_a_budget_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="budget is .*give a SharedBudget"):
        LumaSession("http://127.0.0.1", api_key="sk", budget=10)  # type: ignore[arg-type]


def test_a_budget_without_a_total_is_refused() -> None:
    with pytest.raises(ValueError, match="max_rate is inf; give the total"):
        LumaSession(
            "http://127.0.0.1", api_key="sk", limits=Limits(max_rate=inf), budget=LocalBudget()
        )


MEMBER = {"held": 1_000_000_000, "until": 1e11}


def decoded(record: object) -> Timetable:
    return msgspec.json.decode(msgspec.json.encode(record), type=Timetable)


@pytest.mark.parametrize("name", ["last_slot", "spacing", "spacing_until", "quiet_until"])
def test_a_record_has_times_and_a_spacing_within_limits(name: str) -> None:
    most = 1e6 if name == "spacing" else 1e11
    for value in (0.0, most):
        record = decoded({name: value})
        assert getattr(record, name) == value
        assert plan(record, wish(), 100.0)
    for value in (-1e-9, most + 0.5, 1e300):
        with pytest.raises(msgspec.ValidationError):
            decoded({name: value})


def test_a_record_has_a_thousand_sessions_at_most_with_a_billion_ids_each() -> None:
    assert plan(decoded({"members": {str(number): MEMBER for number in range(1000)}}), wish(), 1.0)
    for wrong in (
        {str(number): MEMBER for number in range(1001)},
        {"a": MEMBER | {"held": 1_000_000_001}},
        {"a": MEMBER | {"held": -1}},
        {"a": MEMBER | {"until": 1e11 + 0.5}},
        {"a": 1},
    ):
        with pytest.raises(msgspec.ValidationError):
            decoded({"members": wrong})


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"null", b'"{}"', b'{"members": []}', b'{"last_slot": "1"}']
)
def test_a_hostile_record_is_no_timetable(text: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(text, type=Timetable)
