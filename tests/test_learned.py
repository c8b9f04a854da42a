"""The pace that learns: what it buys, what it promises, what it may be told."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from math import inf, nan
from typing import Any

import pytest

from luma_async import Every, Generation, GenerationsMissing, Learned, LumaSession, State, Stats
from luma_async.book import Book, Grace
from luma_async.durations import EDGES, Seen
from luma_async.entries import Call
from luma_async.testing import FakeRelay
from tests.answers import Told
from tests.bench.pace import Case, play

OPEN, FAILED = State.PROCESSING, State.FAILED
ENDS = [(50.0, 1.0, 4000.0), (60.0, 50.0, 2000.0), (75.0, 300.0, 3000.0), (90.0, 50.0, 500.0)]
YOUTH = [(age, 0.0, 40.0 * age) for age in EDGES if age < 50.0]
KNOWN = Seen.of([*YOUTH, *ENDS], first_looks=400.0, done=0.0)
MINUTE = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def case(durations: str, open_ids: int, *, arrivals: str = "poisson", ends: int = 600) -> Case:
    return Case(durations, open_ids, arrivals, seed=1, ends=ends, latency=0.1)


def taken(book: Book[str], now: float) -> Call[str]:
    call = book.take(now)
    assert call is not None
    return call


def book_of(pace: Learned, seats: int = 100) -> Book[str]:
    return Book(pace, seats, Grace(), spacing=0.105)


class TestWhatItBuys:
    @pytest.mark.parametrize(
        ("durations", "open_ids", "most"),
        [
            ("lognormal", 1, 0.85),
            ("lognormal", 24, 0.80),
            ("queue", 24, 0.80),
            ("two kinds", 24, 0.80),
            ("exponential", 24, 0.80),
            ("lognormal", 120, 0.70),
        ],
    )
    def test_news_is_sooner_at_the_same_number_of_requests(
        self, durations: str, open_ids: int, most: float
    ) -> None:
        some = case(durations, open_ids)
        every, learned = play(some, Every(5.0)), play(some, Learned(5.0))
        assert learned.mean < most * every.mean
        assert learned.late < every.late
        assert learned.requests == pytest.approx(every.requests, rel=0.03)

    def test_where_there_is_nothing_to_learn_nothing_is_lost(self) -> None:
        some = case("exponential", 1, ends=1500)
        every, learned = play(some, Every(5.0)), play(some, Learned(5.0))
        assert learned.mean < 1.05 * every.mean
        assert learned.requests == pytest.approx(every.requests, rel=0.03)

    @pytest.mark.parametrize("arrivals", ["steady", "together"])
    def test_it_spends_no_more_however_tasks_come(self, arrivals: str) -> None:
        some = case("lognormal", 150, arrivals=arrivals, ends=1500)
        every, learned = play(some, Every(5.0)), play(some, Learned(5.0))
        assert learned.mean < every.mean
        assert learned.requests / learned.seconds < 1.05 * every.requests / every.seconds

    def test_what_was_learned_wrongly_is_unlearned(self) -> None:
        wrong = Seen.of([(8.0, 900.0, 3000.0), (9.0, 900.0, 500.0)], first_looks=2000.0, done=0.0)
        some = case("lognormal", 24, ends=4000)
        every, learned = play(some, Every(5.0)), play(some, Learned(5.0, wrong))
        assert learned.mean < 0.9 * every.mean
        assert learned.requests == pytest.approx(every.requests, rel=0.03)


class TestWhenItAsks:
    @pytest.mark.parametrize("age", [0.0, 1.0, 75.0, 1e5])
    def test_while_nothing_is_known_it_asks_at_the_interval(self, age: float) -> None:
        assert Learned(5.0).rest(age) == pytest.approx(5.0, rel=1e-3)

    def test_it_asks_seldom_while_an_end_is_unlikely_and_often_when_it_is_likely(self) -> None:
        pace = Learned(5.0, KNOWN)
        assert pace.rest(0.0) == 20.0
        assert pace.rest(75.0) < 3.0

    def test_nobody_is_silent_for_longer_than_four_intervals(self) -> None:
        book = book_of(Learned(5.0, KNOWN))
        ids = [f"id {number}" for number in range(30)]
        asked_at = dict.fromkeys(ids, 0.0)
        now = 0.0
        for number, task_id in enumerate(ids):
            book.watch("ann", [task_id], 2.0 * number)
            asked_at[task_id] = 2.0 * number
        while now < 600.0:
            now = max(now, book.next_at())
            call = taken(book, now)
            for task_id in call.ids:
                assert now - asked_at[task_id] <= 20.0
                asked_at[task_id] = now
            book.settle(call, Told(dict.fromkeys(call.ids, OPEN)), now + 0.1)

    def test_the_first_look_is_at_once_while_it_may_show_an_end(self) -> None:
        book = book_of(Learned(5.0))
        for number in range(15):
            book.watch("ann", [f"id {number}"], 0.3 * number)
            assert book.next_at() == 0.3 * number
            call = taken(book, 0.3 * number)
            book.settle(call, Told(dict.fromkeys(call.ids, OPEN)), 0.3 * number + 0.1)

    def test_the_first_look_waits_for_company_once_it_never_does(self) -> None:
        book = book_of(Learned(5.0, KNOWN))
        book.watch("ann", ["a"], 100.0)
        call = taken(book, 100.0)
        book.settle(call, Told({"a": OPEN}), 100.1)
        book.watch("bob", ["b"], 101.0)
        assert 101.0 < book.next_at() <= 105.0
        assert set(taken(book, book.next_at()).ids) == {"a", "b"}

    def test_nobody_waits_for_company_where_a_request_is_full(self) -> None:
        book = book_of(Learned(5.0, KNOWN), seats=3)
        book.watch("ann", ["a"], 100.0)
        book.settle(taken(book, 100.0), Told({"a": OPEN}), 100.1)
        book.watch("bob", ["b", "c", "d"], 101.0)
        assert set(taken(book, 101.0).ids) == {"b", "c", "d"}

    def test_where_ids_are_often_done_already_nobody_waits_for_company(self) -> None:
        book = book_of(Learned(5.0, Seen(first_looks=100.0, done=20.0)))
        book.watch("ann", ["a"], 100.0)
        book.settle(taken(book, 100.0), Told({"a": OPEN}), 100.1)
        book.watch("bob", ["b"], 101.0)
        assert book.next_at() == 101.0

    @pytest.mark.virtual_time
    async def test_a_missing_id_is_told_in_time_amid_others_that_rest(
        self, relay: FakeRelay
    ) -> None:
        pace = Learned(5.0, KNOWN)
        async with LumaSession(relay.url, api_key=relay.api_key, pace=pace) as luma:
            others = luma.as_completed([relay.add(duration=70.0) for _ in range(10)])
            first = asyncio.create_task(anext(others))
            await asyncio.sleep(1.0)
            begun = asyncio.get_running_loop().time()
            with pytest.raises(GenerationsMissing):
                await luma.wait_until_done("nobody")
            assert 30.0 <= asyncio.get_running_loop().time() - begun <= 41.0
            assert (await first).is_done
            await others.aclose()


class TestWhatItKnows:
    @pytest.mark.virtual_time
    async def test_a_session_learns_from_the_ends_that_it_sees(self, relay: FakeRelay) -> None:
        async with LumaSession(relay.url, api_key=relay.api_key) as luma:
            assert luma.stats == Stats()
            await luma.wait_until_done([relay.add(duration=42.0) for _ in range(50)])
            learned = luma.stats.learned
        assert learned is not None
        assert learned.ends == pytest.approx(50.0)
        median = learned.quantile(0.5)
        assert median is not None
        assert median == pytest.approx(42.0, rel=0.1)
        assert "50 ends, half by 4" in repr(learned)

    @pytest.mark.virtual_time
    async def test_a_pace_that_does_not_learn_has_nothing_to_tell(self, relay: FakeRelay) -> None:
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
        assert (min(ages), max(ages)) == (5.0, 10.0)

    def test_a_task_that_the_relay_says_is_ages_old_teaches_nothing(self) -> None:
        seen = seen_of_one(datetime(1970, 1, 1, tzinfo=UTC), MINUTE)
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
            {**Learned().snapshot(), "done": "many"},
        ],
    )
    def test_what_is_no_snapshot_is_told_so(self, wrong: Any) -> None:
        with pytest.raises(ValueError, match=r"; give what Learned\.snapshot returned$"):
            Learned.restore(wrong)

    def test_a_quantile_is_known_once_an_end_is(self) -> None:
        assert Learned().quantile(0.5) is None
        with pytest.raises(ValueError, match="give a number between 0 and 1"):
            Learned().quantile(1.0)


def seen_of_one(created_at: datetime | None, date: datetime | None) -> Seen:
    """Return what is learned of a task that was open at 5 s and had ended at 10."""

    class Dated(Told):
        def generation(self, task_id: str) -> Generation:
            return Generation(id=task_id, state=self.states[task_id], created_at=created_at)

    book = book_of(Learned(5.0))
    book.watch("ann", ["a"], 0.0)
    for state in (OPEN, OPEN, FAILED):
        now = book.next_at()
        answer = Dated({"a": state})
        answer.date = date
        book.settle(taken(book, now), answer, now + 0.1)
    pace = book.timetable.pace
    assert isinstance(pace, Learned)
    return pace.seen
