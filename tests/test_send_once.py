"""What is sent once, and which errors prove that nothing was sent."""

import json
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from luma_async import LumaSession, SessionClosed, SetupError, State, TransportError
from luma_async.errors import LumaError
from luma_async.send_once import is_before_sending, is_of_setup
from luma_async.testing import FakeRelay

KEY: Any = ConnectionKey("relay.example", 443, True, True, None, None, None)


def unconnected() -> TransportError:
    error = TransportError("Cannot connect")
    error.never_connected = True
    return error


@pytest.mark.parametrize(
    ("error", "is_setup"),
    [
        (ValueError("Cannot combine AUTHORIZATION header with auth"), True),
        (TypeError("a middleware that takes no argument"), True),
        (UnicodeEncodeError("ascii", "ä", 0, 1, "a header"), True),
        (RuntimeError("a fault of a middleware"), False),
        (ZeroDivisionError(), False),
        (OSError("Network is unreachable"), False),
        (aiohttp.InvalidURL("http://relay example"), False),
        (aiohttp.ClientConnectorCertificateError(KEY, ValueError("expired")), False),
        (aiohttp.ServerDisconnectedError(), False),
    ],
    ids=repr,
)
def test_only_what_no_second_request_would_change_is_an_error_of_the_set_up(
    error: Exception, is_setup: bool
) -> None:
    assert is_of_setup(error) is is_setup


@pytest.mark.parametrize(
    ("error", "is_before"),
    [
        (SetupError("ValueError"), True),
        (SessionClosed("the session is closed"), True),
        (unconnected(), True),
        (TransportError("ServerDisconnectedError"), False),
        (LumaError("any"), False),
    ],
    ids=repr,
)
def test_only_an_error_before_the_connection_proves_that_nothing_was_sent(
    error: LumaError, is_before: bool
) -> None:
    assert is_before_sending(error) is is_before


@pytest.mark.virtual_time
async def test_a_request_is_repeated_after_a_fault_of_a_middleware(relay: FakeRelay) -> None:
    relay.add("a")
    faults = iter([RuntimeError("the token is being renewed")])

    async def renewing(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        for fault in faults:
            raise fault
        return await handler(request)

    async with (
        aiohttp.ClientSession(middlewares=[renewing]) as http,
        LumaSession(relay.url, api_key=relay.api_key, http=http) as luma,
    ):
        assert (await luma.get("a")).state is State.COMPLETED


async def test_a_middleware_may_read_the_body_of_a_submission(relay: FakeRelay) -> None:
    bodies: list[bytes] = []

    async def signing(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        assert isinstance(request.body, aiohttp.Payload)
        bodies.append(await request.body.as_bytes())
        return await handler(request)

    async with (
        aiohttp.ClientSession(middlewares=[signing]) as http,
        LumaSession(relay.url, api_key=relay.api_key, http=http) as luma,
    ):
        await luma.create("a cat on a café’s chair")
    assert [json.loads(body) for body in bodies] == [{"user_prompt": "a cat on a café’s chair"}]
