"""What the poller does about the error of a poll: when it sends what again, and which waits end."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TypeAlias

import pytest

from luma_async import (
    BadRequestError,
    DecodeError,
    Every,
    Limits,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    RelayError,
    RequestTimeout,
    WaitAborted,
)
from luma_async.errors import TooLongError
from luma_async.polling.poller import Poller
from luma_async.polling.wait import Notify, Wait
from luma_async.scheduling.changes import Grace
from luma_async.scheduling.pace import Pace
from luma_async.structs import State
from tests.fake_answers import FakeAnswer
from tests.in_memory_relays import ScriptedRelay

pytestmark = pytest.mark.virtual_time

Rule: TypeAlias = Callable[[tuple[str, ...]], LumaError | None]


class RuledRelay(ScriptedRelay):
    """Answers at once with the error that `rule` returns for the ids, or with running tasks."""

    def __init__(
        self,
        rule: Rule,
        pace: Pace = Every(5.0),
        max_batch: int = 100,
        missing_grace: float = 30.0,
    ) -> None:
        super().__init__(lambda _: State.PROCESSING, latency=0.0)
        self.rule = rule
        self.sent: list[tuple[float, tuple[str, ...]]] = []
        self.poller = Poller(
            self, pace, Limits(max_batch), Grace(missing_grace),
            request_timeout=30.0, roll=lambda: 0.5,
        )  # fmt: skip

    async def _ask(self, ids: Sequence[str]) -> FakeAnswer:
        self.sent.append((asyncio.get_running_loop().time(), tuple(ids)))
        if error := self.rule(tuple(ids)):
            raise error
        return await super()._ask(ids)

    async def polled(self, ids: Iterable[str], seconds: float) -> None:
        """Poll ids for some seconds."""
        one = Wait(self.poller, self, tuple(ids), None, Notify.NOTHING)
        await one.start()
        await asyncio.sleep(seconds)
        one.stop()
        await asyncio.sleep(0)

    def times(self, *ids: str) -> list[float]:
        """Return when requests about these ids were sent: no more and no fewer ids."""
        return [round(at, 3) for at, asked in self.sent if set(asked) == set(ids)]

    @property
    def sizes(self) -> list[int]:
        return [len(ids) for _, ids in self.sent]


def failing(error: Callable[[], LumaError], *ids: str) -> Rule:
    """Return a rule by which requests fail that contain one of these ids; without ids, all."""
    return lambda asked: error() if not ids or set(ids) & set(asked) else None


def unavailable() -> LumaError:
    return RelayError(503)


@pytest.mark.parametrize(
    ("error", "interval", "pauses"),
    [
        (unavailable, 5.0, [0.25, 0.5, 1.0, 2.0, 5.0, 8.0, 10.0, 10.0]),
        (unavailable, 60.0, [0.25, 0.5, 1.0, 2.0, 60.0, 60.0, 60.0]),
        (lambda: RateLimitedError(429), 5.0, [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]),
        (lambda: RequestTimeout("slow"), 5.0, [0.25, 0.5, 1.0, 2.0, 5.0, 8.0, 10.0]),
    ],
)
async def test_the_first_four_retries_come_early_and_later_ones_no_sooner_than_a_poll(
    error: Callable[[], LumaError], interval: float, pauses: list[float]
) -> None:
    """With full jitter these are halves of the delays; an outage of all requests fails them."""
    relay = RuledRelay(failing(error), Every(interval))
    await relay.polled("a", sum(pauses) + 0.1)
    assert relay.times("a") == [sum(pauses[:count]) for count in range(len(pauses) + 1)]


class GrowingPace(Every, frozen=True):
    """A pace of a user, by which a task is polled less often when it is older."""

    def rest(self, age: float) -> float:
        return 20.0 if age > 3.0 else 1.0


async def test_a_later_retry_comes_no_sooner_than_a_poll_of_a_task_of_this_age() -> None:
    relay = RuledRelay(failing(unavailable), GrowingPace(1.0))
    await relay.polled("a", 60.0)
    assert relay.times("a") == [0.0, 0.25, 0.75, 1.75, 3.75, 23.75, 43.75]


@pytest.mark.parametrize(
    ("error", "with_others", "alone"),
    [
        (lambda: RelayError(500), 9, 17),
        (lambda: RequestTimeout("slow"), 9, 17),
        (lambda: DecodeError("senseless"), 5, 9),
        (lambda: TooLongError("too long"), 2, 2),
        (lambda: RateLimitedError(429), None, None),
    ],
)
async def test_a_batch_that_fails_again_and_again_is_halved_sooner_if_others_are_answered(
    error: Callable[[], LumaError], with_others: int | None, alone: int | None
) -> None:
    """The numbers are those of requests for the whole batch; None: it is never halved."""
    for ids, whole in ("abcd", alone), ("abcdefgh", with_others):
        relay = RuledRelay(failing(error, "a"), max_batch=4)
        await relay.polled(ids, 250.0)
        sizes = [len(asked) for _, asked in relay.sent if "a" in asked]
        if whole is None:
            assert set(sizes) == {4}
        else:
            assert sizes[: whole + 1] == [4] * whole + [2], ids


async def test_in_an_outage_of_the_relay_no_batch_is_halved() -> None:
    relay = RuledRelay(failing(unavailable), max_batch=4)
    await relay.polled("abcdefgh", 1200.0)
    assert set(relay.sizes) == {4}
    assert len(relay.sent) > 100


async def test_a_batch_that_fails_while_the_relay_was_not_heard_for_30_s_is_not_halved() -> None:
    def rule(ids: tuple[str, ...]) -> LumaError | None:
        return None if "other" in ids and asyncio.get_running_loop().time() < 20 else unavailable()

    relay = RuledRelay(rule, max_batch=4)
    await relay.polled(["a", "b", "c", "d", "other"], 1200.0)
    assert {len(ids) for _, ids in relay.sent if "other" not in ids} == {4}


def not_allowed() -> LumaError:
    return PermissionDeniedError(403)


async def test_an_id_that_the_key_may_not_see_is_polled_alone_and_another_one_after_it() -> None:
    """The second request shows whether the key is good. Neither is asked about more than that."""
    relay = RuledRelay(failing(not_allowed, "bad"))
    await relay.polled(["bad", "good"], 20.0)
    assert relay.times("bad", "good") == [0.0]
    assert relay.times("bad") == [0.25, 0.5, 0.835, 5.835, 10.835, 15.835]
    assert relay.times("good") == [0.75, 1.085, 3.75, 6.085, 11.085, 16.085]


async def test_the_half_without_the_id_that_is_not_allowed_is_asked_right_after_the_other() -> None:
    relay = RuledRelay(failing(not_allowed, "bad"))
    await relay.polled(["bad", *"abcdefg"], 2.0)
    assert relay.sizes[:3] == [8, 4, 4]
    assert [round(at, 2) for at, _ in relay.sent[:3]] == [0.0, 0.25, 0.5]
    assert not {"bad"} & set(relay.sent[2][1])
    assert len(relay.times("bad")) == 1


async def test_a_key_that_is_rejected_for_other_ids_too_aborts_the_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    relay = RuledRelay(failing(not_allowed))
    one = Wait(relay.poller, relay, ["a", "b", "c", "d"], None, Notify.NOTHING)
    await one.start()
    with pytest.raises(WaitAborted):
        await one.wait_for_news()
    assert relay.sizes == [4, 2, 2], "the second half has no id of the request before it"
    assert relay.poller.snapshot().quiet_for == 0.25
    assert caplog.messages == [
        "a request failed: status 403; "
        "all waits end with WaitAborted; check the API key and the account"
    ]


def rejected(*, in_json: bool = True) -> LumaError:
    error = BadRequestError(400)
    error.in_json = in_json
    return error


@pytest.mark.parametrize(
    ("in_json", "pauses"),
    [(True, [5.0] * 8), (False, [5.0, 5.0, 5.0, 5.0, 5.0, 8.0, 10.0, 10.0])],
)
async def test_rejections_by_the_relay_hold_back_for_a_moment_and_those_of_a_proxy_for_longer(
    in_json: bool, pauses: list[float]
) -> None:
    relay = RuledRelay(failing(lambda: rejected(in_json=in_json)))
    await relay.polled("a", sum(pauses) + 0.1)
    assert relay.times("a") == [sum(pauses[:count]) for count in range(len(pauses) + 1)]


@pytest.mark.parametrize(("errors", "quiet"), [([rejected], 0.25), ([unavailable, rejected], 0.5)])
async def test_a_rejection_after_another_failure_counts_as_a_further_failure(
    errors: list[Callable[[], LumaError]], quiet: float
) -> None:
    script = iter(errors)
    relay = RuledRelay(lambda _: next(script)())
    await relay.polled("a", 0.3 if len(errors) > 1 else 0.1)
    last, _ = relay.sent[-1]
    quiet_until = asyncio.get_running_loop().time() + relay.poller.snapshot().quiet_for
    assert quiet_until == pytest.approx(last + quiet)


async def test_an_id_that_the_key_may_no_longer_see_is_asked_again_before_others_were() -> None:
    def rule(ids: tuple[str, ...]) -> LumaError | None:
        return not_allowed() if "bad" in ids and len(relay.sent) > 1 else None

    relay = RuledRelay(rule)
    await relay.polled(["bad", "good"], 8.0)
    begun = relay.times("bad", "good")[1]
    assert relay.times("bad")[:2] == [begun + 0.25, begun + 0.5]


@pytest.mark.parametrize(
    ("ids", "certain", "sizes", "times"),
    [
        ("ab", False, [2, 1, 1], [0.0, 0.25]),
        ("abcd", False, [4, 2, 2, 1, 1, 1, 1], [0.0, 0.25, 0.5, 0.75]),
        ("abcd", True, [4, 1, 1, 1, 1], [0.0, 0.25]),
    ],
)
async def test_a_batch_without_a_route_is_halved_until_it_is_certain_that_there_is_none(
    ids: str, certain: bool, sizes: list[int], times: list[float]
) -> None:
    def rule(asked: tuple[str, ...]) -> LumaError | None:
        no_route = NoSuchRouteError("a web page") if certain else NotFoundError(404)
        return no_route if len(asked) > 1 else None

    relay = RuledRelay(rule)
    await relay.polled(ids, 2.0)
    assert relay.sizes == sizes
    assert [round(at, 2) for at, _ in relay.sent[: len(times)]] == times


@pytest.mark.parametrize(("status", "batches", "size"), [(413, 1, 4), (400, 1, 100), (400, 2, 4)])
async def test_a_413_shows_that_a_batch_is_too_large_and_another_rejection_if_it_happens_twice(
    status: int, batches: int, size: int
) -> None:
    errors = [BadRequestError(status)] * batches

    def rule(ids: tuple[str, ...]) -> LumaError | None:
        return errors.pop() if len(ids) == 8 and errors else None

    relay = RuledRelay(rule)
    await relay.polled("abcdefgh", 30.0)
    assert relay.poller.batch_size == size


async def test_an_unknown_task_is_a_response_of_the_relay() -> None:
    errors = iter([unavailable(), NotFoundError(404, "task_not_exist")])
    relay = RuledRelay(lambda _: next(errors))
    await relay.polled("a", 1.0)
    assert relay.poller.health.answered_at == relay.times("a")[-1] == 0.25
    assert relay.poller.health.last_error is None


async def test_a_quarantined_id_that_fails_holds_back_all_requests_for_a_moment() -> None:
    """Others are answered, so it is no outage, and no cause of a cool-down."""
    causes = list[LumaError | None]()

    def rule(ids: tuple[str, ...]) -> LumaError | None:
        causes.append(relay.poller.throttle.cooldown_cause)
        if "bad" not in ids or len(causes) == 1:
            return None
        return BadRequestError(400) if len(ids) > 1 else unavailable()

    relay = RuledRelay(rule)
    await relay.polled(["bad", "good"], 60.0)
    assert len(relay.times("bad")) > 3
    assert set(causes) == {None}
    assert relay.poller.throttle.cooldown_until >= relay.times("bad")[-1] + 0.25


async def test_a_request_that_times_out_while_others_are_answered_is_no_outage() -> None:
    """It holds back all requests for a moment only, and is not the cause of a cool-down."""
    relay = RuledRelay(failing(lambda: RequestTimeout("slow"), "a"), max_batch=1)
    await relay.polled("ab", 60.0)
    assert relay.poller.throttle.cooldown_until >= relay.times("a")[-1] + 0.25
    assert len(relay.times("b")) > 10


async def test_an_answer_at_the_moment_of_a_send_does_not_count_as_one_since_then() -> None:
    class Hanging(RuledRelay):
        async def _ask(self, ids: Sequence[str]) -> FakeAnswer:
            self.sent.append((asyncio.get_running_loop().time(), tuple(ids)))
            await asyncio.sleep(1.0 if len(self.sent) == 1 else 100.0)
            return FakeAnswer(dict.fromkeys(ids, State.PROCESSING))

    relay = Hanging(lambda _: None, max_batch=2)
    first = Wait(relay.poller, relay, ["a", "b"], None, Notify.NOTHING)
    await first.start()
    await asyncio.sleep(0.5)
    late = Wait(relay.poller, relay, ["late"], None, Notify.NOTHING)
    await late.start()
    await asyncio.sleep(10.6)
    (sent_at, ids), *_ = relay.sent[1:]
    assert "late" in ids
    assert sent_at == relay.poller.health.answered_at == 1.0
    assert isinstance(relay.poller.throttle.cooldown_cause, RequestTimeout), "it may be an outage"
    first.stop()
    late.stop()


@pytest.mark.parametrize("missing_grace", [0.0, 30.0])
async def test_an_id_that_the_key_may_not_see_is_polled_at_its_pace_and_logged_once(
    missing_grace: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Also after the grace period: other ids of that wait may run for hours."""
    relay = RuledRelay(failing(not_allowed, "bad"), missing_grace=missing_grace)
    await relay.polled(["bad", "good"], 600.0)
    for name in ("bad", "good"):
        assert len(relay.times(name)) in range(115, 131), "each five seconds"
    assert caplog.messages == ["bad: status 403; other ids are answered"]


@pytest.mark.parametrize("interval", [5.0, 300.0])
async def test_an_id_that_the_key_may_not_see_is_missing_in_time_once_the_relay_says_so(
    interval: float,
) -> None:
    def rule(ids: tuple[str, ...]) -> LumaError | None:
        if "bad" not in ids:
            return None
        is_gone = asyncio.get_running_loop().time() > 100.0 and len(ids) == 1
        return NotFoundError(404, "task_not_exist") if is_gone else not_allowed()

    relay = RuledRelay(rule, Every(interval))
    await relay.polled(["bad", "good"], 2000.0)
    first = next(at for at in relay.times("bad") if at > 100.0)
    assert relay.times("bad")[-1] <= first + 35.0, "half a minute of such responses is a proof"


async def test_a_request_that_times_out_while_others_are_answered_pauses_them_for_a_moment() -> (
    None
):
    class Slow(RuledRelay):
        async def _ask(self, ids: Sequence[str]) -> FakeAnswer:
            if "slow" in ids:
                await asyncio.sleep(2.0)
                raise RequestTimeout("slow")
            return await super()._ask(ids)

    relay = Slow(lambda _: None, Every(1.0), max_batch=1)
    await relay.polled(["slow", "good"], 2.05)
    assert relay.poller.snapshot().errors == 1
    assert relay.poller.throttle.cooldown_cause is None
    assert relay.poller.throttle.cooldown_until == pytest.approx(2.25, abs=0.11)


async def test_an_id_that_no_endpoint_answers_is_retried_with_the_usual_pauses() -> None:
    class Failing(RuledRelay):
        async def get_many(self, ids: Sequence[str]) -> FakeAnswer:
            self.batches += 1
            self.sent.append((asyncio.get_running_loop().time(), tuple(ids)))
            error = NoSuchRouteError("a web page")
            error.certain = False
            raise error

        batches = 0

    relay = Failing(failing(unavailable))
    await relay.polled("a", 200.0)
    pauses = [later - at for at, later in pairwise(relay.times("a"))]
    assert pauses == [0.25, 0.5, 1.0, 2.0, 5.0, 8.0, *[10.0] * 18]
    assert relay.batches > 1, "the batch endpoint was tried, too"
