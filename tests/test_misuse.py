"""Wrong use: refused before anything is sent, with an error that contains the remedy."""

import asyncio
import logging
import os
import re
import signal
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from math import inf, nan
from typing import Any

import aiohttp
import pytest

from luma_async import Every, Limits, LumaError, LumaSession, SessionClosed, WaitAborted
from luma_async.testing import FakeRelay, Reply

KEY = "sk-very-secret-0123456789"
URL = "https://relay.example"


def _call(name: str) -> Callable[[LumaSession, Any], Any]:
    def call(luma: LumaSession, ids: Any) -> Any:
        result = getattr(luma, name)(ids)
        return anext(result) if name in ("as_completed", "watch") else result

    return call


async def _close(luma: LumaSession, _: Any) -> None:
    await luma.close()


NAMES = ["get", "get_many", "wait_until_done", "as_completed", "watch"]
CALLS = [_call(name) for name in NAMES]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUMA_BASE_URL", raising=False)
    monkeypatch.delenv("LUMA_API_KEY", raising=False)


@pytest.mark.parametrize(
    ("ids", "error"),
    [
        ("", ValueError),
        (b"abc", TypeError),
        (7, TypeError),
        (None, TypeError),
        ("\ud800", ValueError),
    ],
)
@pytest.mark.parametrize("call", CALLS, ids=NAMES)
async def test_an_invalid_id_is_refused_before_anything_is_sent(
    relay: FakeRelay, luma: LumaSession, call: Callable[..., Any], ids: object, error: type
) -> None:
    with pytest.raises(error, match=r"; give .*$"):
        await call(luma, ids)
    assert relay.requests == 0


@pytest.mark.parametrize(
    "ids", [["a", ""], ["a", b"b"], ["a", None], ["a", ["b"]], bytearray(b"a")]
)
@pytest.mark.parametrize("call", CALLS[1:], ids=NAMES[1:])
async def test_one_invalid_id_among_valid_ones_is_refused_before_anything_is_sent(
    relay: FakeRelay, luma: LumaSession, call: Callable[..., Any], ids: object
) -> None:
    with pytest.raises((TypeError, ValueError), match=r"; give .*$"):
        await call(luma, ids)
    assert relay.requests == 0


@pytest.mark.parametrize("timeout", [-1, nan, "5", True, -inf])
@pytest.mark.parametrize("call", ["wait_until_done", "as_completed", "watch"])
async def test_an_invalid_timeout_is_refused(luma: LumaSession, call: str, timeout: object) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout"):
        result = getattr(luma, call)("a", timeout=timeout)
        await result


@pytest.mark.parametrize(
    "url", ["relay.example", "ftp://x", "http://", "http://a b", "http://[", ""]
)
def test_an_invalid_base_url_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(ValueError, match=r"(such as https://relay.example|LUMA_BASE_URL)$"):
        LumaSession(url, api_key=KEY)


@pytest.mark.parametrize(
    "url", [f"https://u:{KEY}@relay.example", f"https://relay.example?key={KEY}"]
)
def test_a_base_url_with_a_secret_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="base_url carries") as caught:
        LumaSession(url, api_key=KEY)
    assert KEY not in str(caught.value)


def test_the_error_of_a_missing_key_or_url_has_the_environment_variable() -> None:
    with pytest.raises(ValueError, match="LUMA_API_KEY$"):
        LumaSession(URL)
    with pytest.raises(ValueError, match="LUMA_BASE_URL$"):
        LumaSession(api_key=KEY)


def test_url_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMA_BASE_URL", f"{URL}/pro/")
    monkeypatch.setenv("LUMA_API_KEY", KEY)
    assert repr(LumaSession()) == f"<LumaSession {URL}/pro: not entered>"


@pytest.mark.parametrize("key", [f"{KEY}\n", f"Bearer {KEY}", f"{KEY}é", f"{KEY}\x00"])
def test_a_key_that_is_invalid_in_a_header_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(ValueError, match="remove it$") as caught:
        LumaSession(URL, api_key=key)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_batch": 0},
        {"max_in_flight": -1},
        {"max_rate": 0},
        {"max_batch": 1.5},
        {"max_rate": nan},
    ],
)
def test_limits_must_be_positive(limits: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"give a .*number"):
        Limits(**limits)


@pytest.mark.parametrize("seconds", [0, -5, inf, nan, "5", None, True])
def test_a_pace_must_be_positive_and_finite(seconds: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"give a .*number"):
        Every(seconds)


@pytest.mark.parametrize(
    "options",
    [
        {"pace": 5.0},
        {"pace": Every},
        {"limits": 10},
        {"http": object()},
        {"request_timeout": 0},
        {"request_timeout": "30"},
        {"missing_grace": -1},
        {"link_grace": nan},
        {"proxy": "proxy.example"},
        {"proxy": 8080},
    ],
)
def test_an_option_of_the_wrong_kind_is_refused_with_the_remedy(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="; give "):
        LumaSession(URL, api_key=KEY, **options)


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
async def test_use_before_entering_is_a_runtime_error(call: Callable[..., Any]) -> None:
    luma = LumaSession(URL, api_key=KEY)
    with pytest.raises(RuntimeError, match="async with"):
        await call(luma, "a")


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
async def test_use_after_closing_is_a_runtime_error(
    relay: FakeRelay, call: Callable[..., Any]
) -> None:
    async with LumaSession(relay.url, api_key=KEY) as luma:
        pass
    with pytest.raises(RuntimeError, match="open another one$") as caught:
        await call(luma, "a")
    assert isinstance(caught.value, SessionClosed)
    with pytest.raises(SessionClosed):
        await luma.__aenter__()


async def test_a_reader_that_is_started_after_closing_raises_session_closed(
    relay: FakeRelay,
) -> None:
    async with LumaSession(relay.url, api_key=KEY) as luma:
        reader = luma.watch("a")
    with pytest.raises(SessionClosed):
        await anext(reader)


async def test_a_session_that_was_not_entered_can_be_closed() -> None:
    luma = LumaSession(URL, api_key=KEY)
    await luma.close()
    await luma.close()


async def test_entering_twice_is_a_runtime_error(luma: LumaSession) -> None:
    with pytest.raises(RuntimeError, match="enter it once$"):
        await luma.__aenter__()


def test_use_in_another_loop_is_a_runtime_error() -> None:
    luma = LumaSession(URL, api_key=KEY)
    with asyncio.Runner() as home, asyncio.Runner() as elsewhere:
        home.run(luma.__aenter__())
        for call in CALLS:
            with pytest.raises(RuntimeError, match="open one in each loop$"):
                elsewhere.run(_use(call, luma))
        with pytest.raises(RuntimeError, match="open one in each loop$"):
            elsewhere.run(luma.close())
        home.run(luma.close())


@pytest.mark.parametrize("call", [*CALLS, _close], ids=[*NAMES, "close"])
async def test_use_in_another_thread_is_a_runtime_error(
    luma: LumaSession, call: Callable[..., Any]
) -> None:
    with pytest.raises(RuntimeError, match="asyncio.run_coroutine_threadsafe$"):
        await asyncio.to_thread(asyncio.run, _use(call, luma))


async def test_a_reader_cannot_be_used_in_another_thread(luma: LumaSession) -> None:
    reader = luma.watch("a")
    for step in (reader.__anext__, reader.aclose):
        with pytest.raises(RuntimeError, match="asyncio.run_coroutine_threadsafe$"):
            await asyncio.to_thread(asyncio.run, _awaited(step))


async def test_run_coroutine_threadsafe_works_from_another_thread(
    relay: FakeRelay, luma: LumaSession
) -> None:
    task_id, loop = relay.add(), asyncio.get_running_loop()

    def elsewhere() -> bool:
        return asyncio.run_coroutine_threadsafe(luma.get(task_id), loop).result(10).is_done

    assert await asyncio.to_thread(elsewhere)


@pytest.mark.parametrize("call", [*CALLS, _close], ids=[*NAMES, "close"])
async def test_use_in_a_forked_child_is_a_runtime_error_and_the_parent_continues(
    relay: FakeRelay, call: Callable[..., Any]
) -> None:
    async with LumaSession(relay.url, api_key=relay.api_key, pace=Every(0.05)) as luma:
        wait = asyncio.ensure_future(luma.wait_until_done(relay.add(duration=0.1)))
        await asyncio.sleep(0)
        remedy = await asyncio.to_thread(_in_a_child, partial(_use, call, luma))
        assert remedy == "open one in each process"
        assert (await wait).is_done


async def _use(call: Callable[..., Any], luma: LumaSession) -> None:
    await call(luma, "a")


async def _awaited(step: Callable[[], Awaitable[object]]) -> None:
    await step()


def _in_a_child(use: Callable[[], Coroutine[Any, Any, None]]) -> str:
    """Fork, run the coroutine in a new loop there, and return the remedy of its error."""
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        signal.alarm(10)
        try:
            asyncio.run(use())
        except RuntimeError as error:
            os.write(write_end, str(error).partition("; ")[2].encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        return pipe.read().decode()


async def test_the_key_is_in_no_error_no_repr_and_no_log(
    relay: FakeRelay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    calls: list[Callable[[LumaSession], Awaitable[object]]] = [
        lambda luma: luma.get("a"),
        lambda luma: luma.get_many(["a", "b"]),
        lambda luma: luma.wait_until_done(["a", "b"], timeout=5.0),
    ]
    texts = ""
    for url in (relay.url, "http://127.0.0.1:1"):
        async with LumaSession(url, api_key=KEY) as luma:
            for call in calls:
                with pytest.raises((LumaError, TimeoutError)) as caught:
                    async with asyncio.timeout(0.2):
                        await call(luma)
                texts += "".join(map(repr, causes_of(caught.value)))
            texts += repr(luma) + repr(luma.stats)
    assert KEY not in texts
    assert KEY not in re.sub(r"\s", "", caplog.text)


async def test_the_key_is_removed_from_the_message_of_a_relay() -> None:
    async with FakeRelay() as relay, LumaSession(relay.url, api_key=KEY) as luma:
        relay.reply(Reply(status=401, body=f'{{"message": "bad key {KEY}"}}'.encode()))
        with pytest.raises(Exception, match="bad key") as caught:
            await luma.get("a")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=302, headers={"Location": f"https://x.example/?k={KEY}"}),
        Reply(status=400, headers={"X-Request-Id": f"for {KEY}"}),
        Reply(status=401, body=f'{{"message": "bad key {KEY}"}}'.replace("-", "\\u002d").encode()),
        Reply(status=400, body=f'{{"code": "{KEY}"}}'.encode()),
        Reply(body=f"<html>{KEY}".encode()),
    ],
    ids=["location", "request id", "escaped", "code", "page"],
)
async def test_the_key_is_removed_from_every_part_of_an_error(
    relay: FakeRelay, reply: Reply
) -> None:
    async with LumaSession(relay.url, api_key=KEY) as luma:
        relay.reply(reply)
        with pytest.raises(LumaError) as caught:
            await luma.get("a")
    assert KEY not in repr(caught.value) + repr(vars(caught.value))
    assert "[api_key]" in repr(caught.value)


async def test_a_callers_session_is_used_and_never_closed(relay: FakeRelay) -> None:
    task_id = relay.add()
    headers = {"Authorization": "Bearer wrong", "Accept": "text/html"}
    async with aiohttp.ClientSession(
        "https://elsewhere.example", headers=headers, raise_for_status=True
    ) as http:
        async with LumaSession(relay.url, api_key=relay.api_key, http=http) as luma:
            assert (await luma.get(task_id)).is_done
            assert len(await luma.get_many([task_id, "b"])) == 1
        assert not http.closed


async def test_a_closed_http_session_raises_session_closed_at_once(relay: FakeRelay) -> None:
    async with aiohttp.ClientSession() as http:
        luma = LumaSession(relay.url, api_key=relay.api_key, http=http)
        await luma.__aenter__()
    with pytest.raises(SessionClosed, match="keep it open as long as the LumaSession"):
        await luma.get("a")
    with pytest.raises(WaitAborted, match="keep it open as long as the LumaSession"):
        await luma.wait_until_done("a")
    await luma.close()
    with pytest.raises(SessionClosed):
        await LumaSession(relay.url, api_key=relay.api_key, http=http).__aenter__()


def causes_of(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
