"""A whole session with a FakeRelay, in virtual time: each promise of the public API."""

import asyncio
from collections import Counter

import aiohttp
import pytest

from luma_async import (
    AuthenticationError,
    Generation,
    GenerationsMissing,
    Limits,
    LumaSession,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RelayError,
    SessionClosed,
    State,
    Stats,
    WaitAborted,
    WaitTimeout,
)
from luma_async.testing import FakeRelay, Reply

pytestmark = pytest.mark.virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


def states_of(generations: dict[str, Generation]) -> dict[str, State]:
    return {task_id: generation.state for task_id, generation in generations.items()}


class TestGet:
    async def test_one_task_is_requested_with_the_single_get(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        task_id = relay.add(ends="never", queued=5.0)
        generation = await luma.get(task_id)
        assert (generation.id, generation.state) == (task_id, State.PENDING)
        assert [(asked.method, asked.path) for asked in relay.log] == [
            ("GET", f"/luma/generations/{task_id}")
        ]

    async def test_an_unknown_task_is_a_not_found_error(self, luma: LumaSession) -> None:
        with pytest.raises(NotFoundError):
            await luma.get("unknown")

    async def test_a_response_without_the_task_is_a_not_found_error(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        relay.reply(Reply(body=b"null"))
        with pytest.raises(NotFoundError, match="does not know a$"):
            await luma.get("a")

    async def test_a_transient_error_is_retried(self, relay: FakeRelay, luma: LumaSession) -> None:
        task_id = relay.add()
        relay.reply(Reply(status=502), Reply(status=200))
        assert (await luma.get(task_id)).state is State.COMPLETED
        assert relay.requests == 3

    async def test_a_web_page_is_raised_without_a_retry(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        relay.reply(Reply(body=b"<!doctype html>"))
        with pytest.raises(NoSuchRouteError, match="check the path of the base URL http"):
            await luma.get("a")
        assert relay.requests == 1

    async def test_a_lasting_error_is_raised_after_three_requests(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        relay.reply(*[Reply(status=503, body=b'{"detail":"no channel"}')] * 3)
        with pytest.raises(RelayError, match="no channel"):
            await luma.get("a")
        assert relay.requests == 3

    async def test_retry_after_is_honoured_and_a_long_one_is_raised_at_once(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        task_id = relay.add()
        relay.reply(Reply(status=429, headers={"Retry-After": "7"}))
        await luma.get(task_id)
        assert 7.0 <= relay.log[1].at - relay.log[0].at < 7.1
        relay.reply(Reply(status=429, headers={"Retry-After": "3600"}))
        with pytest.raises(RateLimitedError) as caught:
            await luma.get(task_id)
        assert caught.value.retry_after == 3600.0
        assert now() < 60.0

    async def test_the_retry_after_of_an_answer_holds_back_the_next_call(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        row = b'{"id": "a", "state": "processing"}'
        relay.reply(Reply(body=row, headers={"Retry-After": "7"}))
        await luma.get("a")
        await luma.get(relay.add())
        assert relay.log[1].at - relay.log[0].at >= 7.0


class TestGetMany:
    async def test_tasks_are_in_the_order_given_and_unknown_ones_are_left_out(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add() for _ in range(5)]
        requested = [ids[3], "unknown", ids[0], ids[4]]
        assert list(await luma.get_many(requested)) == [ids[3], ids[0], ids[4]]
        assert relay.requests == 1

    async def test_get_many_uses_the_batch_post_for_one_id_too(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        task_id = relay.add()
        assert list(await luma.get_many(task_id)) == [task_id]
        assert relay.log[0].method == "POST"

    async def test_get_many_sends_each_id_once_in_batches_of_max_batch(
        self, relay: FakeRelay
    ) -> None:
        ids = [relay.add() for _ in range(25)]
        limits = Limits(max_batch=10)
        async with LumaSession(relay.url, api_key=relay.api_key, limits=limits) as luma:
            assert list(await luma.get_many(ids + ids)) == ids
        assert sorted(len(asked.ids) for asked in relay.log) == [5, 10, 10]

    async def test_no_ids_cause_no_request(self, relay: FakeRelay, luma: LumaSession) -> None:
        assert await luma.get_many([]) == {}
        assert relay.requests == 0

    async def test_a_relay_without_the_batch_post_gets_single_gets_from_then_on(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add() for _ in range(3)]
        relay.reply(*[Reply(status=405)] * 3, on="tasks")
        assert list(await luma.get_many([*ids, "unknown"])) == ids
        assert list(await luma.get_many(ids)) == ids
        assert Counter(asked.method for asked in relay.log) == {"POST": 3, "GET": 7}

    async def test_an_error_of_a_single_get_in_place_of_a_batch_is_raised(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add() for _ in range(3)]
        relay.reply(*[Reply(status=404)] * 2, on="tasks")
        relay.reply(Reply(status=403), on="get")
        with pytest.raises(PermissionDeniedError):
            await luma.get_many(ids)

    async def test_a_rejected_batch_is_bisected_until_it_is_accepted(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add() for _ in range(8)]
        relay.reply(Reply(status=413), Reply(status=422), on="tasks")
        assert list(await luma.get_many(ids)) == ids
        assert [len(asked.ids) for asked in relay.log] == [8, 4, 2, 2, 4]

    async def test_a_relay_that_is_down_raises_soon_for_any_number_of_ids(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        relay.reply(*[Reply(status=503)] * 1000, optional=True)
        with pytest.raises(RelayError):
            await luma.get_many([f"id {number}" for number in range(10_000)])
        assert relay.requests <= 20
        assert now() < 120.0

    async def test_the_first_error_stops_all_other_requests(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        relay.reply(Reply(status=401))
        with pytest.raises(AuthenticationError):
            await luma.get_many([f"id {number}" for number in range(500)])
        assert relay.requests < 5


class TestWaitUntilDone:
    async def test_it_returns_when_each_task_is_completed_or_failed(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        good = relay.add(duration=12.0)
        bad = relay.add(duration=31.0, ends="failed")
        done = await luma.wait_until_done([bad, good])
        assert list(done) == [bad, good]
        assert states_of(done) == {bad: State.FAILED, good: State.COMPLETED}
        assert 31.0 <= now() <= 36.0

    async def test_a_str_is_one_id_and_gives_one_generation(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        task_id = relay.add(duration=3.0)
        generation = await luma.wait_until_done(task_id)
        assert isinstance(generation, Generation)
        assert generation.id == task_id

    async def test_ids_may_be_any_iterable_with_duplicates(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        first, second = relay.add(), relay.add()
        done = await luma.wait_until_done(iter([second, first, second]))
        assert list(done) == [second, first]
        assert [len(asked.ids) for asked in relay.log] == [2]

    async def test_no_ids_cause_no_request_and_no_wait(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        assert await luma.wait_until_done([]) == {}
        assert await luma.wait_until_done([], timeout=0) == {}
        assert [g async for g in luma.as_completed([])] == []
        assert relay.requests == 0

    async def test_one_id_uses_the_single_get_and_several_the_batch_post(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        await luma.wait_until_done(relay.add())
        await luma.wait_until_done([relay.add(), relay.add()])
        assert [asked.method for asked in relay.log] == ["GET", "POST"]

    async def test_a_timeout_is_exact_and_keeps_the_last_states(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        done, open_, unknown = relay.add(duration=3.0), relay.add(ends="never"), "unknown"
        with pytest.raises(WaitTimeout) as caught:
            await luma.wait_until_done([open_, done, unknown], timeout=20.0)
        assert now() == 20.0
        error = caught.value
        assert states_of(error.done) == {done: State.COMPLETED}
        assert list(error.pending) == [open_, unknown]
        last = error.pending[open_]
        assert last is not None
        assert last.state is State.PROCESSING
        assert error.pending[unknown] is None
        assert error.missing == ()

    async def test_a_second_wait_continues_with_the_pending_ids(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add(duration=duration) for duration in (2.0, 30.0)]
        with pytest.raises(WaitTimeout) as caught:
            await luma.wait_until_done(ids, timeout=10.0)
        assert list(await luma.wait_until_done(caught.value.pending)) == ids[1:]

    async def test_a_timeout_of_zero_polls_each_task_once(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        done, open_ = relay.add(), relay.add(ends="never")
        assert (await luma.wait_until_done(done, timeout=0)).is_done
        with pytest.raises(WaitTimeout) as caught:
            await luma.wait_until_done([done, open_, "unknown"], timeout=0)
        assert states_of(caught.value.done) == {done: State.COMPLETED}
        assert caught.value.pending[open_] is not None
        assert caught.value.pending["unknown"] is None
        assert relay.requests == 2
        assert now() < 1.0

    async def test_with_timeout_zero_a_failing_relay_is_the_cause_of_the_timeout(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        relay.reply(Reply(status=502))
        with pytest.raises(WaitTimeout) as caught:
            await luma.wait_until_done(["a", "b"], timeout=0)
        assert isinstance(caught.value.__cause__, RelayError)
        assert caught.value.pending == {"a": None, "b": None}

    async def test_timeout_zero_does_not_wait_for_a_long_retry_after(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        relay.reply(Reply(status=429, headers={"Retry-After": "3600"}))
        for _ in range(2):
            with pytest.raises(WaitTimeout) as caught:
                await luma.wait_until_done("a", timeout=0)
            assert isinstance(caught.value.__cause__, RateLimitedError)
        assert now() < 2.0
        assert relay.requests == 1

    async def test_timeout_zero_with_a_wrong_key_is_aborted(self, relay: FakeRelay) -> None:
        async with LumaSession(relay.url, api_key="sk-wrong") as luma:
            with pytest.raises(WaitAborted) as caught:
                await luma.wait_until_done("a", timeout=0)
        assert isinstance(caught.value.cause, AuthenticationError)

    async def test_a_timeout_of_none_waits_until_the_task_is_done(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        await luma.wait_until_done(relay.add(duration=1900.0), timeout=None)
        assert 1900.0 <= now() <= 1905.0, "longer than the default timeout"

    async def test_a_missing_id_is_raised_when_all_others_are_done(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        slow = relay.add(duration=50.0)
        with pytest.raises(GenerationsMissing) as caught:
            await luma.wait_until_done(["unknown", slow])
        assert caught.value.missing == ("unknown",)
        assert list(caught.value.done) == [slow]
        assert caught.value.pending == {}
        assert now() >= 50.0
        assert any(asked.ids == (slow,) for asked in relay.log), (
            "polled without it after missing_grace"
        )

    async def test_an_id_that_becomes_known_late_is_not_missing(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        late = relay.add(visible_after=20.0, duration=25.0)
        assert (await luma.wait_until_done(late)).state is State.COMPLETED

    async def test_a_link_that_comes_late_is_waited_for(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        generation = await luma.wait_until_done(relay.add(duration=2.0, link_after=20.0))
        assert generation.url
        assert now() >= 22.0

    async def test_a_link_that_never_comes_is_waited_for_link_grace_seconds(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        generation = await luma.wait_until_done(relay.add(link_after=1e9))
        assert (generation.state, generation.url) == (State.COMPLETED, None)
        assert 60.0 <= now() < 61.0


class TestErrors:
    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 524])
    async def test_a_transient_error_does_not_end_a_wait(
        self, relay: FakeRelay, luma: LumaSession, status: int
    ) -> None:
        relay.reply(*[Reply(status=status)] * 4)
        assert (await luma.wait_until_done(relay.add())).is_done
        assert luma.stats.errors == 4

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"<html>", b"5", b'"text"'])
    async def test_an_invalid_body_does_not_end_a_wait(
        self, relay: FakeRelay, luma: LumaSession, body: bytes
    ) -> None:
        relay.reply(*[Reply(body=body)] * 3)
        assert (await luma.wait_until_done(relay.add())).is_done

    async def test_a_relay_that_is_down_gets_no_more_requests_than_usual(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        relay.reply(*[Reply(status=500)] * 1000, optional=True)
        with pytest.raises(WaitTimeout) as caught:
            await luma.wait_until_done([relay.add(), relay.add()], timeout=600.0)
        assert isinstance(caught.value.__cause__, RelayError)
        assert relay.requests < 120 + 5, "no more than without errors"

    async def test_retry_after_delays_every_request_of_the_session(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        relay.reply(Reply(status=503, headers={"Retry-After": "20"}))
        task_id = relay.add()
        waits = [asyncio.ensure_future(luma.wait_until_done(task_id))]
        await asyncio.sleep(1)
        waits += [asyncio.ensure_future(luma.get(relay.add()))]
        waits += [asyncio.ensure_future(luma.wait_until_done(relay.add()))]
        await asyncio.gather(*waits)
        first, *rest = (asked.at for asked in relay.log)
        assert min(rest) - first >= 20.0

    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_rejected_key_aborts_every_wait_at_once(
        self, relay: FakeRelay, luma: LumaSession, status: int
    ) -> None:
        done = relay.add(duration=1.0)
        waits = [
            asyncio.ensure_future(luma.wait_until_done([done, relay.add(ends="never")]))
            for _ in range(3)
        ]
        await asyncio.sleep(10)
        relay.reply(*[Reply(status=status)] * 3)
        ends = await asyncio.gather(*waits, return_exceptions=True)
        for error in ends:
            assert isinstance(error, WaitAborted)
            assert error.cause is not None
            assert list(error.done) == [done]
            assert len(error.pending) == 1
        assert now() < 20.0
        assert luma.stats.open == 0
        assert (await luma.wait_until_done(done)).is_done, "a later call sends requests again"

    async def test_a_relay_without_the_batch_post_is_polled_with_single_gets(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add(duration=12.0) for _ in range(5)]
        relay.reply(Reply(body=b"<!doctype html><html>"), on="tasks")
        assert list(await luma.wait_until_done(ids)) == ids
        assert Counter(asked.method for asked in relay.log)["POST"] == 1

    async def test_a_rejected_batch_is_bisected_without_loss(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add(duration=7.0) for _ in range(6)]
        relay.reply(Reply(status=400), Reply(status=400), on="tasks")
        assert list(await luma.wait_until_done(ids)) == ids

    async def test_status_413_halves_the_batch_size_of_the_session(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add(duration=30.0) for _ in range(10)]
        relay.reply(Reply(status=413), on="tasks")
        await luma.wait_until_done(ids)
        assert max(len(asked.ids) for asked in relay.log[1:]) == 5


class TestSharing:
    async def test_an_id_with_many_waits_is_polled_once(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        task_id = relay.add(duration=30.0)
        await asyncio.gather(*(luma.wait_until_done(task_id) for _ in range(100)))
        assert relay.requests <= 8

    @pytest.mark.parametrize("callers", [1, 1000])
    async def test_a_thousand_callers_cause_as_many_requests_as_one(
        self, relay: FakeRelay, luma: LumaSession, callers: int
    ) -> None:
        ids = [relay.add(duration=30.0) for _ in range(1000)]
        size = len(ids) // callers
        parts = [ids[start : start + size] for start in range(0, len(ids), size)]
        await asyncio.gather(*map(luma.wait_until_done, parts))
        assert 70 <= relay.requests <= 85, (
            "ten a round, eight rounds; the request budget may lag a little"
        )

    async def test_callers_that_start_one_by_one_share_requests(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        waits: list[asyncio.Future[Generation]] = []
        for _ in range(200):
            waits.append(asyncio.ensure_future(luma.wait_until_done(relay.add(duration=30.0))))
            await asyncio.sleep(0.01)
        await asyncio.gather(*waits)
        assert relay.requests < 60

    async def test_no_second_has_more_requests_than_max_rate(self, relay: FakeRelay) -> None:
        ids = [relay.add(duration=20.0) for _ in range(300)]
        limits = Limits(max_batch=5, max_in_flight=3, max_rate=8.0)
        async with LumaSession(relay.url, api_key=relay.api_key, limits=limits) as luma:
            polls = asyncio.ensure_future(luma.wait_until_done(ids))
            direct = [asyncio.ensure_future(luma.get(task_id)) for task_id in ids[:50]]
            await asyncio.gather(polls, *direct)
        assert relay.busiest_second() <= 8

    async def test_direct_calls_and_polls_take_turns(self, relay: FakeRelay) -> None:
        polled, direct_ids = ([relay.add(ends="never") for _ in range(100)] for _ in range(2))
        limits = Limits(max_batch=1, max_rate=10.0)
        async with LumaSession(relay.url, api_key=relay.api_key, limits=limits) as luma:
            polls = asyncio.ensure_future(luma.wait_until_done(polled, timeout=9.0))
            await asyncio.sleep(0)
            direct = asyncio.ensure_future(luma.get_many(direct_ids))
            await asyncio.wait([polls])
            await direct
        is_poll = Counter(asked.ids[0] in polled for asked in relay.log[:60])
        assert abs(is_poll[True] - is_poll[False]) <= 2

    async def test_no_more_than_max_in_flight_requests_are_in_flight(
        self,
    ) -> None:
        async with FakeRelay(latency=3.0) as relay:
            ids = [relay.add() for _ in range(10)]
            limits = Limits(max_batch=1, max_in_flight=2, max_rate=1000.0)
            async with LumaSession(relay.url, api_key=relay.api_key, limits=limits) as luma:
                await luma.wait_until_done(ids)
        assert now() >= 15.0


class TestIterating:
    async def test_as_completed_returns_each_task_once_when_it_is_done(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add(duration=duration) for duration in (30.0, 10.0, 20.0)]
        ended: list[str] = []
        async for generation in luma.as_completed(ids):
            ended.append(generation.id)
            assert now() <= relay.tasks[generation.id].ends_at + 5.1  # type: ignore[operator]
        assert ended == [ids[1], ids[2], ids[0]]

    async def test_watch_returns_each_change_of_state(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        task_id = relay.add(queued=10.0, duration=30.0)
        states = [generation.state async for generation in luma.watch(task_id)]
        assert states == [State.PENDING, State.PROCESSING, State.COMPLETED]

    async def test_a_later_watch_starts_with_the_known_state(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        task_id = relay.add(duration=60.0)
        other = asyncio.ensure_future(luma.wait_until_done(task_id))
        await asyncio.sleep(11.0)
        reader = luma.watch(task_id)
        assert (await anext(reader)).state is State.PROCESSING
        assert now() == 11.0
        assert [generation.state async for generation in reader] == [State.COMPLETED]
        await other

    async def test_results_from_before_the_timeout_are_returned_before_it_is_raised(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add(), relay.add(), relay.add(ends="never")]
        reader = luma.as_completed(ids, timeout=10.0)
        first = await anext(reader)
        await asyncio.sleep(20.0)
        second = await anext(reader)
        assert [first.id, second.id] == ids[:2]
        with pytest.raises(WaitTimeout) as caught:
            await anext(reader)
        assert list(caught.value.done) == ids[:2]
        summary = caught.value.done[first.id]
        assert (summary.state, summary.url, summary.original) == (first.state, first.url, "{}")
        with pytest.raises(StopAsyncIteration):
            await anext(reader)

    async def test_missing_ids_are_raised_after_the_last_task(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        task_id = relay.add(duration=50.0)
        reader = luma.as_completed(["unknown", task_id])
        assert (await anext(reader)).id == task_id
        with pytest.raises(GenerationsMissing):
            await anext(reader)

    async def test_a_wait_without_results_wakes_the_reader(self, luma: LumaSession) -> None:
        with pytest.raises(GenerationsMissing):
            await anext(luma.as_completed("unknown"))
        assert 30.0 <= now() < 31.0

    async def test_watch_with_timeout_zero_returns_the_current_states(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add(), relay.add(ends="never")]
        reader = luma.watch(ids, timeout=0)
        assert [(await anext(reader)).id for _ in ids] == ids
        with pytest.raises(WaitTimeout):
            await anext(reader)

    async def test_a_watch_reports_all_others_before_it_says_that_an_id_is_missing(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        task_id = relay.add(duration=200.0)
        states: list[State] = []
        with pytest.raises(GenerationsMissing) as caught:
            async for generation in luma.watch([task_id, "gone"]):
                assert generation.id == task_id
                states.append(generation.state)
        assert states[-1] is State.COMPLETED
        assert caught.value.missing == ("gone",)

    async def test_two_readers_of_one_iterator_are_a_runtime_error(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        reader = luma.as_completed([relay.add(duration=9.0)])
        first = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(1)
        with pytest.raises(RuntimeError, match="give each its own"):
            await anext(reader)
        assert (await first).is_done

    async def test_two_readers_are_an_error_while_many_ids_are_subscribed_too(
        self, luma: LumaSession
    ) -> None:
        reader = luma.as_completed([f"task-{number}" for number in range(9000)])
        first = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="give each its own"):
            await anext(reader)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await reader.aclose()


class TestStats:
    async def test_a_snapshot_has_the_counts_of_requests_and_results(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        before = luma.stats
        relay.reply(Reply(status=429))
        ids = [relay.add(duration=12.0), relay.add(duration=12.0, ends="failed"), "unknown"]
        with pytest.raises(GenerationsMissing):
            await luma.wait_until_done(ids)
        stats = luma.stats
        assert before == Stats()
        assert (stats.completed, stats.failed, stats.missing) == (1, 1, 1)
        assert (stats.errors, stats.throttled) == (1, 1)
        assert stats.requests == relay.requests
        assert stats.ids_asked == sum(len(asked.ids) for asked in relay.log)
        assert 0.0 < stats.lag <= stats.lag_most <= 5.0

    async def test_the_repr_of_a_session_has_its_open_ids(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        wait = asyncio.ensure_future(luma.wait_until_done([relay.add(duration=60.0), relay.add()]))
        await asyncio.sleep(30.0)
        assert (luma.stats.open, luma.stats.oldest) == (1, 30.0)
        stats = f"1 open, oldest 30 s, 0 in flight, {relay.requests} requests"
        assert repr(luma) == f"<LumaSession {relay.url}: {stats}>"
        await wait


class TestClosing:
    async def test_closing_ends_every_wait_and_call(self) -> None:
        async with (
            FakeRelay(latency=10.0) as relay,
            aiohttp.ClientSession() as http,
            LumaSession(relay.url, api_key=relay.api_key, http=http) as luma,
        ):
            task_id = relay.add(ends="never")
            calls = [
                asyncio.ensure_future(call)
                for call in (
                    luma.wait_until_done(task_id),
                    anext(luma.watch(task_id)),
                    luma.get(task_id),
                    luma.get_many(task_id),
                    *(luma.get(task_id) for _ in range(8)),
                )
            ]
            await asyncio.sleep(1.0)
            await luma.close()
            await luma.close()
            wait, watch, *direct = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(wait, WaitAborted)
        assert isinstance(watch, WaitAborted)
        assert isinstance(wait.cause, SessionClosed)
        assert list(wait.pending) == [task_id]
        assert [type(error) for error in direct] == [SessionClosed] * 10
        assert now() < 2.0

    async def test_a_call_that_was_admitted_as_the_session_closed_is_not_sent(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        call = asyncio.ensure_future(luma.get(relay.add()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await luma.close()
        with pytest.raises(SessionClosed):
            await call
        assert relay.requests == 0

    async def test_leaving_the_session_closes_it(self, relay: FakeRelay) -> None:
        async with LumaSession(relay.url, api_key=relay.api_key) as luma:
            pass
        with pytest.raises(SessionClosed):
            await luma.get("a")
