"""What the hooks of a session receive, and what they cannot break."""

import asyncio
import logging
from collections.abc import Coroutine
from functools import partial
from typing import Any

import pytest

from luma_async import (
    AuthenticationError,
    ChangeEvent,
    GenerationsMissing,
    Limits,
    LumaSession,
    NotFoundError,
    PermissionDeniedError,
    RequestEvent,
    SessionClosed,
    State,
    TransportError,
    WaitAborted,
)
from luma_async.polling.hooks import ChangeNotifier, Hook, InstrumentedRelay, log_notable
from luma_async.scheduling.changes import Change
from luma_async.testing import FakeRelay, Reply
from tests.in_memory_relays import ScriptedRelay

pytestmark = pytest.mark.virtual_time

KEY = "sk-secret-of-a-customer"


class Recorder:
    """Records what both hooks receive, and opens sessions with them."""

    def __init__(self) -> None:
        self.requests: list[RequestEvent] = []
        self.changes: list[ChangeEvent] = []

    def session(self, relay: FakeRelay, **more: Any) -> LumaSession:
        given: dict[str, Any] = {
            "api_key": relay.api_key,
            "on_request": self.requests.append,
            "on_change": self.changes.append,
        }
        return LumaSession(relay.url, **(given | more))

    def states(self, task_id: str) -> list[State | None]:
        return [event.state for event in self.changes if event.id == task_id]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


class TestChanges:
    async def test_each_change_is_reported_once_however_many_wait(
        self, relay: FakeRelay, recorder: Recorder
    ) -> None:
        task_id = relay.add(queued=20.0, duration=60.0)
        async with recorder.session(relay) as luma:
            await asyncio.gather(*(luma.wait_until_done([task_id]) for _ in range(5)))
        assert recorder.states(task_id) == [State.PENDING, State.PROCESSING, State.COMPLETED]
        assert [event.ended for event in recorder.changes] == [False, False, True]
        first, _, last = recorder.changes
        assert first.lag is None
        assert 0.0 < (last.lag or 0.0) <= 10.0
        assert last.generation
        assert last.generation.url

    async def test_an_unknown_id_is_an_end_without_a_state(
        self, relay: FakeRelay, recorder: Recorder
    ) -> None:
        async with recorder.session(relay, missing_grace=0.0) as luma:
            with pytest.raises(GenerationsMissing):
                await luma.wait_until_done(["nobody"])
        assert recorder.changes == [
            ChangeEvent(id="nobody", state=None, generation=None, ended=True, lag=None)
        ]

    async def test_an_end_is_reported_before_its_waits_continue(
        self, relay: FakeRelay, recorder: Recorder
    ) -> None:
        async with recorder.session(relay) as luma:
            await luma.wait_until_done(task_id := relay.add())
            assert recorder.states(task_id) == [State.COMPLETED]

    async def test_a_direct_call_reports_its_requests_only(
        self, relay: FakeRelay, recorder: Recorder
    ) -> None:
        ids = [relay.add(), relay.add()]
        async with recorder.session(relay) as luma:
            await luma.get(ids[0])
            await luma.get_many(ids)
            await luma.wait_until_done(ids, timeout=0)
        assert [(event.call, event.ids) for event in recorder.requests] == [
            ("get", 1),
            ("get_many", 2),
            ("get_many", 2),
        ]
        assert recorder.changes == []


class TestRequests:
    async def test_there_is_an_event_for_each_request(self, recorder: Recorder) -> None:
        async with FakeRelay(latency=0.25) as relay, recorder.session(relay) as luma:
            await luma.wait_until_done([relay.add(duration=20.0) for _ in range(150)])
            assert len(recorder.requests) == luma.stats.requests == relay.requests
            assert sum(event.ids for event in recorder.requests) == luma.stats.ids_asked
        assert {(event.error, event.cancelled) for event in recorder.requests} == {(None, False)}
        assert {round(event.seconds, 3) for event in recorder.requests} == {0.25}

    async def test_a_rejected_key_is_reported_with_its_error(
        self, relay: FakeRelay, recorder: Recorder
    ) -> None:
        refused = Reply(status=401, body=f'{{"message": "bad key {KEY}"}}'.encode())
        relay.reply(refused, refused)
        async with recorder.session(relay, api_key=KEY) as luma:
            with pytest.raises(WaitAborted):
                await luma.wait_until_done(["a"])
        event, _ = recorder.requests
        assert isinstance(event.error, AuthenticationError)
        assert (event.error.status, event.error.message) == (401, "bad key [api_key]")
        assert KEY not in repr(event) + repr(vars(event.error))

    async def test_an_unknown_id_is_an_error_of_the_request(
        self, relay: FakeRelay, recorder: Recorder
    ) -> None:
        relay.reply(Reply(status=404, body=b'{"code": "task_not_exist"}'))
        async with recorder.session(relay) as luma:
            with pytest.raises(NotFoundError):
                await luma.get("nobody")
        (event,) = recorder.requests
        assert isinstance(event.error, NotFoundError)
        assert event.error.__traceback__ is None, "its frames hold the request, and the key"

    async def test_a_request_without_a_watcher_is_reported_as_cancelled(
        self, recorder: Recorder
    ) -> None:
        async with FakeRelay(latency=9.0) as relay, recorder.session(relay) as luma:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.0):
                    await luma.wait_until_done([relay.add()])
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.0):
                    await luma.get(relay.add())
        assert [(event.cancelled, event.error) for event in recorder.requests] == [(True, None)] * 2
        assert [round(event.seconds, 3) for event in recorder.requests] == [2.0, 2.0]

    async def test_a_request_in_flight_when_the_session_closes_is_reported_before_it_is_closed(
        self, recorder: Recorder
    ) -> None:
        async with FakeRelay(latency=9.0) as relay:
            async with recorder.session(relay) as luma:
                wait = asyncio.ensure_future(luma.wait_until_done(relay.add()))
                direct_call = asyncio.ensure_future(luma.get(relay.add()))
                await asyncio.sleep(1.0)
            for left in await asyncio.gather(wait, direct_call, return_exceptions=True):
                assert isinstance(left, WaitAborted | SessionClosed)
        assert [event.cancelled for event in recorder.requests] == [True, True]

    async def test_an_unexpected_error_is_reported_as_a_transport_error(
        self, recorder: Recorder
    ) -> None:
        def fault(_: str) -> State:
            raise ZeroDivisionError("a fault")

        relay = InstrumentedRelay(
            ScriptedRelay(fault), Hook("on_request", recorder.requests.append)
        )
        with pytest.raises(ZeroDivisionError):
            await relay.get("a")
        assert str(recorder.requests[0].error) == "ZeroDivisionError: a fault"
        assert isinstance(recorder.requests[0].error, TransportError)

    def test_without_a_hook_nothing_stands_before_the_transport(self) -> None:
        luma = LumaSession("http://127.0.0.1:1", api_key=KEY)
        assert luma._relay is luma._transport  # pyright: ignore[reportPrivateUsage]


class TestWhatHooksDo:
    async def test_a_hook_that_raises_cancelled_error_loses_no_result(
        self, relay: FakeRelay, recorder: Recorder
    ) -> None:
        def cancelled(_: object) -> None:
            raise asyncio.CancelledError

        async with recorder.session(relay, on_request=cancelled, on_change=cancelled) as luma:
            assert (await luma.wait_until_done(relay.add())).is_done

    @pytest.mark.parametrize("name", ["on_request", "on_change"])
    async def test_a_hook_that_raises_is_logged_once_and_has_no_other_effect(
        self, name: str, relay: FakeRelay, recorder: Recorder, caplog: pytest.LogCaptureFixture
    ) -> None:
        received: list[object] = []

        def hook(event: object) -> None:
            received.append(event)
            raise ZeroDivisionError("a fault of the user's")

        ids = [relay.add(queued=10.0, duration=30.0) for _ in range(3)]
        async with recorder.session(relay, **{name: hook}) as luma:
            assert len(await luma.wait_until_done(ids)) == 3
        assert len(received) > 3
        (record,) = (one for one in caplog.records if one.levelno == logging.ERROR)
        assert record.getMessage().startswith(f"{name} failed")
        assert "ZeroDivisionError: a fault of the user's" in caplog.text

    async def test_a_coroutine_that_a_hook_returns_is_closed_and_logged(
        self, relay: FakeRelay, recorder: Recorder, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with recorder.session(relay, on_request=Waits()) as luma:
            await luma.wait_until_done([relay.add()])
        assert "give a plain function" in caplog.text

    @pytest.mark.parametrize("name", ["on_request", "on_change"])
    async def test_a_hook_may_close_the_session(
        self, name: str, relay: FakeRelay, recorder: Recorder
    ) -> None:
        tasks: list[asyncio.Task[None]] = []

        def hook(_: object) -> None:
            tasks.append(asyncio.ensure_future(luma.close()))

        luma = recorder.session(relay, **{name: hook})
        async with luma:
            with pytest.raises(WaitAborted, match="closed"):
                await luma.wait_until_done([relay.add(duration=60.0) for _ in range(3)])
            await asyncio.gather(*tasks)

    @pytest.mark.parametrize("name", ["on_request", "on_change"])
    async def test_a_hook_may_begin_to_wait_and_leave_a_wait(
        self, name: str, relay: FakeRelay, recorder: Recorder
    ) -> None:
        later = [relay.add(duration=40.0) for _ in range(4)]
        dropped, *others = [relay.add(duration=30.0) for _ in range(4)]

        def hook(_: object) -> None:
            following.drop([dropped])
            if later:
                following.add([later.pop()])

        async with recorder.session(relay, limits=Limits(max_batch=2), **{name: hook}) as luma:
            following = luma.follow()
            following.add([dropped, *others])
            wanted = {*others, *later}
            while wanted:
                wanted.remove((await anext(following)).id)
            assert len(following) == luma.stats.open == 0

    @pytest.mark.parametrize("name", ["on_request", "on_change"])
    def test_a_keyboard_interrupt_in_a_hook_is_not_caught(self, name: str) -> None:
        def hook(_: object) -> None:
            raise KeyboardInterrupt

        async def main() -> None:
            async with FakeRelay() as relay, Recorder().session(relay, **{name: hook}) as luma:
                await luma.wait_until_done([relay.add()])

        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())


async def waits(_: object) -> None: ...


class Waits:
    """Can be called, and has to be awaited."""

    def __call__(self, event: object) -> Coroutine[Any, Any, None]:
        return waits(event)


class AsyncCall:
    """Can be called, and has to be awaited, as its definition says."""

    async def __call__(self, event: object) -> None: ...


class TestWhatIsNoHook:
    @pytest.mark.parametrize("name", ["on_request", "on_change"])
    @pytest.mark.parametrize("hook", [waits, partial(waits), AsyncCall(), "print", 7])
    def test_it_is_refused_with_the_remedy(self, name: str, hook: Any) -> None:
        with pytest.raises(TypeError, match=rf"^{name} is .*; give a plain function;.*as a task$"):
            LumaSession("http://127.0.0.1:1", api_key=KEY, **{name: hook})

    def test_an_object_that_can_be_called_is_one(self) -> None:
        LumaSession("http://127.0.0.1:1", api_key=KEY, on_change=Waits())


def change(task_id: str = "a", **more: Any) -> Change[Any]:
    return Change(task_id=task_id, row=None, **more)


FORBIDDEN = change("bad\nid", forbidden=True, error=PermissionDeniedError(403, message="no\nway"))


class TestNotifier:
    def test_an_id_that_the_key_may_not_see_is_no_change_of_state(
        self, recorder: Recorder, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "luma_async")
        notifier = ChangeNotifier(Hook("on_change", recorder.changes.append))
        notifier.notify([FORBIDDEN, change(state=State.PENDING), FORBIDDEN, change(ended=True)])
        assert [(event.id, event.state, event.ended) for event in recorder.changes] == [
            ("a", State.PENDING, False),
            ("a", None, True),
        ]
        assert caplog.messages == ["a: pending", "a: missing"]

    def test_without_a_hook_changes_are_logged_only(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "luma_async")
        ChangeNotifier(None).notify([change(state=State.PENDING), change(state=State.FAILED)])
        assert caplog.messages == ["a: pending", "a: failed"]

    def test_a_forbidden_id_is_logged_in_one_line_with_what_the_relay_said(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        log_notable(FORBIDDEN)
        assert caplog.messages == ["bad id: status 403: no way; other ids are answered"]

    @pytest.mark.parametrize("ended", [False, True])
    def test_an_unknown_state_is_logged_when_it_counts_as_completed(
        self, ended: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        log_notable(change(state=State.COMPLETED, ended=ended))
        said = "a: its state is unknown, but it has a link to a video; it counts as completed"
        assert caplog.messages == [said] * ended
