"""Nothing is lost: long waits on relays that reject, forget and hang, and clocks that jump."""

import asyncio
import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, pairwise
from typing import Any

import pytest

from luma_async import (
    BadRequestError,
    DecodeError,
    Every,
    GenerationsMissing,
    Limits,
    LumaError,
    LumaSession,
    NoSuchRouteError,
    NotFoundError,
    RateLimitedError,
    RelayError,
    RequestTimeout,
    WaitTimeout,
)
from luma_async.polling.error_handling import FAST_RETRIES
from luma_async.polling.poller import Poller
from luma_async.polling.wait import Notify, Wait
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.pace import Pace
from luma_async.structs import State
from luma_async.testing import FAULTS, Breakage, FakeRelay, Fault, Reply
from tests.bench.faults import against
from tests.bench.mixed_callers import fates
from tests.fake_answers import FakeAnswer
from tests.in_memory_relays import ScriptedRelay
from tests.odd_relays import OddRelay, always, storm

pytestmark = pytest.mark.virtual_time

IDS = [f"id {number}" for number in range(100)]


def now() -> float:
    return asyncio.get_running_loop().time()


def jump(seconds: float) -> None:
    """Move the clock while the loop does not run: a blocked loop, or a suspended machine."""
    loop: Any = asyncio.get_running_loop()
    loop._jumping.now += seconds


async def wait(
    relay: Any, ids: Sequence[str], timeout: float | None = None, pace: Pace = Every(5.0)
) -> dict[str, Any]:
    poller = Poller(relay, pace, Limits(), Grace(), request_timeout=30.0, roll=lambda: 0.5)
    one = Wait(poller, relay, tuple(ids), timeout, Notify.NOTHING)
    try:
        await one.start()
        await one.wait_for_news()
    finally:
        one.stop()
        await asyncio.sleep(0)
    return await one.result()


class RejectingRelay(ScriptedRelay):
    """A relay whose tasks end at `ends`, and whose calls raise what `reject` returns."""

    def __init__(
        self, reject: Callable[[tuple[str, ...]], LumaError | None], ends: float = 60.0
    ) -> None:
        super().__init__(lambda _: State.COMPLETED if now() >= ends else State.PROCESSING)
        self.reject = reject
        self.rejected: list[float] = []
        self.sent: list[tuple[float, tuple[str, ...]]] = []

    async def _ask(self, ids: Sequence[str]) -> FakeAnswer:
        self.sent.append((now(), tuple(ids)))
        received = await super()._ask(ids)
        if error := self.reject(tuple(ids)):
            self.rejected.append(now())
            raise error
        return received

    def batches_with(self, task_id: str) -> int:
        return sum(task_id in ids and len(ids) > 1 for ids in self.asked)


class OnlyBatches(ScriptedRelay):
    """A relay whose single endpoint knows no id."""

    def __init__(self, error: LumaError) -> None:
        super().__init__(lambda _: State.COMPLETED)
        self.error = error

    async def get(self, task_id: str) -> FakeAnswer:
        raise self.error


async def no_answers_for_a_while(relay: FakeRelay) -> None:
    """Let the relay answer no request for 90 s, from 20 s on."""
    await asyncio.sleep(20.0)
    relay.faults = {"black_hole": 1.0}
    await asyncio.sleep(90.0)
    relay.faults = {}


class TestRejectedBatches:
    async def test_a_bad_id_is_found_by_one_bisection_and_polled_alone_from_then_on(self) -> None:
        def reject(ids: tuple[str, ...]) -> LumaError | None:
            if "bad" not in ids:
                return None
            return BadRequestError(422) if len(ids) > 1 else NotFoundError(400, "task_not_exist")

        relay = RejectingRelay(reject)
        with pytest.raises(GenerationsMissing) as caught:
            await wait(relay, [*IDS[1:], "bad"])
        assert caught.value.missing == ("bad",)
        assert list(caught.value.done) == IDS[1:]
        assert relay.batches_with("bad") == 6, "100, 50, 25, 12, 6, 3"
        assert relay.asked.count(("bad",)) <= 30 / 5 + 2, "no more than once an interval"
        assert now() < 70.0

    async def test_an_id_that_only_the_single_endpoint_accepts_is_bisected_less_and_less_often(
        self,
    ) -> None:
        def reject(ids: tuple[str, ...]) -> LumaError | None:
            return BadRequestError(400) if "rejected" in ids and len(ids) > 1 else None

        relay = RejectingRelay(reject, ends=600.0)
        assert list(await wait(relay, [*IDS[1:], "rejected"])) == [*IDS[1:], "rejected"]
        assert relay.batches_with("rejected") <= 7 * 7, "in 120 intervals"

    async def test_a_proxy_that_rejects_everything_for_a_while_has_no_lasting_effect(self) -> None:
        relay = RejectingRelay(
            lambda _: BadRequestError(400) if 10 < now() < 20 else None, ends=120.0
        )
        assert list(await wait(relay, IDS)) == IDS
        assert len(relay.rejected) < 50, "in ten seconds"
        late = [ids for ids in relay.asked if len(ids) == 100]
        assert len(late) > 12, "all are in one batch again"

    async def test_a_task_that_makes_responses_undecodable_affects_no_other(self) -> None:
        def reject(ids: tuple[str, ...]) -> LumaError | None:
            return DecodeError("too deep") if "poison" in ids and now() < 900.0 else None

        relay = RejectingRelay(reject, ends=300.0)
        with pytest.raises(WaitTimeout) as caught:
            await wait(relay, [*IDS[1:], "poison"], timeout=600.0)
        assert list(caught.value.done) == IDS[1:]
        assert list(caught.value.pending) == ["poison"]
        assert relay.batches_with("poison") < 20

    async def test_a_relay_with_undecodable_responses_is_polled_no_more_often_than_one_that_works(
        self,
    ) -> None:
        relay = RejectingRelay(lambda _: DecodeError("no task"))
        with pytest.raises(WaitTimeout):
            await wait(relay, IDS, timeout=600.0)
        assert len(relay.asked) <= 600 / 5 + FAST_RETRIES

    async def test_responses_above_max_body_are_requested_in_halves(self, relay: FakeRelay) -> None:
        ids = [relay.add(duration=60.0) for _ in range(16)]
        limits = Limits(max_body=8_000)
        async with LumaSession(relay.url, api_key=relay.api_key, limits=limits) as luma:
            assert list(await luma.wait_until_done(ids)) == ids
            assert now() < 75.0
            assert luma.stats.requests < 60 / 5 + 20
            assert list(await luma.get_many(ids)) == ids

    async def test_one_response_above_max_body_is_not_bisected(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add(duration=30.0) for _ in range(16)]
        relay.reply(Reply(breakage="gzip_bomb"))
        await luma.wait_until_done(ids)
        assert {len(asked.ids) for asked in relay.log} == {16}

    async def test_direct_calls_use_the_batch_size_learned_while_they_waited(
        self, relay: FakeRelay
    ) -> None:
        ids = [relay.add() for _ in range(3000)]
        rejected = [Reply(status=413)] * 4
        async with LumaSession(relay.url, api_key=relay.api_key) as luma:
            relay.reply(*rejected)
            assert list(await luma.get_many(ids)) == ids
            assert max(len(asked.ids) for asked in relay.log[8:]) == 50

    async def test_many_bad_ids_do_not_keep_others_from_being_polled(self) -> None:
        bad = set(IDS)

        def reject(ids: tuple[str, ...]) -> LumaError | None:
            return BadRequestError(400) if len(ids) > 1 and bad & set(ids) else None

        relay = RejectingRelay(reject, ends=100.0)
        poller = Poller(
            relay, Every(5.0), Limits(), Grace(), request_timeout=30.0, roll=lambda: 0.5
        )
        others = Wait(poller, relay, tuple(f"good {n}" for n in range(50)), None, Notify.NOTHING)
        rejected = Wait(poller, relay, tuple(IDS), None, Notify.NOTHING)
        await rejected.start()
        await asyncio.sleep(1.0)
        await others.start()
        await asyncio.gather(others.wait_for_news(), rejected.wait_for_news())
        asked = [at for at, ids in relay.sent if "good 7" in ids]
        assert max(later - at for at, later in pairwise(asked)) < 15.0

    async def test_a_limit_of_ids_answered_by_400_is_learned(self) -> None:
        relay = RejectingRelay(
            lambda ids: BadRequestError(400) if len(ids) > 20 else None, ends=300.0
        )
        ids = [f"id {number}" for number in range(400)]
        assert list(await wait(relay, ids)) == ids
        late = [at for at in relay.rejected if at > 150.0]
        assert len(late) < 10
        assert now() < 330.0

    @pytest.mark.parametrize("error", [partial(RelayError, 500), partial(RequestTimeout, "")])
    async def test_one_id_that_makes_batches_fail_does_not_starve_the_others(
        self, error: Callable[[], LumaError]
    ) -> None:
        relay = RejectingRelay(lambda ids: error() if "bad" in ids and len(ids) > 1 else None)
        ids = [*IDS[1:], "bad"]
        assert list(await wait(relay, ids)) == ids
        assert now() < 200.0

    async def test_ids_that_fail_alone_too_do_not_slow_the_others_down(self) -> None:
        bad = {f"bad {number}" for number in range(5)}
        relay = RejectingRelay(lambda ids: RelayError(500) if bad & set(ids) else None, ends=600.0)
        ids = [*(f"id {number}" for number in range(500)), *bad]
        with pytest.raises(WaitTimeout) as caught:
            await wait(relay, ids, timeout=700.0)
        assert set(caught.value.pending) == bad
        asked = [at for at, ids in relay.sent if "id 7" in ids and 200.0 < at < 600.0]
        assert max(later - at for at, later in pairwise(asked)) < 12.0

    @pytest.mark.thorough
    async def test_a_minute_of_413_leaves_no_trace_after_an_hour(self) -> None:
        def reject(ids: tuple[str, ...]) -> LumaError | None:
            return BadRequestError(413) if len(ids) > 1 and 10.0 < now() < 70.0 else None

        relay = RejectingRelay(reject, ends=7000.0)
        assert list(await wait(relay, IDS)) == IDS
        assert {len(ids) for at, ids in relay.sent if at > 5400.0} == {100}


class TestNoBatchEndpoint:
    async def test_the_batch_endpoint_is_tried_again_after_a_minute(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add(duration=100.0) for _ in range(5)]
        relay.reply(Reply(body=b"<!doctype html><html>"), on="tasks")
        assert list(await luma.wait_until_done(ids)) == ids
        first, second, *_ = [asked.at for asked in relay.log if asked.method == "POST"]
        assert 60.0 <= second - first < 70.0
        assert relay.requests < 5 * 60 / 5 + 20

    async def test_after_an_answered_batch_the_next_rejection_counts_as_the_first(self) -> None:
        def reject(ids: tuple[str, ...]) -> LumaError | None:
            without = now() < 65.0 or 200.0 < now() < 210.0
            return NoSuchRouteError("a page") if without and len(ids) > 1 else None

        relay = RejectingRelay(reject, ends=400.0)
        await wait(relay, IDS[:3])
        assert [round(at, -1) for at in relay.rejected] == [0.0, 60.0, 200.0]
        batches = [at for at, ids in relay.sent if len(ids) > 1 and at > 211.0]
        assert 260.0 <= batches[0] < 270.0

    async def test_a_web_page_on_both_endpoints_is_a_proxys_and_batches_are_sent_again_at_once(
        self,
    ) -> None:
        page = NoSuchRouteError
        relay = RejectingRelay(
            lambda _: page("302") if 10.0 < now() < 4000.0 else None, ends=4200.0
        )
        assert list(await wait(relay, IDS)) == IDS
        assert len(relay.rejected) < 4000 / 5
        assert any(len(ids) == 100 for at, ids in relay.sent if 4000.0 < at < 4090.0)

    async def test_an_id_that_only_the_batch_endpoint_knows_is_found_by_it(self) -> None:
        for error in (NotFoundError(404, "task_not_exist"), RelayError(500)):
            relay = OnlyBatches(error)
            assert list(await wait(relay, ["a"])) == ["a"]

    @pytest.mark.parametrize(
        "error",
        [NoSuchRouteError("a page"), NotFoundError(404), BadRequestError(405), RelayError(501)],
    )
    async def test_a_missing_batch_endpoint_is_probed_less_and_less_often(
        self, error: LumaError
    ) -> None:
        relay = RejectingRelay(lambda ids: error if len(ids) > 1 else None, ends=3000.0)
        assert list(await wait(relay, IDS[:3])) == IDS[:3]
        assert len(relay.rejected) <= 8, "three times at first, after 1, 3, 7, 15, 31 minutes"


class TestMissingIds:
    @pytest.mark.parametrize(
        "reply",
        [
            Reply(404, b"404 page not found\n", headers={"Content-Type": "text/plain"}),
            Reply(404),
            Reply(400, b"<html><h1>400 Bad Request</h1>"),
            Reply(403, b"<!DOCTYPE html><title>Just a moment...</title>"),
            Reply(body=b'{"id":"err_1","message":"internal error"}'),
        ],
        ids=["text", "empty", "page", "challenge", "another service"],
    )
    async def test_responses_of_a_proxy_while_the_relay_is_down_make_no_id_missing(
        self, reply: Reply
    ) -> None:
        oddity = storm("a proxy answers", always(reply.status, reply.body), until=100.0)
        async with OddRelay(oddity) as relay:
            ids = [relay.add(duration=150.0) for _ in range(3)]
            async with LumaSession(relay.url, api_key=relay.api_key) as luma:
                assert list(await luma.wait_until_done(ids)) == ids
                assert luma.stats.errors > 3

    async def test_a_bare_404_for_five_minutes_makes_an_id_missing(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        relay.reply(*[Reply(404)] * 1000, optional=True)
        with pytest.raises(GenerationsMissing):
            await luma.wait_until_done("unknown")
        assert 300.0 <= now() < 360.0

    async def test_an_id_that_a_stale_replica_does_not_know_is_not_missing(self) -> None:
        def play(_: str) -> State | None:
            stale = 20.0 < now() < 45.0 or 50.0 < now() < 75.0
            return None if stale else State.COMPLETED if now() > 100.0 else State.PROCESSING

        ends = await wait(ScriptedRelay(play), IDS[:2])
        assert [end.state for end in ends.values()] == [State.COMPLETED] * 2

    async def test_the_grace_period_does_not_run_without_responses(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add(duration=120.0), relay.add(duration=120.0)]
        relay.reply(Reply(body=b"[]"), Reply(breakage="black_hole"), Reply(body=b"[]"))
        assert list(await luma.wait_until_done(ids)) == ids

    async def test_an_unknown_id_is_missing_at_last_whatever_fails_in_between(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        relay.faults = {"storm": 0.5}
        with pytest.raises(GenerationsMissing):
            await luma.wait_until_done(["unknown", "too"])
        assert 30.0 <= now() < 300.0

    async def test_the_grace_period_of_a_link_does_not_run_without_responses(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        task_id = relay.add(duration=1.0, link_after=130.0)
        waiting = asyncio.ensure_future(luma.wait_until_done(task_id))
        await no_answers_for_a_while(relay)
        assert (await waiting).url

    async def test_an_outage_prolongs_the_grace_period_of_a_link_by_its_own_length(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        await asyncio.sleep(1000.0)
        begun = now()
        task_id = relay.add(duration=1.0, link_after=1e6)
        waiting = asyncio.ensure_future(luma.wait_until_done(task_id))
        await no_answers_for_a_while(relay)
        assert not (await waiting).url
        assert 60.0 < now() - begun - luma.link_grace < 200.0

    async def test_an_outage_makes_no_id_missing(self) -> None:
        relay = ScriptedRelay(lambda _: State.COMPLETED if now() > 500.0 else State.PROCESSING)
        down = RejectingRelay(
            lambda _: RelayError(502) if 10.0 < now() < 400.0 else None, ends=500.0
        )
        down.play = relay.play
        assert list(await wait(down, IDS)) == IDS

    async def test_rows_in_any_order_and_twice_are_reported_once(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add() for _ in range(3)]
        rows = [b'{"id":"%b","state":"failed"}' % name.encode() for name in (*ids, "stranger")]
        relay.reply(Reply(body=b"[" + b",".join(reversed(rows + rows)) + b"]"))
        received = [generation.id async for generation in luma.as_completed(ids)]
        assert sorted(received) == sorted(ids)


class TestCoolDown:
    @pytest.mark.parametrize("status", [200, 302, 400, 401, 404, 413, 422, 429, 500, 503])
    async def test_retry_after_is_obeyed_by_all_under_any_status(
        self, relay: FakeRelay, luma: LumaSession, status: int
    ) -> None:
        relay.reply(Reply(status=status, body=b"[]", headers={"Retry-After": "40"}))
        early = asyncio.ensure_future(luma.wait_until_done([relay.add(), relay.add()]))
        await asyncio.sleep(1.0)
        late = [asyncio.ensure_future(luma.wait_until_done(relay.add())) for _ in range(3)]
        await asyncio.gather(early, *late, return_exceptions=True)
        first, *rest = (asked.at for asked in relay.log)
        assert min(rest) - first >= 40.0

    async def test_a_success_does_not_end_the_cool_down_of_another_request(self) -> None:
        relay = RejectingRelay(lambda ids: None)

        async def ask(ids: Sequence[str]) -> FakeAnswer:
            throttled = len(relay.asked) == 0
            relay.asked.append(tuple(ids))
            times.append(now())
            await asyncio.sleep(0.1 if throttled else 0.5)
            if throttled:
                error = RateLimitedError(429)
                error.retry_after = 30.0
                raise error
            return FakeAnswer(dict.fromkeys(ids, State.COMPLETED))

        times: list[float] = []
        relay._ask = ask  # type: ignore[method-assign]
        await wait(relay, [f"id {number}" for number in range(300)])
        before = [at for at in times if at < 0.2]
        assert len(before) < len(times)
        assert min(at for at in times if at > 0.2) >= 30.1

    @pytest.mark.parametrize("breakage", ["truncated", "drip"])
    async def test_retry_after_is_obeyed_with_a_broken_body(
        self, relay: FakeRelay, luma: LumaSession, breakage: Breakage
    ) -> None:
        headers = {"Retry-After": "120", "Content-Type": "application/json"}
        relay.reply(Reply(503, b"{}", headers=headers, breakage=breakage))
        await luma.wait_until_done(relay.add())
        assert now() >= 120.0

    async def test_a_timeout_of_zero_takes_no_longer_than_a_request(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add(ends="never") for _ in range(400)]
        headers = {"Retry-After": "3600"}
        relay.reply(*[Reply(429, headers=headers, delay=2.0)] * 4)
        waiting = asyncio.ensure_future(luma.wait_until_done(ids))
        await asyncio.sleep(1.0)
        with pytest.raises(WaitTimeout):
            await luma.wait_until_done(ids[0], timeout=0)
        assert now() < 40.0
        waiting.cancel()

    async def test_one_bad_moment_of_many_requests_is_one_failure(self, relay: FakeRelay) -> None:
        relay.reply(*[Reply(status=502, delay=1.0)] * 4)
        ids = [relay.add() for _ in range(400)]
        limits = Limits(max_in_flight=4, max_rate=1000.0)
        async with LumaSession(relay.url, api_key=relay.api_key, limits=limits) as luma:
            waiting = asyncio.ensure_future(luma.wait_until_done(ids))
            await asyncio.sleep(1.1)
            assert luma.stats.errors == 4
            assert luma.stats.quiet_for <= 0.5
            await waiting

    async def test_a_timeout_of_zero_in_a_cool_down_has_its_cause(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        task_id = relay.add(ends="never")
        relay.reply(
            Reply(
                body=b'{"id":"x","state":"failed"}'.replace(b"x", task_id.encode()),
                headers={"Retry-After": "300", "Content-Type": "application/json"},
            )
        )
        await luma.wait_until_done(task_id)
        with pytest.raises(WaitTimeout) as caught:
            await luma.wait_until_done(task_id, timeout=0)
        assert isinstance(caught.value.__cause__, RateLimitedError)
        assert relay.requests == 1


class TestClock:
    @pytest.mark.parametrize("seconds", [30.0, 3600.0])
    async def test_after_a_jump_of_the_clock_there_is_one_round_and_no_burst(
        self, relay: FakeRelay, luma: LumaSession, seconds: float
    ) -> None:
        ids = [relay.add(ends="never") for _ in range(500)]
        waiting = asyncio.ensure_future(luma.wait_until_done(ids, timeout=None))
        await asyncio.sleep(21.0)
        jump(seconds)
        begun = now()
        await asyncio.sleep(4.0)
        after = [asked for asked in relay.log if asked.at >= begun]
        assert len(after) == 5, "each id once"
        assert relay.busiest_second() <= 10
        waiting.cancel()

    async def test_requests_in_flight_while_the_loop_was_blocked_are_retried(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        ids = [relay.add(duration=20.0) for _ in range(5)]
        waiting = asyncio.ensure_future(luma.wait_until_done(ids))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        jump(60.0)
        assert list(await waiting) == ids
        assert now() < 90.0


class TestMemory:
    async def test_a_day_of_polling_and_errors_leaves_memory_flat(self) -> None:
        kinds = cycle([None, partial(RelayError, 502), partial(DecodeError, "no task")])
        relay = RejectingRelay(lambda _: make() if (make := next(kinds)) else None, ends=1e9)
        relay.asked = Nothing()
        relay.rejected = Nothing()
        relay.sent = Nothing()
        waiting = asyncio.ensure_future(wait(relay, IDS, pace=Every(240.0)))
        await asyncio.sleep(3600.0)
        tracemalloc.start()
        try:
            sizes: list[int] = []
            for _ in range(4):
                await asyncio.sleep(6 * 3600.0)
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
        assert not waiting.done()
        waiting.cancel()
        assert max(sizes[1:]) - sizes[0] < 20_000, sizes

    async def test_an_error_that_is_remembered_holds_no_body(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        task_id = relay.add(duration=60.0)
        relay.reply(Reply(body=b"<p>" + b" " * 2**22))
        waiting = asyncio.ensure_future(luma.wait_until_done(task_id))
        tracemalloc.start()
        try:
            await asyncio.sleep(1.0)
            gc.collect()
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert luma.stats.errors == 1
        assert held < 2**20
        await waiting


class TestEveryFault:
    @pytest.mark.parametrize("fault", FAULTS)
    async def test_with_a_fault_in_half_of_all_requests_no_task_is_lost(self, fault: Fault) -> None:
        tasks = fates(48, 5.0, 40.0)
        run = await against(tasks, {fault: 0.5}, fault, 0.5, seed=1)
        assert run.injected > 5
        assert (run.tally.reported, run.tally.clean) == (48, True)
        assert run.busiest <= 10


class Nothing(list[Any]):
    def append(self, _: Any) -> None:
        pass


async def test_no_second_of_a_storm_has_more_requests_than_max_rate(
    relay: FakeRelay, luma: LumaSession
) -> None:
    ids = [relay.add(duration=30.0) for _ in range(500)]
    relay.reply(*[Reply(status=503)] * 30, *[Reply(status=422)] * 30, *[Reply(body=b"?")] * 30)
    assert list(await luma.wait_until_done(ids)) == ids
    assert relay.busiest_second() <= 10
    assert Counter(asked.status for asked in relay.log)[503] == 30
