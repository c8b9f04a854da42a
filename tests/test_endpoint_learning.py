"""What a session learns of the two endpoints, and which warnings it logs, each once."""

import asyncio

import pytest

from luma_async import Every, Limits, LumaError, NoSuchRouteError, NotFoundError, RelayError, State
from luma_async.errors import RequestTimeout
from luma_async.polling.endpoint_learning import EndpointLearner
from luma_async.polling.poller import Poller
from luma_async.scheduling.changes import Grace
from tests.in_memory_relays import ScriptedRelay

pytestmark = pytest.mark.virtual_time

NO_BATCH = "the relay has no batch endpoint; polling one id per request for now"
NO_SINGLE = (
    "the relay has no single endpoint; an id that batch responses leave out counts as missing "
    "after 10 times missing_grace"
)
USELESS = (
    "batch responses leave out tasks that the single endpoint knows; "
    "polling one id per request for now"
)
DONE, RUNNING = State.COMPLETED, State.PROCESSING


@pytest.fixture
async def poller() -> Poller:
    relay = ScriptedRelay(lambda _: State.PROCESSING)
    return Poller(relay, Every(5.0), Limits(), Grace(), request_timeout=30.0)


@pytest.fixture
async def learner(poller: Poller) -> EndpointLearner:
    return poller.endpoints


def no_route(*, certain: bool = True, extra_path: str = "") -> NoSuchRouteError:
    error = NoSuchRouteError("a web page")
    error.certain = certain
    error.extra_path = extra_path
    return error


async def test_each_fact_is_logged_once_as_soon_as_the_relay_has_answered_at_all(
    learner: EndpointLearner, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        assert learner.record_no_batch_route(no_route(), ["a"])
    assert caplog.messages == [], "the base URL may be wrong"
    for _ in range(2):
        learner.record_response()
        assert caplog.messages == [NO_BATCH]
    await asyncio.sleep(3600.0)
    for _ in range(2):
        learner.record_no_single_route()
        assert caplog.messages == [NO_BATCH, NO_SINGLE]


@pytest.mark.parametrize(
    ("states", "is_logged_again"),
    [
        ({"a": DONE, "b": RUNNING}, True),
        ({"a": RUNNING}, True),
        ({"a": DONE, "b": DONE}, True),
        ({"a": DONE}, False),
        ({}, False),
    ],
)
async def test_a_batch_endpoint_that_is_lost_again_is_logged_again_if_it_was_of_use(
    learner: EndpointLearner,
    caplog: pytest.LogCaptureFixture,
    states: dict[str, State],
    is_logged_again: bool,
) -> None:
    learner.record_response()
    learner.record_no_batch_route(no_route(), ["a", "b"])
    await asyncio.sleep(100.0)
    learner.record_batch(2, states)
    learner.record_no_batch_route(no_route(), ["a", "b"])
    assert caplog.messages == [NO_BATCH] * (2 if is_logged_again else 1)


@pytest.mark.parametrize(
    ("states", "is_believed"), [({"a": DONE, "b": RUNNING}, False), ({"a": DONE}, True)]
)
async def test_an_answer_without_all_running_tasks_does_not_show_a_batch_endpoint(
    learner: EndpointLearner, states: dict[str, State], is_believed: bool
) -> None:
    assert not learner.record_no_batch_route(NotFoundError(404), ["a", "b"])
    learner.record_batch(2, states)
    assert learner.record_no_batch_route(NotFoundError(404), ["c", "d"]) == is_believed


async def test_batches_that_leave_out_tasks_are_logged_by_what_follows_from_it(
    poller: Poller, caplog: pytest.LogCaptureFixture
) -> None:
    poller.endpoints.record_response()
    for size in (50, 20):
        poller.scheduler.capabilities = poller.scheduler.capabilities.reduced_to(size, 0.0)
        poller.endpoints.log_lesson()
    poller.scheduler.capabilities = poller.scheduler.capabilities.without_batch(0.0)
    for _ in range(2):
        poller.endpoints.log_lesson()
    assert caplog.messages == [
        "batch responses leave out tasks; asking for 50 at a time now", USELESS,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("between", "is_wrong"),
    [(None, True), (RequestTimeout("slow"), True), (RelayError(503), False)],
)
async def test_a_minute_without_any_route_is_over_if_no_relay_has_spoken_in_between(
    learner: EndpointLearner,
    caplog: pytest.LogCaptureFixture,
    between: LumaError | None,
    is_wrong: bool,
) -> None:
    error = no_route(certain=False)
    for batch_endpoint in (True, False, True):
        assert not learner.leads_nowhere(error, batch_endpoint=batch_endpoint)
    assert caplog.messages == [
        "no endpoint has answered yet, and waits end after 60 s of this: a web page"
    ]
    await asyncio.sleep(60.0)
    if between:
        assert not learner.leads_nowhere(between, batch_endpoint=True)
    later = [learner.leads_nowhere(error, batch_endpoint=one) for one in (False, True)]
    assert any(later) == is_wrong
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("certain", "extra_path", "is_wrong"),
    [(True, "/v1", True), (True, "", False), (False, "/v1", False)],
)
async def test_a_base_url_is_wrong_at_once_only_if_the_relay_names_the_part_to_remove(
    learner: EndpointLearner, certain: bool, extra_path: str, is_wrong: bool
) -> None:
    error = no_route(certain=certain, extra_path=extra_path)
    assert not learner.leads_nowhere(error, batch_endpoint=True)
    assert learner.leads_nowhere(error, batch_endpoint=False) == is_wrong


async def test_a_response_shows_that_the_key_is_good(poller: Poller) -> None:
    assert not poller.key_rejections.count_rejection()
    poller.endpoints.record_response()
    assert not poller.key_rejections.count_rejection()
    assert poller.key_rejections.count_rejection()
