"""Direct calls: what is asked in which parts, what they learn, and for what they wait."""

import asyncio
from collections.abc import Callable
from typing import TypeAlias

import pytest

from luma_async import (
    AuthenticationError,
    BadRequestError,
    Every,
    Limits,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    RelayError,
)
from luma_async.polling.direct import DirectClient
from luma_async.polling.poller import Poller
from luma_async.scheduling.changes import Grace
from luma_async.structs import Generation, State
from tests.in_memory_relays import RuledRelay

pytestmark = pytest.mark.virtual_time

Rule: TypeAlias = Callable[[tuple[str, ...], bool], LumaError | None]
EIGHT = tuple("abcdefgh")


class DirectRelay(RuledRelay):
    """A relay with a client; its tasks are completed, and "unknown…" is in no response."""

    def __init__(self, rule: Rule = lambda ids, many: None) -> None:
        super().__init__(
            rule, play=lambda one: None if one.startswith("unknown") else State.COMPLETED
        )
        self.poller = Poller(
            self, Every(5.0), Limits(), Grace(), request_timeout=30.0, roll=lambda: 0.5
        )

    @property
    def ids_sent(self) -> list[tuple[str, ...]]:
        return [ids for _, ids, _ in self.sent]

    async def look(self, task_id: str, tries: int = 3) -> Generation:
        return await DirectClient(self.poller, self, tries).get(task_id)

    async def get_all(self, *ids: str) -> list[str]:
        found: dict[str, Generation] = {}
        await DirectClient(self.poller, self).get_many(ids, found)
        return sorted(found)


def no_route(*, certain: bool = True) -> LumaError:
    error = NoSuchRouteError("a web page")
    error.certain = certain
    return error


async def test_a_success_without_the_task_is_a_status_200_about_an_unknown_task() -> None:
    relay = DirectRelay()
    with pytest.raises(NotFoundError, match="the relay does not know unknown 1") as caught:
        await relay.look("unknown 1")
    assert (caught.value.status, caught.value.about_task) == (200, True)
    assert len(relay.ids_sent) == 1


async def test_by_single_requests_unknown_ids_are_left_out_as_they_are_from_a_batch() -> None:
    relay = DirectRelay(lambda ids, many: no_route() if many else None)
    assert await relay.get_all("a", "unknown 1", "b") == ["a", "b"]


async def test_by_single_requests_a_bare_404_is_raised_because_it_proves_nothing() -> None:
    relay = DirectRelay(lambda ids, many: NotFoundError(404) if ids != ("a",) else None)
    with pytest.raises(NotFoundError):
        await relay.get_all("a", "b")


async def test_a_batch_that_is_answered_shows_that_there_is_a_batch_endpoint() -> None:
    missing = {"a", "e"}
    relay = DirectRelay(lambda ids, many: NotFoundError(404) if many and missing & {*ids} else None)
    for pair in ("ab", "cd", "ef", "gh"):
        assert await relay.get_all(*pair) == [*pair]
    assert [ids for _, ids, many in relay.sent if many] == [
        ("a", "b"),
        ("c", "d"),
        ("e", "f"),
        ("g", "h"),
    ]


@pytest.mark.parametrize("status", [400, 413])
async def test_a_batch_with_one_id_that_is_rejected_does_not_change_the_batch_size(
    status: int,
) -> None:
    relay = DirectRelay(lambda ids, many: BadRequestError(status) if many else None)
    assert await relay.get_all("a") == ["a"]
    assert relay.ids_sent == [("a",), ("a",)]
    assert relay.poller.batch_size == 100


async def test_a_batch_that_is_too_large_halves_the_batch_size_if_its_halves_are_answered() -> None:
    relay = DirectRelay(lambda ids, many: BadRequestError(413) if ids == EIGHT else None)
    assert await relay.get_all(*EIGHT) == [*EIGHT]
    assert relay.poller.batch_size == 4


@pytest.mark.parametrize("half", ["abcd", "efgh"])
@pytest.mark.parametrize("error", [BadRequestError(400), BadRequestError(413)])
async def test_a_batch_with_a_half_that_is_rejected_too_was_not_too_large(
    error: BadRequestError, half: str
) -> None:
    """An id of the half may be the cause; after a 413 the half itself was too large."""
    errors = {EIGHT: BadRequestError(413), tuple(half): error}
    relay = DirectRelay(lambda ids, many: errors.get(ids))
    assert await relay.get_all(*EIGHT) == [*EIGHT]
    assert relay.poller.batch_size == (2 if error.status == 413 else 100)


async def test_a_half_without_an_endpoint_shows_nothing_about_the_batch_size() -> None:
    errors: dict[tuple[str, ...], LumaError] = {
        EIGHT: BadRequestError(413), tuple("efgh"): no_route(),
    }  # fmt: skip
    relay = DirectRelay(lambda ids, many: errors.get(ids))
    assert await relay.get_all(*EIGHT) == [*EIGHT]
    assert relay.poller.batch_size == 1
    await asyncio.sleep(61.0)
    assert relay.poller.batch_size == 100, "the batch endpoint is tried again, as it was before"


async def test_a_half_that_is_polled_singly_shows_nothing_about_the_batch_size() -> None:
    def rule(ids: tuple[str, ...], many: bool) -> LumaError | None:
        if ids == tuple("abcd"):  # another call learns this in the meantime
            relay.poller.endpoints.record_no_batch_route(no_route(), ["z"])
        return BadRequestError(413) if ids == EIGHT else None

    relay = DirectRelay(rule)
    assert await relay.get_all(*EIGHT) == [*EIGHT]
    assert relay.ids_sent[2:] == [("e",), ("f",), ("g",), ("h",)]
    await asyncio.sleep(61.0)
    assert relay.poller.batch_size == 100


async def test_a_first_request_waits_for_a_long_cool_down_and_a_retry_does_not() -> None:
    """The cool-downs have no Retry-After: that of a relay is not waited for either, if long."""

    def rule(ids: tuple[str, ...], many: bool) -> LumaError | None:
        relay.poller.throttle.cool_down_until(asyncio.get_running_loop().time() + 100.0)
        return RelayError(502) if ids == ("b",) else None

    relay = DirectRelay(rule)
    for one, at in (("a", 0.0), ("c", 100.0)):
        await relay.look(one)
        assert relay.times[-1] == pytest.approx(at)
    with pytest.raises(RelayError):
        await relay.look("b")
    assert relay.times[2:] == [pytest.approx(200.0)]
    assert asyncio.get_running_loop().time() == relay.times[2]


@pytest.mark.parametrize(("cooldown", "is_waited_for"), [(0.9, True), (1.1, False)])
async def test_a_request_without_retries_waits_a_second_for_a_cool_down(
    cooldown: float, is_waited_for: bool
) -> None:
    relay = DirectRelay()
    relay.poller.throttle.back_off(RelayError(503), 0.0, 0.0)
    relay.poller.throttle.cool_down_until(cooldown)
    if is_waited_for:
        await relay.look("a", tries=1)
        assert relay.times == [pytest.approx(cooldown)]
    else:
        with pytest.raises(RelayError):
            await relay.look("a", tries=1)
        assert asyncio.get_running_loop().time() == 0.0


@pytest.mark.parametrize(
    ("rejected", "holds_back"),
    [("x", False), ("xx", True), ("xax", False), ("xaxx", True)],
)
async def test_two_rejections_of_the_key_in_a_row_hold_back_all_requests(
    rejected: str, holds_back: bool
) -> None:
    relay = DirectRelay(lambda ids, many: AuthenticationError(401) if ids == ("x",) else None)
    for one in rejected:
        try:
            await relay.look(one)
        except AuthenticationError:
            continue
    assert (relay.poller.snapshot().quiet_for > 0.0) == holds_back


async def test_a_rejection_of_the_key_is_logged_once_with_what_to_check(
    caplog: pytest.LogCaptureFixture,
) -> None:
    relay = DirectRelay(lambda ids, many: AuthenticationError(401, "invalid_api_key"))
    for _ in range(2):
        with pytest.raises(AuthenticationError):
            await relay.look("a")
    assert caplog.messages == [
        "a request failed: status 401: invalid_api_key; check the API key and the account"
    ]
