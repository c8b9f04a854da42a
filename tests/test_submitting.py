"""create, extend and generate with a relay: what is sent again, what never, and what is raised."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

from luma_async import (
    AuthenticationError,
    BadRequestError,
    Every,
    Limits,
    LumaError,
    LumaSession,
    NotFoundError,
    QuotaError,
    RateLimitedError,
    RelayError,
    RequestEvent,
    RequestTimeout,
    SessionClosed,
    State,
    SubmitUnknown,
    TransportError,
    WaitTimeout,
)
from luma_async.polling.direct import DirectClient
from luma_async.polling.poller import Poller
from luma_async.polling.submit_calls import submitter_of
from luma_async.polling.submitting import SendHooks, Submitter
from luma_async.protocol.submissions import Submission, Submitted
from luma_async.scheduling.changes import Grace
from luma_async.testing import FakeRelay, Reply, SubmitFault, SubmitShape
from luma_async.testing.submit_faults import SUBMIT_SHAPES
from tests.fake_answers import generation
from tests.in_memory_relays import ScriptedRelay

pytestmark = pytest.mark.virtual_time

SECRET = "https://cdn.example/a.png?X-Signature=5ecre7"


def session(relay: FakeRelay, **more: Any) -> LumaSession:
    return LumaSession(relay.url, api_key=relay.api_key, **more)


class TestAnswers:
    @pytest.mark.parametrize("envelope", ["bare", "wrapped"])
    @pytest.mark.parametrize("shape", SUBMIT_SHAPES)
    async def test_a_task_is_made_and_returned_in_each_shape(
        self, shape: SubmitShape, envelope: Any
    ) -> None:
        async with (
            FakeRelay(submit_shape=shape, envelope=envelope, durations=(9, 9)) as relay,
            session(relay) as luma,
        ):
            task = await luma.create("a cat", aspect_ratio="9:16")
            assert (task.state, relay.created) == (State.PENDING, [task.id])
            made = relay.tasks[task.id]
            assert (made.prompt, made.aspect_ratio) == ("a cat", "9:16")
            assert (await luma.wait_until_done(task.id)).state is State.COMPLETED

    async def test_an_extension_is_a_new_task(self, relay: FakeRelay, luma: LumaSession) -> None:
        first = await luma.create("a cat")
        second = await luma.extend(first.id, "it dances", loop=True)
        assert relay.created == [first.id, second.id]
        record = relay.log[-1]
        assert record.path == f"/luma/generations/{first.id}/extend"
        assert record.ids == (first.id, second.id)

    async def test_the_task_to_extend_has_to_be_at_the_relay(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        with pytest.raises((BadRequestError, NotFoundError), match="task_origin_not_exist"):
            await luma.extend("a", "it dances")
        assert relay.requests == 1

    async def test_generate_creates_a_task_and_waits_for_it(self) -> None:
        async with FakeRelay(durations=(90, 90)) as relay, session(relay) as luma:
            assert (await luma.generate("a cat")).state is State.COMPLETED
            assert len(relay.created) == 1

    async def test_an_invalid_argument_sends_nothing(
        self, relay: FakeRelay, luma: LumaSession
    ) -> None:
        with pytest.raises(ValueError, match="user_prompt is empty"):
            await luma.create(" ")
        with pytest.raises(ValueError, match="timeout"):
            await luma.generate("a cat", timeout=-1)
        with pytest.raises(ValueError, match="a task id is empty"):
            await luma.extend("", "a cat")
        with pytest.raises(ValueError, match="submit_timeout"):
            session(relay, submit_timeout=0)
        assert relay.requests == 0

    async def test_a_session_that_is_not_open_submits_nothing(self, relay: FakeRelay) -> None:
        luma = session(relay)
        with pytest.raises(RuntimeError, match="not entered"):
            await luma.create("a cat")
        async with luma:
            pass
        with pytest.raises(SessionClosed):
            await luma.create("a cat")

    async def test_hooks_and_stats_count_submissions(self, relay: FakeRelay) -> None:
        events: list[RequestEvent] = []
        async with session(relay, on_request=events.append) as luma:
            task = await luma.create("a cat")
            await luma.extend(task.id, "it dances")
            assert (luma.stats.requests, luma.stats.ids_asked) == (2, 1)
        assert [(event.call, event.ids, event.error) for event in events] == [
            ("create", 0, None),
            ("extend", 1, None),
        ]


class TestAtMostOnce:
    @pytest.mark.parametrize(
        "fault",
        [
            "lost_before",
            "lost_after",
            "cut_after",
            "silent_after",
            "gateway_timeout_after",
            "insert_failed_after",
        ],
    )
    async def test_an_answer_that_is_lost_is_unknown_and_nothing_is_sent_again(
        self, fault: SubmitFault, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with FakeRelay(submit_faults={fault: 1.0}) as relay, session(relay) as luma:
            with pytest.raises(SubmitUnknown) as caught:
                await luma.create(f"a cat like {SECRET}", image_url=SECRET)
            await asyncio.sleep(600)
            assert relay.requests == 1
            assert len(relay.created) == (fault != "lost_before")
        error = caught.value
        assert error.user_prompt == f"a cat like {SECRET}"
        assert error.sent_at.tzinfo is not None
        assert isinstance(error.__cause__, LumaError)
        for text in (str(error), caplog.text):
            assert "'a cat like https://cdn.example/a.png?…' was submitted at" in text
            assert "a task may run and be paid for" in text
            assert "5ecre7" not in text
            assert relay.api_key not in text

    @pytest.mark.parametrize("fault", ["saturated", "no_channel"])
    async def test_what_the_relay_did_not_take_is_sent_again_until_it_is_taken(
        self, fault: SubmitFault
    ) -> None:
        async with FakeRelay(submit_faults={fault: 1.0}) as relay, session(relay) as luma:
            submitted = asyncio.create_task(luma.create("a cat"))
            await asyncio.sleep(60)
            assert relay.requests > 3
            assert relay.created == []
            relay.submit_faults = {}
            assert [(await submitted).id] == relay.created

    @pytest.mark.parametrize("kind", [RateLimitedError, RelayError])
    async def test_what_is_never_taken_is_raised_after_submit_timeout(
        self, kind: type[LumaError]
    ) -> None:
        fault: SubmitFault = "saturated" if kind is RateLimitedError else "no_channel"
        async with (
            FakeRelay(submit_faults={fault: 1.0}) as relay,
            session(relay, submit_timeout=30.0) as luma,
        ):
            began = asyncio.get_running_loop().time()
            with pytest.raises(kind):
                await luma.create("a cat")
            assert 1.0 < asyncio.get_running_loop().time() - began <= 30.0
            assert relay.requests > 2

    @pytest.mark.parametrize(
        ("fault", "kind", "words"),
        [
            ("quota", QuotaError, "该令牌额度已用尽"),
            ("moderated", BadRequestError, "Advanced moderation failed"),
            ("double_document", BadRequestError, "bad request"),
        ],
    )
    async def test_a_refusal_is_raised_with_the_words_of_the_relay(
        self, fault: SubmitFault, kind: type[LumaError], words: str
    ) -> None:
        async with FakeRelay(submit_faults={fault: 1.0}) as relay, session(relay) as luma:
            with pytest.raises(kind, match=words):
                await luma.create("a cat")
            assert relay.requests == 1

    async def test_each_refusal_is_followed_by_a_short_pause(self, relay: FakeRelay) -> None:
        relay.reply(*[Reply(400, body=b'{"message": "no"}')] * 20, on="submit")
        async with session(relay, limits=Limits(max_rate=1000.0)) as luma:
            for _ in range(20):
                with pytest.raises(BadRequestError):
                    await luma.create("a cat")
            assert luma.stats.errors == 20
        took = relay.log[-1].at - relay.log[0].at
        assert 1.0 < took < 20 * 0.5, "a random part of half a second each"

    async def test_a_wrong_key_is_an_authentication_error(self, relay: FakeRelay) -> None:
        async with LumaSession(relay.url, api_key="sk-of-another") as luma:
            with pytest.raises(AuthenticationError):
                await luma.create("a cat")

    async def test_submissions_with_a_rejected_key_keep_a_growing_distance(
        self, relay: FakeRelay
    ) -> None:
        async with LumaSession(relay.url, api_key="sk-of-another") as luma:
            for _ in range(10):
                with pytest.raises(AuthenticationError):
                    await luma.create("a cat")
            assert luma.stats.errors == 10
        times = [one.at for one in relay.log]
        assert times[1] - times[0] < 0.3, "one rejection may be about one task"
        assert times[-1] - times[0] > 5.0

    async def test_a_connection_that_cannot_be_made_is_no_unknown_submission(self) -> None:
        async with LumaSession("http://127.0.0.1:1", api_key="k", submit_timeout=9.0) as luma:
            with pytest.raises(TransportError, match="Cannot connect"):
                await luma.create("a cat")
            assert luma.stats.requests > 2

    async def test_no_answer_within_submit_timeout_is_unknown(self) -> None:
        async with (
            FakeRelay(latency=50) as relay,
            session(relay, request_timeout=5.0, submit_timeout=20.0) as luma,
        ):
            with pytest.raises(SubmitUnknown, match="no answer within 20 s"):
                await luma.create("a cat")
            assert relay.requests == 1

    async def test_a_slow_answer_within_submit_timeout_is_read(self) -> None:
        async with FakeRelay(latency=100) as relay, session(relay) as luma:
            assert (await luma.create("a cat")).id in relay.tasks


class TestOneBudget:
    async def test_submissions_obey_the_rate_limit_of_the_session(self, relay: FakeRelay) -> None:
        async with session(relay, limits=Limits(max_rate=5.0, max_in_flight=2)) as luma:
            async with anyio.create_task_group() as group:
                for number in range(20):
                    group.start_soon(luma.create, f"cat {number}")
        assert relay.busiest_second() <= 5
        assert len(set(relay.created)) == 20

    async def test_a_retry_after_stops_polls_and_submissions(self, relay: FakeRelay) -> None:
        relay.reply(Reply(429, headers={"Retry-After": "40"}), on="submit")
        async with session(relay) as luma:
            wait = asyncio.create_task(luma.wait_until_done(relay.add(duration=1)))
            await luma.create("a cat")
            await wait
        first, second = (one.at for one in relay.log if one.method == "POST")
        assert second - first >= 40
        assert not [one for one in relay.log if first < one.at < first + 40]

    async def test_a_submission_that_was_not_taken_is_sent_again_before_later_ones(
        self, relay: FakeRelay
    ) -> None:
        relay.reply(Reply(429), on="submit")
        async with session(relay, limits=Limits(max_rate=1.0)) as luma:
            async with anyio.create_task_group() as group:
                for number in range(5):
                    group.start_soon(luma.create, f"cat {number}")
        prompts = [relay.tasks[task_id].prompt for task_id in relay.created]
        assert prompts == [f"cat {number}" for number in range(5)]

    async def test_a_retry_after_that_is_too_long_is_raised(self, relay: FakeRelay) -> None:
        relay.reply(Reply(429, headers={"Retry-After": "4000"}), on="submit")
        async with session(relay) as luma:
            for _ in range(2):
                with pytest.raises(RateLimitedError):
                    await luma.create("a cat")
        assert relay.requests == 1


class TestCancellation:
    async def test_a_submission_that_was_not_sent_is_cancelled_without_a_trace(
        self, relay: FakeRelay, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with session(relay, limits=Limits(max_rate=0.1)) as luma:
            await luma.create("first")
            second = asyncio.create_task(luma.create("second"))
            await asyncio.sleep(1)
            second.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await second
            assert not hasattr(caught.value, "__notes__")
            await luma.create("third")
        assert [relay.tasks[task_id].prompt for task_id in relay.created] == ["first", "third"]
        assert not caplog.records

    async def test_a_submission_that_is_cancelled_in_flight_is_noted_and_logged(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with FakeRelay(latency=5) as relay, session(relay) as luma:
            task = asyncio.create_task(luma.create("a cat"))
            await asyncio.sleep(1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as caught:
                await task
            assert len(relay.created) == 1
        (note,) = caught.value.__notes__
        assert "'a cat' was submitted at" in note
        assert note in caplog.text

    async def test_closing_the_session_makes_a_submission_in_flight_unknown(self) -> None:
        async with FakeRelay(latency=5) as relay:
            async with session(relay) as luma:
                task = asyncio.create_task(luma.create("a cat"))
                await asyncio.sleep(1)
            with pytest.raises(SubmitUnknown) as caught:
                await task
            assert isinstance(caught.value.__cause__, SessionClosed)

    @pytest.mark.parametrize("leave", ["cancel", "timeout", "deadline"])
    async def test_the_id_of_a_generation_that_is_left_is_in_the_notes_and_in_the_log(
        self, leave: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with FakeRelay(durations=(90, 90)) as relay, session(relay) as luma:
            timeout = 9.0 if leave == "timeout" else None
            task = asyncio.create_task(luma.generate("a cat", timeout=timeout))
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(task), 9.5)
            if leave != "timeout":
                task.cancel()
            with pytest.raises((WaitTimeout, asyncio.CancelledError)) as caught:
                await task
            (task_id,) = relay.created
            assert task_id in caught.value.__notes__[0]
            assert task_id in caplog.text
            assert (await luma.wait_until_done(task_id)).is_done


async def test_a_timeout_of_a_submission_is_refused_with_the_remedy(
    relay: FakeRelay, luma: LumaSession
) -> None:
    for call in (luma.create("a cat", timeout=3.0), luma.extend("a", "a cat", timeout=3.0)):
        with pytest.raises(ValueError, match="give submit_timeout to LumaSession$"):
            await call
    assert not relay.log
    assert (await luma.create("a cat", timeout=None)).id


async def test_nothing_is_sent_if_what_comes_before_fails(
    relay: FakeRelay, luma: LumaSession
) -> None:
    class FullDisk(SendHooks):
        async def before_send(self) -> None:
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        await submitter_of(luma).submit(Submission(user_prompt="a cat"), FullDisk())
    assert relay.requests == 0
    assert luma.stats.in_flight == 0


async def test_hooks_are_called_around_each_request(relay: FakeRelay, luma: LumaSession) -> None:
    calls: list[tuple[str, int]] = []

    class Recorder(SendHooks):
        async def before_send(self) -> None:
            calls.append(("before", relay.requests))

        async def not_taken(self) -> None:
            calls.append(("not taken", relay.requests))

    relay.reply(Reply(429), on="submit")
    await submitter_of(luma).submit(Submission(user_prompt="a cat"), Recorder())
    assert calls == [("before", 0), ("not taken", 1), ("before", 1)]


async def test_an_unexpected_error_after_the_first_byte_is_unknown(
    relay: FakeRelay, luma: LumaSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object) -> Callable[..., object]:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr("luma_async.transport.decode_submission", fault)
    with pytest.raises(SubmitUnknown, match="a fault of ours"):
        await luma.create("a cat")
    assert relay.requests == 1


async def test_a_generation_that_completes_logs_no_warning(
    luma: LumaSession, caplog: pytest.LogCaptureFixture
) -> None:
    await luma.generate("a cat")
    assert not caplog.records


class QuickRelay(ScriptedRelay):
    """Answers each submission at once: with the next error of a script, if one is left.

    `submitted` has the times. A GET is answered after `latency` seconds.
    """

    def __init__(self, *errors: LumaError | None, latency: float = 0.1) -> None:
        super().__init__(lambda _: State.COMPLETED, latency)
        self.errors = [*errors]
        self.submitted: list[float] = []

    async def submit(self, submission: Submission, on_write: Callable[[], None]) -> Submitted:
        on_write()
        self.submitted.append(asyncio.get_running_loop().time())
        if self.errors and (error := self.errors.pop(0)):
            raise error
        return Submitted(generation("new", State.PENDING))

    def poller(self, max_rate: float = 10.0) -> Poller:
        limits = Limits(max_rate=max_rate)
        return Poller(self, Every(5.0), limits, Grace(), request_timeout=30.0, roll=lambda: 0.5)


async def submit(poller: Poller, relay: QuickRelay) -> LumaError | None:
    """Submit a task with a timeout of five seconds; return the error, if it is raised."""
    try:
        await Submitter(poller, relay, 5.0).submit(Submission(user_prompt="a cat"))
    except LumaError as error:
        return error
    return None


class TestLines:
    async def test_a_first_request_waits_in_line_for_longer_than_submit_timeout(self) -> None:
        relay = QuickRelay()
        poller = relay.poller(max_rate=0.1)
        assert await asyncio.gather(*(submit(poller, relay) for _ in range(4))) == [None] * 4
        assert relay.submitted == pytest.approx([0.0, 10.5, 21.0, 31.5], abs=0.1)

    async def test_a_retry_that_the_rate_limit_allows_too_late_raises_what_the_relay_said(
        self,
    ) -> None:
        throttled = RateLimitedError(429)
        relay = QuickRelay(throttled, latency=12.0)
        poller = relay.poller(max_rate=0.1)
        get = asyncio.ensure_future(DirectClient(poller, relay).get("a"))
        await asyncio.sleep(1.0)
        assert await submit(poller, relay) is throttled
        assert (await get).id == "a", "it was answered meanwhile, so there is no cool-down"
        assert len(relay.submitted) == 1
        assert asyncio.get_running_loop().time() == pytest.approx(relay.submitted[0] + 5.0)

    async def test_a_connection_that_fails_at_the_end_of_submit_timeout_is_not_tried_again(
        self,
    ) -> None:
        class Unreachable(QuickRelay):
            async def submit(
                self, submission: Submission, on_write: Callable[[], None]
            ) -> Submitted:
                self.submitted.append(asyncio.get_running_loop().time())
                await asyncio.sleep(5.0)
                raise RequestTimeout("no connection within 5 s")

        relay = Unreachable()
        poller = relay.poller()
        submitting = asyncio.ensure_future(submit(poller, relay))
        await asyncio.sleep(1.0)
        poller.throttle.back_off(RelayError(503), 1.0, 1.0)
        assert isinstance(await submitting, RequestTimeout)
        assert relay.submitted == [0.0], "it counts as the same failure, so there is no cool-down"


class TestRecords:
    @pytest.mark.parametrize(
        ("script", "holds_back"), [("x", False), ("xx", True), ("x.x", False), ("x.xx", True)]
    )
    async def test_two_rejections_of_the_key_in_a_row_hold_back_all_requests(
        self, script: str, holds_back: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        relay = QuickRelay(*(AuthenticationError(401) if one == "x" else None for one in script))
        poller = relay.poller()
        errors = [await submit(poller, relay) for _ in script]
        assert [type(one) is AuthenticationError for one in errors] == [
            one == "x" for one in script
        ]
        assert (poller.snapshot().quiet_for > 0.0) == holds_back
        assert poller.snapshot().errors == script.count("x")
        assert caplog.messages == [
            "a request failed: status 401; check the API key and the account"
        ]

    @pytest.mark.parametrize(
        ("error", "throttled"), [(RateLimitedError(429), 1), (RelayError(500), 0)]
    )
    async def test_a_request_that_failed_is_counted_and_logged_whatever_became_of_the_task(
        self, error: LumaError, throttled: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        relay = QuickRelay(error)
        poller = relay.poller()
        raised = await submit(poller, relay)
        assert isinstance(raised, SubmitUnknown) == (not throttled)
        assert (poller.snapshot().errors, poller.snapshot().throttled) == (1, throttled)
        assert caplog.messages[0].startswith(f"a request failed: {error}; retrying")
