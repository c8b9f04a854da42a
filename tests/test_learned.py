"""The pace that learns: its lag, its promises, its snapshots."""

import asyncio
import json
from collections import deque
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from math import inf, nan
from typing import Any

import msgspec
import pytest

from luma_async import (
    Every,
    GenerationsMissing,
    Learned,
    Limits,
    LumaSession,
    Pace,
    State,
    Stats,
)
from luma_async.protocol.decoding import decode_response
from luma_async.scheduling.batches import Batch
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.hazard import EDGES, DurationCounts
from luma_async.scheduling.scheduler import Scheduler
from luma_async.scheduling.throttle import Throttle
from luma_async.testing import FakeRelay
from tests.bench.pace import Case, play
from tests.fake_answers import FakeAnswer

OPEN, FAILED = State.PROCESSING, State.FAILED
ENDS = [(50.0, 1.0, 4000.0), (60.0, 50.0, 2000.0), (75.0, 300.0, 3000.0), (90.0, 50.0, 500.0)]
YOUTH = [(age, 0.0, 40.0 * age) for age in EDGES if age < 50.0]
KNOWN = DurationCounts.of([*YOUTH, *ENDS])
MINUTE = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def case(durations: str, open_ids: int, *, arrivals: str = "poisson", ends: int = 600) -> Case:
    return Case(durations, open_ids, arrivals, seed=1, ends=ends, latency=0.1)


def take(scheduler: Scheduler[str], now: float) -> Batch[str]:
    batch = scheduler.take_batch(now)
    assert batch is not None
    return batch


def make_scheduler(pace: Learned, max_batch: int = 100) -> Scheduler[str]:
    return Scheduler(pace, max_batch, Grace(), spacing=0.105)


def test_all_ends_of_a_response_are_learned_and_those_of_a_first_response_are_not() -> None:
    scheduler = make_scheduler(Learned(5.0))
    scheduler.subscribe("a wait", [f"task-{number}" for number in range(6)], 0.0)
    states = dict.fromkeys([f"task-{number}" for number in range(6)], OPEN)
    for ended, now in ((1, 0.0), (3, 10.0), (6, 20.0)):
        states |= dict.fromkeys([f"task-{number}" for number in range(ended)], FAILED)
        batch = take(scheduler, max(now, scheduler.next_due()))
        scheduler.complete(batch, FakeAnswer(states), now + 0.1)
    pace = scheduler.timing.pace
    assert isinstance(pace, Learned)
    assert pace.seen.ends == pytest.approx(5.0)


class TestLag:
    @pytest.mark.parametrize(
        ("durations", "open_ids", "most"),
        [
            ("lognormal", 1, 0.85),
            ("lognormal", 24, 0.95),
            ("queue", 24, 0.95),
            ("two kinds", 24, 0.95),
            ("exponential", 24, 0.95),
            ("lognormal", 120, 0.70),
        ],
    )
    def test_lag_is_lower_at_the_same_number_of_requests(
        self, durations: str, open_ids: int, most: float
    ) -> None:
        some = case(durations, open_ids)
        every, learned = play(some, Every(5.0)), play(some, Learned(5.0))
        assert learned.mean < most * every.mean
        assert learned.late < every.late
        assert learned.requests == pytest.approx(every.requests, rel=0.05)

    @pytest.mark.thorough
    def test_where_there_is_nothing_to_learn_nothing_is_lost(self) -> None:
        some = case("exponential", 1, ends=1500)
        every, learned = play(some, Every(5.0)), play(some, Learned(5.0))
        assert learned.mean < 1.05 * every.mean
        assert learned.requests == pytest.approx(every.requests, rel=0.03)

    @pytest.mark.thorough
    def test_slow_answers_change_nothing_about_that(self) -> None:
        some = Case("lognormal", 60, "poisson", seed=1, ends=1000, latency=1.0)
        every, learned = play(some, Every(5.0)), play(some, Learned(5.0))
        assert learned.mean < 0.9 * every.mean
        assert learned.requests == pytest.approx(every.requests, rel=0.05)

    @pytest.mark.parametrize("arrivals", ["steady", "together"])
    def test_it_sends_no_more_requests_however_tasks_are_added(self, arrivals: str) -> None:
        some = case("lognormal", 120, arrivals=arrivals, ends=700)
        every, learned = play(some, Every(5.0)), play(some, Learned(5.0))
        assert learned.mean < every.mean
        assert learned.requests / learned.seconds < 1.05 * every.requests / every.seconds

    @pytest.mark.thorough
    def test_what_was_learned_wrongly_is_unlearned(self) -> None:
        wrong = DurationCounts.of([(8.0, 900.0, 3000.0), (9.0, 900.0, 500.0)])
        some = case("lognormal", 24, ends=2500)
        every, learned = play(some, Every(5.0)), play(some, Learned(5.0, wrong))
        assert learned.mean < 0.95 * every.mean
        assert learned.requests == pytest.approx(every.requests, rel=0.03)


class TestWhenItPolls:
    @pytest.mark.parametrize("age", [0.0, 1.0, 75.0, 1e5])
    def test_while_nothing_is_known_it_polls_at_the_interval(self, age: float) -> None:
        assert Learned(5.0).rest(age) == pytest.approx(5.0, rel=1e-3)

    def test_until_twenty_tasks_have_ended_each_id_is_polled_every_interval(
        self,
    ) -> None:
        some = case("lognormal", 1, arrivals="steady", ends=19)
        assert max(play(some, Learned(5.0)).lags) <= 5.2

    def test_it_polls_seldom_while_a_task_is_unlikely_to_end_and_often_when_it_is_likely(
        self,
    ) -> None:
        pace = Learned(5.0, KNOWN)
        assert pace.rest(0.0) == 20.0
        assert pace.rest(75.0) < 3.0

    def test_each_id_is_polled_within_four_intervals(self) -> None:
        scheduler = make_scheduler(Learned(5.0, KNOWN))
        ids = [f"id {number}" for number in range(30)]
        polled_at = dict.fromkeys(ids, 0.0)
        now = 0.0
        for number, task_id in enumerate(ids):
            scheduler.subscribe("ann", [task_id], 2.0 * number)
            polled_at[task_id] = 2.0 * number
        while now < 600.0:
            now = max(now, scheduler.next_due())
            batch = take(scheduler, now)
            for task_id in batch.ids:
                assert now - polled_at[task_id] <= 20.0
                polled_at[task_id] = now
            scheduler.complete(batch, FakeAnswer(dict.fromkeys(batch.ids, OPEN)), now + 0.1)

    def test_the_first_poll_is_at_once_if_no_request_was_sent_just_before(self) -> None:
        scheduler = make_scheduler(Learned(5.0, KNOWN))
        scheduler.subscribe("ann", ["a"], 0.0)
        assert scheduler.next_due() == 0.0
        scheduler.complete(take(scheduler, 0.0), FakeAnswer({"a": OPEN}), 0.1)
        scheduler.subscribe("bob", ["b"], 2.6)
        assert scheduler.next_due() == 2.6
        assert set(take(scheduler, 2.6).ids) == {"a", "b"}

    def test_the_first_poll_waits_for_others_if_a_request_was_sent_just_before(self) -> None:
        scheduler = make_scheduler(Learned(5.0, KNOWN))
        scheduler.subscribe("ann", ["a"], 100.0)
        scheduler.complete(take(scheduler, 100.0), FakeAnswer({"a": OPEN}), 100.1)
        scheduler.subscribe("bob", ["b"], 100.3)
        scheduler.subscribe("cyd", ["c"], 100.7)
        assert 100.7 < scheduler.next_due() <= 102.5
        assert set(take(scheduler, scheduler.next_due()).ids) == {"a", "b", "c"}

    def test_a_full_batch_does_not_wait_for_others(self) -> None:
        scheduler = make_scheduler(Learned(5.0, KNOWN), max_batch=3)
        scheduler.subscribe("ann", ["a"], 100.0)
        scheduler.complete(take(scheduler, 100.0), FakeAnswer({"a": OPEN}), 100.1)
        scheduler.subscribe("bob", ["b", "c", "d"], 101.0)
        assert set(take(scheduler, 101.0).ids) == {"b", "c", "d"}

    def test_an_id_with_an_early_deadline_does_not_wait_for_others(self) -> None:
        scheduler = make_scheduler(Learned(5.0, KNOWN))
        scheduler.subscribe("ann", ["a"], 100.0)
        scheduler.complete(take(scheduler, 100.0), FakeAnswer({"a": OPEN}), 100.1)
        scheduler.subscribe("bob", ["b"], 100.3)
        assert scheduler.next_due() > 102.0
        scheduler.subscribe("cyd", ["c"], 100.7, until=102.7)
        assert set(take(scheduler, 100.7).ids) == {"a", "b", "c"}

    def test_the_first_delay_of_a_busy_period_is_shortened(self) -> None:
        scheduler: Scheduler[str] = Scheduler(Learned(5.0), 100, Grace(), phase=0.5)
        scheduler.subscribe("ann", ["a"], 0.0)
        scheduler.complete(take(scheduler, 0.0), FakeAnswer({"a": OPEN}), 0.1)
        assert scheduler.next_due() == pytest.approx(2.5, rel=0.05)

    def test_an_id_is_due_by_itself_after_the_others_were_removed(self) -> None:
        scheduler = make_scheduler(Learned(5.0, KNOWN))
        scheduler.subscribe("ann", ["old"], 0.0)
        now = 0.0
        while now < 70.0:
            now = scheduler.next_due()
            scheduler.complete(take(scheduler, now), FakeAnswer({"old": OPEN}), now + 0.1)
        young = [f"id {number}" for number in range(60)]
        scheduler.subscribe("bob", young, now + 0.2)
        now = scheduler.next_due()
        scheduler.complete(
            take(scheduler, now), FakeAnswer(dict.fromkeys(["old", *young], OPEN)), now + 0.1
        )
        amid_others = scheduler.next_due()
        scheduler.unsubscribe("bob", young)
        assert now < scheduler.next_due() < now + 4.0 < amid_others

    @pytest.mark.virtual_time
    async def test_a_short_wait_receives_its_result(self, relay: FakeRelay) -> None:
        async with LumaSession(relay.url, api_key=relay.api_key, pace=Learned(5.0)) as luma:
            await luma.wait_until_done([relay.add(duration=6.0) for _ in range(25)])
            ended = relay.add()
            assert (await luma.wait_until_done(ended, timeout=1.0)).is_done

    @pytest.mark.virtual_time
    async def test_a_missing_id_is_reported_in_time_among_scheduled_ones(
        self, relay: FakeRelay
    ) -> None:
        pace = Learned(5.0, KNOWN)
        async with LumaSession(relay.url, api_key=relay.api_key, pace=pace) as luma:
            others = luma.as_completed([relay.add(duration=70.0) for _ in range(10)])
            first = asyncio.create_task(anext(others))
            await asyncio.sleep(1.0)
            begun = asyncio.get_running_loop().time()
            with pytest.raises(GenerationsMissing):
                await luma.wait_until_done("unknown")
            assert 30.0 <= asyncio.get_running_loop().time() - begun <= 41.0
            assert (await first).is_done
            await others.aclose()


class TestWhatItKnows:
    @pytest.mark.virtual_time
    async def test_a_session_learns_from_the_tasks_that_it_sees_end(self, relay: FakeRelay) -> None:
        async with LumaSession(relay.url, api_key=relay.api_key) as luma:
            assert luma.stats == Stats()
            await luma.wait_until_done([relay.add(duration=42.0) for _ in range(50)])
            learned = luma.stats.learned
        assert learned is not None
        assert learned.ends == pytest.approx(50.0)
        median = learned.quantile(0.5)
        assert median is not None
        assert median == pytest.approx(42.0, rel=0.15)
        assert "50 tasks, half by " in repr(learned)

    @pytest.mark.virtual_time
    async def test_a_pace_that_does_not_learn_has_no_learned_stats(self, relay: FakeRelay) -> None:
        async with LumaSession(relay.url, api_key=relay.api_key, pace=Every(5.0)) as luma:
            await luma.wait_until_done(relay.add(duration=42.0))
            assert luma.stats.learned is None

    @pytest.mark.virtual_time
    async def test_the_age_of_a_task_is_what_the_relay_says(self, relay: FakeRelay) -> None:
        task_id = relay.add(duration=200.0)
        await asyncio.sleep(150.0)
        async with LumaSession(relay.url, api_key=relay.api_key) as luma:
            await luma.wait_until_done(task_id)
            learned = luma.stats.learned
        assert learned is not None
        ages = [age for age, ends, _ in learned.seen.ages() if ends]
        assert min(ages) > 180.0

    @pytest.mark.parametrize(
        ("created_at", "date"),
        [
            (None, MINUTE),
            (MINUTE, None),
            (MINUTE + timedelta(hours=8), MINUTE),
            (datetime(9999, 12, 31, tzinfo=UTC), MINUTE),
            (MINUTE, datetime(1, 1, 1, tzinfo=UTC)),
        ],
    )
    def test_nonsense_clocks_leave_the_time_since_it_was_watched(
        self, created_at: datetime | None, date: datetime | None
    ) -> None:
        seen = seen_of_one(created_at, date)
        ages = [age for age, ends, _ in seen.ages() if ends]
        assert min(ages) == pytest.approx(5.0, abs=0.5)
        assert max(ages) == 9.0

    def test_a_task_that_the_relay_says_is_ages_old_teaches_nothing(self) -> None:
        seen = seen_of_one(datetime(2000, 1, 1, tzinfo=UTC), MINUTE)
        assert seen.ages() == []

    def test_what_is_known_can_be_saved_and_given_back(self) -> None:
        pace = Learned(2.5, KNOWN)
        assert Learned.restore(json.loads(json.dumps(pace.snapshot()))) == pace
        assert Learned.restore(Learned().snapshot()) == Learned()

    @pytest.mark.parametrize(
        "wrong",
        [
            None,
            "",
            {},
            {**Learned().snapshot(), "interval": 0},
            {**Learned().snapshot(), "interval": nan},
            {**Learned().snapshot(), "ages": [[1.0, 2.0]]},
            {**Learned().snapshot(), "ages": [[1.0, -2.0, 3.0]]},
            {**Learned().snapshot(), "ages": [[inf, 2.0, 3.0]]},
            {**Learned().snapshot(), "ages": [[1.0, nan, 3.0]]},
            {**Learned().snapshot(), "interval": 1e160},
            {**Learned().snapshot(), "interval": 1e-300},
            {**Learned().snapshot(), "ages": [[10.0, 0.0, 1e308]]},
            {**Learned().snapshot(), "ages": [[10.0, 1e12, 0.0]] * 2},
            {**Learned().snapshot(), "ages": [[1e308, 1.0, 1.0]]},
        ],
    )
    def test_an_invalid_snapshot_is_an_error_with_the_remedy(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match=r"; give what Learned\.snapshot returned$"):
            Learned.restore(wrong)

    @pytest.mark.parametrize(
        "ages",
        [
            [(10.0, 1e12, 0.0)],
            [(10.0, 0.0, 1e12)],
            [(10.0, 1e12, 1e-300), (20.0, 1e-300, 1e12)],
            [(edge, 1e12, 1e-12) for edge in EDGES[:-1]],
            [(edge, 0.0, 1e12) for edge in EDGES[:-1]],
        ],
    )
    def test_an_extreme_snapshot_leads_to_valid_delays(
        self, ages: list[tuple[float, float, float]]
    ) -> None:
        pace = Learned(5.0, DurationCounts.of(ages))
        assert "tasks, half by" in repr(pace) or "nothing" in repr(pace)
        scheduler = make_scheduler(pace)
        scheduler.subscribe("ann", [f"id {number}" for number in range(20)], 0.0)
        now = 0.0
        for _ in range(500):
            before, now = now, max(now, scheduler.next_due())
            assert now - before <= 20.0
            batch = take(scheduler, now)
            scheduler.complete(batch, FakeAnswer(dict.fromkeys(batch.ids, OPEN)), now + 0.1)
        assert now > 10.0

    def test_a_quantile_is_known_once_an_end_is(self) -> None:
        assert Learned().quantile(0.5) is None
        with pytest.raises(ValueError, match="give a number between 0 and 1"):
            Learned().quantile(1.0)


def seen_of_one(created_at: datetime | None, date: datetime | None) -> DurationCounts:
    """Return what is learned of a task that was open at 5 s and had ended at 10."""
    scheduler = make_scheduler(Learned(5.0))
    scheduler.subscribe("ann", ["a"], 0.0)
    for state in (OPEN, OPEN, FAILED):
        now = scheduler.next_due()
        row = {"id": "a", "state": state.value, "created_at": created_at}
        headers = {"Date": format_datetime(date)} if date else {}
        answer = decode_response(200, headers, msgspec.json.encode([row]))
        scheduler.complete(take(scheduler, now), answer, now + 0.1)
    pace = scheduler.timing.pace
    assert isinstance(pace, Learned)
    return pace.seen


class TestTrouble:
    """What the balance of requests must not cause: silence, bursts, ids that are not polled."""

    @pytest.mark.parametrize(("open_ids", "latency"), [(1, 6.0), (5, 8.0), (60, 3.0), (600, 3.0)])
    def test_slow_answers_leave_the_pace_as_it_was(self, open_ids: int, latency: float) -> None:
        slow = SlowRelay(Learned(0.5 if open_ids > 5 else 5.0), open_ids, latency)
        plain = SlowRelay(Every(0.5 if open_ids > 5 else 5.0), open_ids, latency)
        for polled in (slow, plain):
            polled.run(6_000.0 if open_ids <= 60 else 1_000.0)
        assert slow.requests <= 1.25 * plain.requests
        assert slow.requests >= 0.75 * plain.requests

    @pytest.mark.parametrize("open_ids", [1, 150])
    def test_a_long_cool_down_is_followed_by_neither_silence_nor_a_burst(
        self, open_ids: int
    ) -> None:
        polled = SlowRelay(Learned(5.0), open_ids, 0.1)
        polled.run(60.0)
        polled.cool_down(86_400.0)
        before = polled.requests
        polled.run(polled.now + 60.0)
        each_minute = 12 * -(-open_ids // 100)
        assert each_minute / 2 <= polled.requests - before <= 2.5 * each_minute

    def test_a_stream_of_missing_ids_does_not_delay_the_others(self) -> None:
        scheduler = make_scheduler(Learned(15.0))
        scheduler.subscribe("ann", ["open"], 0.0)
        now, comes, asked = 0.0, 0.0, 0
        while now < 20_000.0:
            if comes <= scheduler.next_due():
                now, comes = max(now, comes), comes + 10.0
                scheduler.subscribe("bob", [f"missing {now}"], now)
                continue
            now = max(now, scheduler.next_due())
            batch = take(scheduler, now)
            asked += "open" in batch.ids
            scheduler.complete(
                batch, FakeAnswer({"open": OPEN} if "open" in batch.ids else {}), now + 0.1
            )
        assert asked >= 20_000.0 / 20.0

    @pytest.mark.thorough
    def test_it_continues_to_learn(self) -> None:
        wrong = DurationCounts.of([(8.0, 4000.0, 12_000.0), (9.0, 90.0, 500.0)])
        some = case("lognormal", 24, ends=4000)
        every, learned = play(some, Every(5.0)), play(some, Learned(5.0, wrong))
        assert learned.mean < 0.95 * every.mean

    def test_a_task_that_flaps_is_counted_once(self) -> None:
        scheduler = make_scheduler(Learned(5.0))
        scheduler.subscribe("ann", ["a", "b"], 0.0)
        for state in (OPEN, *(State.COMPLETED, OPEN) * 20):
            now = scheduler.next_due()
            batch = take(scheduler, now)
            answer = FakeAnswer({"a": state, "b": OPEN}, url=None)
            scheduler.complete(batch, answer, now + 0.1)
        pace = scheduler.timing.pace
        assert isinstance(pace, Learned)
        assert pace.ends == pytest.approx(1.0)


class SlowRelay:
    """Open ids that never end, on a relay whose responses take some seconds."""

    def __init__(self, pace: Pace, open_ids: int, latency: float) -> None:
        self.scheduler: Scheduler[str] = Scheduler(pace, 100, Grace(), spacing=Limits().spacing)
        self.scheduler.subscribe("ann", [f"id {number}" for number in range(open_ids)], 0.0)
        self.throttle = Throttle(Limits(), lambda: 1.0)
        self.latency = latency
        self.in_flight: deque[tuple[float, Batch[str]]] = deque()
        self.requests = 0
        self.now = 0.0

    def run(self, until: float) -> None:
        while self.now < until:
            send_at = max(self.scheduler.next_due(), self.throttle.next_slot_at())
            returns_at = self.in_flight[0][0] if self.in_flight else inf
            self.now = max(self.now, min(send_at, returns_at))
            if returns_at <= self.now:
                self.complete_first()
                continue
            self.throttle.acquire(self.now)
            self.requests += 1
            self.in_flight.append((self.now + self.latency, take(self.scheduler, self.now)))

    def cool_down(self, seconds: float) -> None:
        """Send nothing for so long."""
        while self.in_flight:
            self.complete_first()
        self.now += seconds

    def complete_first(self) -> None:
        at, batch = self.in_flight.popleft()
        self.now = max(self.now, at)
        self.throttle.release()
        self.scheduler.complete(batch, FakeAnswer(dict.fromkeys(batch.ids, OPEN)), self.now)
