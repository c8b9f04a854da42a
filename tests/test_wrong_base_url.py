"""A base URL that leads to no relay: what is raised, what is logged, and what is no such case."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from luma_async import Every, LumaSession, NoSuchRouteError, State, WaitAborted
from luma_async.protocol.requests import name_base_url
from luma_async.scheduling.route_check import MAX_WITHOUT_ROUTE
from luma_async.testing import FakeRelay
from tests.fake_answers import FakeAnswer
from tests.in_memory_relays import ScriptedRelay
from tests.test_poller import poller_of, wait


def now() -> float:
    return asyncio.get_running_loop().time()


HOST = "https://relay.example"


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("", ""),
        ("/api", ""),
        ("/v1", "/v1"),
        ("/luma", "/luma"),
        ("/luma/v1", "/luma/v1"),
        ("/dream-machine/v1", "/dream-machine/v1"),
        ("/api/v1/luma/generations", "/v1/luma/generations"),
        ("/v1/api", ""),
    ],
)
def test_the_error_names_the_base_url_and_the_part_to_remove(path: str, part: str) -> None:
    error = NoSuchRouteError("status 404: no; check the path of the base URL")
    name_base_url(error, HOST + path)
    assert error.extra_path == part
    if part:
        assert (
            str(error)
            == f"status 404: no; the base URL is {HOST}{path}; remove {part} from its end"
        )
    else:
        assert str(error) == f"status 404: no; check the path of the base URL {HOST}{path}"


@pytest.mark.virtual_time
@pytest.mark.parametrize("path", ["/v1", "/luma", "/luma/generations"])
@pytest.mark.parametrize("count", [1, 250])
async def test_a_wait_at_a_base_url_with_a_usual_mistake_is_aborted_at_once(
    relay: FakeRelay, count: int, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "luma_async")
    ids = [relay.add() for _ in range(count)]
    base_url = f"{relay.url}{path}"
    async with LumaSession(base_url, api_key=relay.api_key) as luma:
        begun = now()
        with pytest.raises(WaitAborted) as caught:
            await luma.wait_until_done(ids, timeout=None)
        assert now() - begun < 10.0
        assert str(caught.value.cause).endswith(f"remove {path} from its end")
        assert caplog.records[-1].getMessage().endswith("check the base URL")


@pytest.mark.virtual_time
@pytest.mark.parametrize("count", [1, 3, 250])
async def test_a_wait_at_a_wrong_base_url_is_aborted_after_a_minute(
    relay: FakeRelay, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "luma_async")
    ids = [relay.add() for _ in range(count)]
    base_url = f"{relay.url}/pro"
    async with LumaSession(base_url, api_key=relay.api_key, pace=Every(5.0)) as luma:
        begun = now()
        with pytest.raises(WaitAborted) as caught:
            await luma.wait_until_done(ids, timeout=None)
        assert MAX_WITHOUT_ROUTE <= now() - begun < MAX_WITHOUT_ROUTE + 30.0
        assert isinstance(caught.value.cause, NoSuchRouteError)
        remedy = f"check the path of the base URL {base_url}"
        assert str(caught.value.cause).endswith(remedy)
        assert list(caught.value.pending) == ids
        first, last = (record.getMessage() for record in caplog.records)
        assert first.startswith("no endpoint has answered yet, and waits end after 60 s of this: ")
        assert first.endswith(remedy)
        assert last.endswith("all waits end with WaitAborted; check the base URL")
        with pytest.raises(WaitAborted):
            await luma.wait_until_done(ids[0], timeout=None)
        assert now() - begun > 2 * MAX_WITHOUT_ROUTE, "each wait has its minute"


class Redeployed(ScriptedRelay):
    """Answers once; then it has no route for ten minutes."""

    async def get(self, task_id: str) -> FakeAnswer:
        return await self.get_many([task_id])

    async def get_many(self, ids: Sequence[str]) -> FakeAnswer:
        answer = await self._ask(ids)
        if len(self.asked) > 1 and now() < 600.0:
            raise NoSuchRouteError("status 404 with a web page")
        return answer


@pytest.mark.virtual_time
async def test_a_relay_that_was_there_before_may_have_no_route_for_longer() -> None:
    relay = Redeployed(lambda _: State.COMPLETED if now() > 300.0 else State.PROCESSING)
    poller = poller_of(relay)
    assert await wait(poller, relay, "a", "b") == ["a", "b"]
    assert now() >= 600.0
    await poller.close()
