"""Odd relays: no id is missing that lives, none ends as another, and no one hurts the others."""

import asyncio
import gc
import gzip
import json
import random
import sys
import traceback
import warnings
from contextlib import suppress
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from luma_async import (
    AuthenticationError,
    ChangeEvent,
    Every,
    Generation,
    GenerationsMissing,
    LumaSession,
    PermissionDeniedError,
    RateLimitedError,
    SetupError,
    State,
    WaitAborted,
    WaitTimeout,
)
from luma_async.testing import FakeRelay, Reply
from luma_async.testing.types import IncomingRequest
from tests.odd_relays import (
    ODDITIES,
    REFUSALS,
    Oddity,
    OddRelay,
    always,
    on_batch,
    on_rows,
    storm,
)

SECRET_KEY = "sk-secret-key"

pytestmark = pytest.mark.virtual_time


def now() -> float:
    return asyncio.get_running_loop().time()


def session(relay: FakeRelay, **arguments: Any) -> LumaSession:
    return LumaSession(relay.url, api_key=relay.api_key, **arguments)


def ended_as_at(relay: FakeRelay, done: dict[str, Generation]) -> bool:
    return all(one.state == relay.tasks[i].ends for i, one in done.items() if i in relay.tasks)


class TestEachOddity:
    @pytest.mark.parametrize("name", ODDITIES)
    async def test_each_task_ends_as_it_did_at_the_relay(self, name: str) -> None:
        dice = random.Random(name)
        async with OddRelay(ODDITIES[name]) as relay, session(relay) as luma:
            ids = [
                relay.add(
                    duration=dice.uniform(0.0, 150.0), ends=dice.choice(("completed", "failed"))
                )
                for _ in range(60)
            ]
            done = await luma.wait_until_done(ids, timeout=3600.0)
            assert list(done) == ids
            assert ended_as_at(relay, done)
            assert all(one.url for one in done.values() if one.state is State.COMPLETED)

    @pytest.mark.parametrize("cap", [1, 3, 7, 20, 50])
    async def test_a_cap_on_rows_is_learned_whatever_it_is(self, cap: int) -> None:
        oddity = Oddity("a cap", on_batch(lambda rows: rows[:cap]))
        async with OddRelay(oddity) as relay, session(relay) as luma:
            ids = [relay.add(duration=200.0) for _ in range(60)]
            assert list(await luma.wait_until_done(ids)) == ids
            late = [
                len(asked.ids) for asked in relay.log if asked.at > 150.0 and len(asked.ids) > 1
            ]
            assert max(late, default=0) <= max(cap, 2)

    async def test_an_id_that_each_batch_leaves_out_is_rarely_tried_in_one(self) -> None:
        """It rejoins after 0, 1, 3, … responses, so that it costs a handful of requests an hour."""
        left_out = on_batch(lambda rows: [row for row in rows if row["id"] != "left out"])
        async with OddRelay(Oddity("one row less", left_out)) as relay, session(relay) as luma:
            ids = [relay.add(ends="never") for _ in range(30)]
            relay.add("left out", ends="never")
            with pytest.raises(WaitTimeout):
                await luma.wait_until_done([*ids, "left out"], timeout=3600.0)
            batches = [asked.ids for asked in relay.log if len(asked.ids) > 1]
            assert min(map(len, batches)) >= 30, "one id does not show a cap"
            assert 5 < sum("left out" in ids for ids in batches) < 50

    async def test_ids_that_were_left_out_for_a_minute_are_polled_in_batches_again(self) -> None:
        left_out = on_batch(lambda rows: [row for row in rows if int(row["id"][-1], 16) > 2])
        async with OddRelay(storm("a minute", left_out, 60.0)) as relay, session(relay) as luma:
            ids = [relay.add(ends="never") for _ in range(300)]
            with pytest.raises(WaitTimeout):
                await luma.wait_until_done(ids, timeout=3600.0)
            assert sum(asked.at > 600.0 and len(asked.ids) == 1 for asked in relay.log) == 0

    async def test_an_honest_relay_pays_nothing_for_it(self) -> None:
        async with OddRelay(None) as relay, session(relay, pace=Every(5.0)) as luma:
            await luma.wait_until_done([relay.add(duration=100.0) for _ in range(100)])
            assert all(len(asked.ids) == 100 for asked in relay.log)
            assert relay.requests <= 22


class TestMissing:
    async def test_what_is_gone_is_missing_within_a_minute_at_half_more_requests(self) -> None:
        reported: list[float] = []
        requests: list[int] = []
        for gone in (0, 50):
            async with FakeRelay(latency=0.05) as relay:
                ids = [relay.add(duration=150.0) for _ in range(1000 - gone)]
                unknown = [f"gone-{number}" for number in range(gone)]
                began = now()

                def note(event: ChangeEvent, since: float = began) -> None:
                    if event.state is None:
                        reported.append(now() - since)

                async with session(relay, on_change=note) as luma:
                    waiting = luma.wait_until_done([*ids, *unknown])
                    if gone:
                        with pytest.raises(GenerationsMissing) as caught:
                            await waiting
                        assert set(caught.value.missing) == set(unknown)
                        assert "task_not_exist" in str(caught.value)
                    else:
                        await waiting
                requests.append(relay.requests)
        assert max(reported) <= 60.0
        assert requests[1] <= 1.6 * requests[0]

    @pytest.mark.parametrize(("status", "plain"), REFUSALS)
    async def test_a_refusal_is_no_absence_before_ten_times_the_grace(
        self, status: int, plain: object
    ) -> None:
        oddity = Oddity("refuses", always(status, plain))
        async with OddRelay(oddity) as relay, session(relay) as luma:
            began = now()
            with pytest.raises(GenerationsMissing) as caught:
                await luma.wait_until_done(["a"], timeout=1200.0)
            assert 300.0 <= now() - began <= 400.0
            assert f"status {status}" in str(caught.value)

    async def test_doubt_and_certainty_have_clocks_of_their_own(self) -> None:
        def answer(relay: OddRelay, _: str, __: tuple[str, ...], reply: Reply) -> Reply:
            if now() < 35.0:
                return replace(reply, status=404, body=b"not found")
            if now() < 42.0:
                return replace(reply, status=404, body=b'{"code": "task_not_exist"}')
            return reply

        async with OddRelay(Oddity("both", answer)) as relay, session(relay) as luma:
            ids = [relay.add(duration=60.0) for _ in range(3)]
            assert list(await luma.wait_until_done(ids)) == ids

    async def test_without_a_single_endpoint_batch_silence_needs_ten_times_the_grace(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        page = b"<html><body>404 not found</body></html>"
        oddity = Oddity("no single", always(404, page, call="get"))
        async with OddRelay(oddity) as relay, session(relay, missing_grace=5.0) as luma:
            ids = [relay.add(duration=200.0) for _ in range(3)]
            began = now()
            reported = [one.id async for one in luma.as_completed(ids)]
            with pytest.raises(GenerationsMissing):
                await luma.wait_until_done(["gone", "lost"])
            assert sorted(reported) == sorted(ids)
            assert now() - began >= 50.0 + 200.0
        assert caplog.text.count("has no single endpoint") == 1

    async def test_a_null_answer_to_a_task_that_was_seen_is_doubtful(self) -> None:
        oddity = storm("null", always(200, None), 45.0)
        async with OddRelay(oddity) as relay, session(relay) as luma:
            assert (await luma.wait_until_done(relay.add(duration=60.0))).url

    @pytest.mark.parametrize("status", [400, 404, 422])
    async def test_a_bare_refusal_is_no_absence_in_direct_calls_either(self, status: int) -> None:
        async with OddRelay(Oddity("proxy", always(status, b""))) as relay, session(relay) as luma:
            with pytest.raises(Exception, match=f"status {status}") as caught:
                await luma.get_many(["a", "b"])
            assert not getattr(caught.value, "about_task", False)


async def test_an_unknown_state_beside_a_link_counts_as_completed_after_the_grace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def polish(row: dict[str, Any]) -> object:
        return {**row, "state": "polishing" if row["state"] == "completed" else row["state"]}

    async with OddRelay(Oddity("polishes", on_rows(polish))) as relay, session(relay) as luma:
        ids = [relay.add(duration=20.0) for _ in range(3)]
        done = await luma.wait_until_done(ids)
        assert 80.0 <= now() <= 100.0
    assert all(one.state is State.COMPLETED and one.url for one in done.values())
    assert caplog.text.count("it counts as completed") == 3
    assert "unknown state 'polishing'" in caplog.text


async def test_the_grace_of_an_unknown_state_does_not_run_without_responses() -> None:
    draft = {"video": {"download_url": "https://cdn.example/draft.mp4"}}

    def polish(relay: OddRelay, call: str, ids: tuple[str, ...], reply: Reply) -> Reply:
        if 20.0 <= now() < 300.0:
            return replace(reply, status=502, body=b"")
        return polished(relay, call, ids, reply)

    polished = on_rows(
        lambda row: {**row, "state": "polishing", **draft} if row["state"] != "completed" else row
    )
    async with OddRelay(Oddity("polishes", polish)) as relay, session(relay) as luma:
        done = await luma.wait_until_done(relay.add(duration=325.0))
        assert now() >= 325.0
    assert done.url != draft["video"]["download_url"]


async def test_a_host_that_also_has_other_errors_is_not_taken_for_a_wrong_base_url() -> None:
    page = b"<html><body>404 not found</body></html>"

    def start(_: OddRelay, __: str, ___: tuple[str, ...], reply: Reply) -> Reply:
        if now() >= 85.0:
            return reply
        is_upstream = 30.0 <= now() < 45.0
        return replace(reply, status=502 if is_upstream else 404, body=page)

    async with OddRelay(Oddity("starts", start)) as relay, session(relay) as luma:
        assert (await luma.wait_until_done(relay.add(duration=20.0))).url


async def test_an_unknown_state_of_one_task_delays_no_other() -> None:
    ids: list[str] = []

    def polish(row: dict[str, Any]) -> object:
        return {"id": row["id"], "state": "polishing"} if row["id"] == ids[0] else row

    async with OddRelay(Oddity("polishes one", on_rows(polish))) as relay, session(relay) as luma:
        ids += [relay.add(duration=20.0) for _ in range(5)]
        stuck = asyncio.ensure_future(luma.wait_until_done(ids[0], timeout=None))
        done = await luma.wait_until_done(ids[1:], timeout=40.0)
        assert list(done) == ids[1:]
        stuck.cancel()


async def test_the_grace_of_an_unknown_state_does_not_wait_for_the_next_poll() -> None:
    def polish(row: dict[str, Any]) -> object:
        return {**row, "state": "polishing"}

    async with OddRelay(Oddity("polishes", on_rows(polish))) as relay:
        async with session(relay, pace=Every(600.0)) as luma:
            assert (await luma.wait_until_done(relay.add(duration=0.0))).url
            assert now() < 90.0


async def test_after_a_known_state_the_grace_of_an_unknown_one_begins_again() -> None:
    draft = {"video": {"download_url": "https://cdn.example/draft.mp4"}}

    def polish(row: dict[str, Any]) -> object:
        is_polished = row["state"] != "completed" and now() % 100.0 < 40.0
        return {**row, "state": "polishing", **draft} if is_polished else row

    async with OddRelay(Oddity("polishes", on_rows(polish))) as relay, session(relay) as luma:
        done = await luma.wait_until_done(relay.add(duration=350.0))
        assert now() >= 350.0
    assert done.url != draft["video"]["download_url"]


async def test_an_unknown_state_without_a_link_is_still_running() -> None:
    def polish(row: dict[str, Any]) -> object:
        return {"id": row["id"], "state": "polishing"}

    async with OddRelay(Oddity("polishes", on_rows(polish))) as relay, session(relay) as luma:
        with pytest.raises(WaitTimeout):
            await luma.wait_until_done(relay.add(duration=20.0), timeout=600.0)


class TestOneOfMany:
    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_rejected_id_aborts_its_own_waits_alone(self, status: int) -> None:
        def answer(_: OddRelay, __: str, ids: tuple[str, ...], reply: Reply) -> Reply:
            return (
                replace(reply, status=status, body=b'{"message": "no"}') if "bad" in ids else reply
            )

        async with OddRelay(Oddity("rejects", answer)) as relay, session(relay) as luma:
            ids = [relay.add(duration=120.0) for _ in range(200)]
            good = asyncio.ensure_future(luma.wait_until_done(ids))
            mixed = asyncio.ensure_future(luma.wait_until_done([*ids[:50], "bad"]))
            with pytest.raises(WaitAborted) as caught:
                await luma.wait_until_done("bad")
            assert isinstance(caught.value.cause, AuthenticationError | PermissionDeniedError)
            assert now() < 60.0
            assert list(await good) == ids
            with pytest.raises(WaitAborted) as caught:
                await mixed
            assert list(caught.value.done) == ids[:50]
            assert list(caught.value.pending) == ["bad"]
            assert now() < 130.0

    @pytest.mark.parametrize("count", [1, 2, 99, 250])
    async def test_a_rejected_key_aborts_all_waits_within_seconds(self, count: int) -> None:
        async with OddRelay(storm("key", always(401, {"message": "no"}), 1e9)) as relay:
            async with session(relay) as luma:
                ids = [relay.add(ends="never") for _ in range(count)]
                waits = [asyncio.ensure_future(luma.wait_until_done(i)) for i in ids]
                results = await asyncio.gather(*waits, return_exceptions=True)
                assert all(isinstance(one, WaitAborted) for one in results)
                assert now() < 20.0
                assert relay.requests < 20

    async def test_callers_that_wait_again_keep_a_growing_distance(self) -> None:
        async with OddRelay(Oddity("key", always(401, {"message": "no"}))) as relay:
            async with session(relay) as luma:

                async def insist() -> None:
                    while now() < 60.0:
                        with pytest.raises((WaitAborted, WaitTimeout)):
                            await luma.wait_until_done("a", timeout=60.0)

                await asyncio.gather(*[insist() for _ in range(5)])
                assert relay.requests <= 40

    async def test_direct_calls_with_a_rejected_key_keep_a_growing_distance(self) -> None:
        async with OddRelay(Oddity("key", always(401, {"message": "no"}))) as relay:
            async with session(relay) as luma:
                for _ in range(10):
                    with pytest.raises(AuthenticationError):
                        await luma.get("a")
        times = [asked.at for asked in relay.log]
        assert times[1] - times[0] < 0.3, "one rejection may be about one task"
        assert times[-1] - times[0] > 5.0

    async def test_a_load_balancer_is_no_account(self) -> None:
        plain = {"code": "error", "message": "load balancer error"}
        async with OddRelay(storm("lb", always(200, plain), 60.0)) as relay, session(relay) as luma:
            ids = [relay.add(duration=30.0) for _ in range(3)]
            assert list(await luma.wait_until_done(ids)) == ids

    @pytest.mark.parametrize("size", [4097, 2**20])
    async def test_a_text_that_is_too_long_for_an_id_is_refused(self, size: int) -> None:
        async with FakeRelay() as relay, session(relay) as luma:
            with pytest.raises(ValueError, match="of up to 4096 bytes"):
                await luma.wait_until_done("x" * size)
            assert relay.requests == 0

    @pytest.mark.parametrize(
        ("status", "plain"), [(404, {"detail": "Generation not found"}), (405, b"<html>405</html>")]
    )
    async def test_one_id_does_not_cost_all_the_batch_endpoint(
        self, status: int, plain: object
    ) -> None:
        refuse = always(status, plain)

        def answer(relay: OddRelay, call: str, ids: tuple[str, ...], reply: Reply) -> Reply:
            bad = call == "tasks" and "bad" in ids
            return refuse(relay, call, ids, reply) if bad else reply

        async with OddRelay(Oddity("firewall", answer)) as relay, session(relay) as luma:
            ids = [relay.add(duration=300.0) for _ in range(150)]
            with pytest.raises(GenerationsMissing):
                await luma.wait_until_done([*ids, "bad"])
            assert relay.requests < 300

    async def test_a_subclass_of_str_is_a_plain_id(self) -> None:
        class SafeString(str):
            __slots__ = ()

            def __str__(self) -> str:
                return self

        async with FakeRelay() as relay, session(relay) as luma:
            ids = [relay.add(duration=5.0) for _ in range(3)]
            done = await luma.wait_until_done([SafeString(one) for one in ids])
            assert list(done) == ids
            assert {type(one) for one in done} == {str}

    @pytest.mark.parametrize("open_ids", [1_000, 20_000])
    async def test_what_is_new_is_not_behind_a_backlog(self, open_ids: int) -> None:
        oddity = Oddity("no batch", always(405, b"", call="tasks"))
        async with OddRelay(oddity) as relay, session(relay) as luma:
            ids = [relay.add(ends="never") for _ in range(open_ids)]
            backlog = asyncio.ensure_future(luma.wait_until_done(ids))
            await asyncio.sleep(100.0)
            for _ in range(3):
                assert (await luma.wait_until_done(relay.add(), timeout=10.0)).url
            backlog.cancel()

    async def test_ids_that_hang_delay_the_others_by_no_more_than_as_much_again(self) -> None:
        means = [await mean_lag(bad) for bad in (0, 10)]
        assert means[1] <= 2.0 * means[0]


async def mean_lag(bad: int) -> float:
    """Return how late on average the good ones of 1,000 are reported, beside ids that hang."""
    dice = random.Random(3)
    hanging: set[str] = set()

    class Hanging(OddRelay):
        async def _handle(self, request: IncomingRequest) -> Reply:
            _, ids = self.parse(request)
            if hanging & {*(ids or ())}:
                await asyncio.sleep(100.0)
            return await super()._handle(request)

    lags: list[float] = []
    ends: dict[str, float] = {}
    async with Hanging(None, latency=0.05) as relay:
        for _ in range(1000):
            duration = dice.uniform(20.0, 600.0)
            ends[relay.add(duration=duration)] = now() + duration
        hanging |= {*dice.sample(list(ends), bad)}

        def note(event: Any) -> None:
            if event.ended and event.id not in hanging:
                lags.append(now() - ends[event.id])

        async with session(relay, on_change=note) as luma:
            with suppress(WaitTimeout):
                await luma.wait_until_done(list(ends), timeout=800.0)
    assert len(lags) == 1000 - bad
    return sum(lags) / len(lags)


class TestQuiet:
    @pytest.mark.parametrize("status", [200, 429, 503])
    async def test_a_day_of_quiet_is_ended_by_one_request_after_ten_minutes(
        self, status: int
    ) -> None:
        async with FakeRelay() as relay, session(relay) as luma:
            task_id = relay.add(duration=30.0)
            headers = {"Retry-After": "86400"}
            plain = b"[]" if status == 200 else b'{"message": "later"}'
            relay.reply(Reply(status=status, body=plain, headers=headers))
            waiting = asyncio.ensure_future(luma.wait_until_done(task_id, timeout=None))
            await asyncio.sleep(1.0)
            with pytest.raises(RateLimitedError) as caught:
                await luma.get(task_id)
            assert caught.value.retry_after
            assert (await waiting).url
            assert 600.0 <= now() < 700.0
            first, second, *_ = relay.log
            assert second.at - first.at >= 600.0


class TestMemory:
    async def test_a_watch_that_is_not_read_keeps_the_newest_state_of_each_id(self) -> None:
        states = {True: "processing", False: "pending"}

        def flap(row: dict[str, Any]) -> object:
            return {**row, "state": states[int(now() / 5.0) % 2 == 0]} if now() < 3600 else row

        async with OddRelay(Oddity("flaps", on_rows(flap))) as relay, session(relay) as luma:
            ids = [relay.add(duration=3000.0) for _ in range(20)]
            reader = luma.watch(ids, timeout=None)
            await anext(reader)
            await asyncio.sleep(3500.0)
            unread = reader._wait._news  # pyright: ignore[reportPrivateUsage]
            assert len(unread) <= len(ids)
            await asyncio.sleep(300.0)
            ends = [one async for one in reader]
            assert sorted(one.id for one in ends) == sorted(ids)
            assert all(one.is_done for one in ends)

    async def test_a_follow_that_is_dropped_without_close_polls_no_more(self) -> None:
        async with FakeRelay() as relay, session(relay) as luma:
            following = luma.follow()
            following.add([relay.add(ends="never")])
            await asyncio.sleep(10.0)
            del following
            gc.collect()
            await asyncio.sleep(1.0)
            asked = relay.requests
            await asyncio.sleep(100.0)
            assert relay.requests == asked
            assert luma.stats.open == 0

    def test_weeks_without_a_new_id_keep_no_list(self) -> None:
        from luma_async.scheduling.interval_simulation import IntervalSimulation

        budget = IntervalSimulation(5.0, 100, 0.1)
        budget.add(100, 0.0)
        for day in range(1, 8):
            budget.advance(day * 3600.0)
        assert len(budget._returns) < 100  # pyright: ignore[reportPrivateUsage]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks: Python 3.12 or later")
async def test_eager_tasks_and_a_hook_that_drops_ids_work() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]
    try:
        async with FakeRelay() as relay:
            following: Any = None

            def drop(event: Any) -> None:
                following.drop([event.id])

            async with session(relay, on_change=drop) as luma:
                following = luma.follow()
                following.add([relay.add(duration=3.0) for _ in range(300)])
                await asyncio.sleep(60.0)
                assert luma.stats.open == 0
    finally:
        loop.set_task_factory(None)


class TestSetup:
    async def test_a_session_that_cannot_send_ends_the_wait_at_once(self) -> None:
        async with FakeRelay() as relay:
            with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
                http = aiohttp.ClientSession(auth=aiohttp.BasicAuth("user", "secret"))
            async with http, session(relay, http=http) as luma:
                with pytest.raises(WaitAborted) as caught:
                    await luma.wait_until_done(relay.add())
                assert isinstance(caught.value.cause, SetupError)
                assert "secret" not in str(caught.value)
                assert now() < 5.0
                with pytest.raises(SetupError):
                    await luma.get("a")

    @pytest.mark.parametrize("error", [ValueError("bad"), TypeError("worse")])
    async def test_a_middleware_that_raises_is_a_fault_of_the_setup(self, error: Exception) -> None:
        async def fail(*_: Any) -> aiohttp.ClientResponse:
            raise error

        async with FakeRelay() as relay:
            async with (
                aiohttp.ClientSession(middlewares=(fail,)) as http,
                session(relay, http=http) as luma,
            ):
                with pytest.raises(WaitAborted, match=str(error)):
                    await luma.wait_until_done(relay.add())


async def test_an_id_that_batches_left_out_for_a_while_is_in_batches_again() -> None:
    ids: list[str] = []

    def leave_out(rows: list[dict[str, Any]]) -> object:
        return [row for row in rows if row["id"] != ids[0]] if now() < 60.0 else rows

    async with OddRelay(Oddity("forgetful", on_batch(leave_out))) as relay, session(relay) as luma:
        ids += [relay.add(duration=3000.0) for _ in range(20)]
        assert list(await luma.wait_until_done(ids, timeout=None)) == ids
    single = [asked.at for asked in relay.log if asked.method == "GET"]
    assert single, "it is asked about by GET while batches leave it out"
    assert max(single) < 180.0, "batches that contain it suffice"


async def test_after_an_outage_of_half_a_day_all_is_reported_within_two_rounds() -> None:
    def fail(_: OddRelay, __: str, ___: tuple[str, ...], reply: Reply) -> Reply:
        return replace(reply, status=502, body=b"") if 10.0 < now() < 43_200.0 else reply

    reported: list[float] = []
    async with OddRelay(Oddity("outage", fail), latency=0.05) as relay:

        def note(event: ChangeEvent) -> None:
            if event.ended:
                reported.append(now())

        async with session(relay, on_change=note) as luma:
            ids = [relay.add(duration=60.0) for _ in range(5_000)]
            assert len(await luma.wait_until_done(ids, timeout=None)) == len(ids)
    first_answer = min(asked.at for asked in relay.log if asked.at > 43_200.0)
    rounds = len(ids) / 100 / 10
    assert max(reported) - first_answer <= 2.0 * rounds + 20.0


class TestHTTP:
    @pytest.mark.parametrize("size", [9_978, 60_000])
    async def test_a_long_header_line_is_no_obstacle(self, size: int) -> None:
        async with FakeRelay() as relay, session(relay) as luma:
            task_id = relay.add()
            row = json.dumps({"id": task_id, "state": "failed"}).encode()
            relay.reply(Reply(body=row, headers={"X-Long": "x" * size}))
            assert (await luma.get(task_id)).is_done

    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "br"])
    async def test_a_plain_body_with_an_encoding_is_read(self, encoding: str) -> None:
        async with FakeRelay() as relay, session(relay) as luma:
            body = b'{"id": "a", "state": "failed"}'
            relay.reply(Reply(body=body, headers={"Content-Encoding": encoding}))
            assert (await luma.get("a")).is_done

    async def test_a_body_that_cannot_be_decoded_aborts_no_wait(self) -> None:
        broken = gzip.compress(b"[]")[:12] + b"\xff" * 12
        async with FakeRelay() as relay, session(relay) as luma:
            task_id = relay.add(duration=20.0)
            relay.reply(Reply(body=broken, headers={"Content-Encoding": "gzip"}))
            assert (await luma.wait_until_done(task_id)).url


class TestSecrets:
    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
            b"rubbish\r\n\r\n",
            b"",
        ],
        ids=["407", "502", "rubbish", "nothing"],
    )
    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize("login", ["proxyuser:pa%24sword", "proxyuser", ":pa%24sword"])
    async def test_a_proxys_login_is_in_no_log_error_or_cause(
        self, answer: bytes, scheme: str, login: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            encoded = head.partition(b"Basic ")[2].partition(b"\r\n")[0]
            writer.write(answer.replace(b"rubbish", b"rubbish " + encoded))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        proxy = f"http://{login}@127.0.0.1:{port}"
        async with (
            server,
            LumaSession(f"{scheme}://relay.example", api_key=SECRET_KEY, proxy=proxy) as luma,
        ):
            with pytest.raises(WaitTimeout) as caught:
                await luma.wait_until_done("a", timeout=3.0)
        said = caplog.text + everything(caught.value)
        encoded_parts = ("cHJveHl1c2Vy", "OnBhJHN3b3Jk")
        for secret in ("proxyuser", "pa%24sword", "pa$sword", *encoded_parts, SECRET_KEY):
            assert secret not in said

    async def test_a_key_that_a_relay_repeats_with_escapes_is_in_no_error(self) -> None:
        async with FakeRelay() as relay:
            async with LumaSession(relay.url, api_key=SECRET_KEY) as luma:
                relay.reply(Reply(status=400, body=b'{"message": "bad \\u0073k-secret-key"}'))
                with pytest.raises(Exception, match="bad ") as caught:
                    await luma.get("a")
        assert SECRET_KEY not in everything(caught.value)

    async def test_the_traceback_of_a_cancelled_call_holds_no_headers(self) -> None:
        async with FakeRelay(latency=60.0) as relay:
            async with LumaSession(relay.url, api_key=SECRET_KEY) as luma:
                task = asyncio.ensure_future(luma.get("a"))
                await asyncio.sleep(1.0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError) as caught:
                    await task
        lines = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
        assert SECRET_KEY not in "".join(lines.format())


def everything(error: BaseException | None) -> str:
    """Return the text of an error, of its causes and contexts."""
    if error is None:
        return ""
    return "".join(traceback.format_exception(error)) + repr(vars(error))
