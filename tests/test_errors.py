"""The tree of what goes wrong: who is whose child, what survives a pickle, what a message says."""

import pickle
from collections.abc import Callable
from copy import copy, deepcopy

import pytest

import luma_async
from luma_async import (
    APIError,
    AuthenticationError,
    BadRequestError,
    DecodeError,
    DownloadError,
    GaveUp,
    Generation,
    GenerationFailed,
    GenerationsMissing,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    QueueError,
    QuotaError,
    RateLimitedError,
    RelayError,
    RequestTimeout,
    SessionClosed,
    SetupError,
    State,
    TooLongError,
    TransportError,
    WaitAborted,
    WaitIncomplete,
    WaitTimeout,
    errors,
)

TREE: dict[type[LumaError], type[Exception]] = {
    LumaError: Exception,
    APIError: LumaError,
    AuthenticationError: APIError,
    QuotaError: APIError,
    PermissionDeniedError: APIError,
    NotFoundError: APIError,
    BadRequestError: APIError,
    RateLimitedError: APIError,
    RelayError: APIError,
    TransportError: LumaError,
    RequestTimeout: TransportError,
    SetupError: TransportError,
    DecodeError: LumaError,
    TooLongError: DecodeError,
    NoSuchRouteError: DecodeError,
    WaitIncomplete: LumaError,
    WaitTimeout: WaitIncomplete,
    WaitAborted: WaitIncomplete,
    GaveUp: WaitAborted,
    GenerationsMissing: WaitIncomplete,
    GenerationFailed: LumaError,
    DownloadError: LumaError,
    QueueError: LumaError,
    SessionClosed: LumaError,
}
DONE = Generation(id="a", state=State.COMPLETED, result_url="https://cdn.example/a.mp4")
OPEN = Generation(id="b", state=State.PROCESSING)
FAILED = Generation(id="c", state=State.FAILED, failure_reason="moderated")
API_ERRORS = [kind for kind in TREE if issubclass(kind, APIError)]
WAITS = [kind for kind in TREE if issubclass(kind, WaitIncomplete)]


def api_error(kind: type[APIError]) -> APIError:
    return kind(429, "busy", "come back later", "req-1", retry_after=2.5)


def wait(kind: type[WaitIncomplete]) -> WaitIncomplete:
    return kind("gone", done={"a": DONE}, pending={"b": OPEN, "d": None}, missing=["z", "y"])


def example(kind: type[LumaError]) -> LumaError:
    """Return an error of this kind with every attribute told."""
    if issubclass(kind, APIError):
        return api_error(kind)
    if issubclass(kind, WaitIncomplete):
        return wait(kind)
    return GenerationFailed(FAILED) if kind is GenerationFailed else kind("it went wrong")


EXAMPLES = [example(kind) for kind in TREE]


def pickled(error: LumaError) -> LumaError:
    other = pickle.loads(pickle.dumps(error))
    assert isinstance(other, LumaError)
    return other


REMAKES: list[Callable[[LumaError], LumaError]] = [pickled, copy, deepcopy]
each_kind = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
each_remake = pytest.mark.parametrize("remake", REMAKES, ids=["pickle", "copy", "deepcopy"])


@pytest.mark.parametrize(
    ("kind", "parent"), TREE.items(), ids=lambda kind: getattr(kind, "__name__", "")
)
def test_each_error_has_the_parent_of_the_contract(
    kind: type[LumaError], parent: type[Exception]
) -> None:
    assert kind.__bases__[0] is parent


def test_the_tree_has_no_other_error_and_each_is_public() -> None:
    defined = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert defined == set(TREE)
    assert {kind.__name__ for kind in TREE} <= set(luma_async.__all__)


@pytest.mark.parametrize("kind", [WaitTimeout, RequestTimeout])
def test_what_took_too_long_is_a_timeout_error(kind: type[LumaError]) -> None:
    assert issubclass(kind, TimeoutError)


def test_no_other_error_is_a_timeout_error() -> None:
    late = {kind for kind in TREE if issubclass(kind, OSError)}
    assert late == {WaitTimeout, RequestTimeout}


def test_a_closed_session_is_a_runtime_error() -> None:
    assert issubclass(SessionClosed, RuntimeError)


@each_remake
@each_kind
def test_each_error_survives_with_all_that_it_carries(
    error: LumaError, remake: Callable[[LumaError], LumaError]
) -> None:
    other = remake(error)
    assert type(other) is type(error)
    assert other is not error
    assert str(other) == str(error)
    assert str(error)
    assert other.args == error.args
    assert vars(other) == vars(error)


@each_remake
@pytest.mark.parametrize("kind", API_ERRORS)
def test_an_api_error_keeps_its_words(
    kind: type[APIError], remake: Callable[[LumaError], LumaError]
) -> None:
    other = remake(api_error(kind))
    assert isinstance(other, kind)
    assert (other.status, other.code, other.message) == (429, "busy", "come back later")
    assert (other.request_id, other.retry_after) == ("req-1", 2.5)


@each_remake
@pytest.mark.parametrize("kind", WAITS)
def test_an_unfinished_wait_keeps_what_was_asked(
    kind: type[WaitIncomplete], remake: Callable[[LumaError], LumaError]
) -> None:
    other = remake(wait(kind))
    assert isinstance(other, kind)
    assert (other.done, other.pending) == ({"a": DONE}, {"b": OPEN, "d": None})
    assert other.missing == ("z", "y")


def test_what_a_relay_says_is_told_in_one_line_that_no_terminal_obeys() -> None:
    said = "no\n\x1b[2Jway\u2028\x85" + 300 * "!"
    error = GenerationFailed(Generation(id="c\n", state=State.FAILED, failure_reason=said))
    assert str(error).startswith("c failed: no \ufffd[2Jway !!!")
    assert len(str(error)) < 250
    assert error.generation.failure_reason == said


@each_remake
def test_a_failed_generation_is_kept_whole(remake: Callable[[LumaError], LumaError]) -> None:
    other = remake(GenerationFailed(FAILED))
    assert isinstance(other, GenerationFailed)
    assert other.generation == FAILED


@each_remake
@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_a_cause_of_this_tree_is_kept(
    kind: type[LumaError], remake: Callable[[LumaError], LumaError]
) -> None:
    chained = example(kind)
    chained.__cause__ = api_error(AuthenticationError)
    cause = remake(chained).__cause__
    assert isinstance(cause, AuthenticationError)
    assert cause.request_id == "req-1"


@each_remake
def test_a_foreign_cause_is_left_behind(remake: Callable[[LumaError], LumaError]) -> None:
    """It may hold what cannot be pickled, such as an open connection."""
    error = TransportError("reset")
    error.__cause__ = OSError(104, "reset")
    assert remake(error).__cause__ is None


def test_a_copy_does_not_share_its_attributes() -> None:
    error = wait(WaitTimeout)
    copy(error).done = {}
    assert error.done == {"a": DONE}


def test_an_aborted_wait_names_its_cause() -> None:
    error, cause = wait(WaitAborted), api_error(AuthenticationError)
    error.__cause__ = cause
    assert isinstance(error, WaitAborted)
    assert error.cause is cause
    assert WaitAborted().cause is None


@pytest.mark.parametrize("kind", API_ERRORS)
def test_the_four_words_of_an_api_error_have_an_order(kind: type[APIError]) -> None:
    error = kind(400, "bad", "no such thing", "req-7")
    assert (error.status, error.code, error.message) == (400, "bad", "no such thing")
    assert (error.request_id, error.retry_after) == ("req-7", None)
    assert str(error) == "status 400: bad: no such thing (request id: req-7)"


def test_an_api_error_says_only_what_it_knows() -> None:
    assert str(APIError(500)) == "status 500"
    assert str(APIError(500, message="upstream closed")) == "status 500: upstream closed"
    assert str(APIError(404, "task_not_exist", "task_not_exist")) == "status 404: task_not_exist"


def test_an_unfinished_wait_copies_what_it_is_given() -> None:
    done, pending, missing = {"a": DONE}, {"b": None}, ["z"]
    error = WaitIncomplete(done=done, pending=pending, missing=missing)
    done.clear()
    pending.clear()
    missing.clear()
    assert (error.done, error.pending, error.missing) == ({"a": DONE}, {"b": None}, ("z",))


@pytest.mark.parametrize("kind", WAITS)
def test_an_unfinished_wait_keeps_the_order_given(kind: type[WaitIncomplete]) -> None:
    ids = ["q", "a", "z", "m"]
    error = kind(done=dict.fromkeys(ids, DONE), pending=dict.fromkeys(ids), missing=ids)
    assert type(error.done) is dict
    assert type(error.pending) is dict
    assert type(error.missing) is tuple
    assert list(error.done) == list(error.pending) == list(error.missing) == ids


@pytest.mark.parametrize("kind", WAITS)
def test_a_wait_without_anything_has_empty_lists(kind: type[WaitIncomplete]) -> None:
    error = kind()
    assert (error.done, error.pending, error.missing) == ({}, {}, ())


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (WaitIncomplete, "wait again for error.pending"),
        (WaitTimeout, "wait again for error.pending"),
        (WaitAborted, "mend the cause, then wait again for error.pending"),
        (GenerationsMissing, "check the ids and the account of the key: z, y"),
    ],
)
def test_an_unfinished_wait_counts_and_ends_with_the_remedy(
    kind: type[WaitIncomplete], remedy: str
) -> None:
    assert str(wait(kind)) == f"gone: 1 done, 2 pending, 2 missing; {remedy}"


def test_many_missing_ids_are_named_in_part() -> None:
    error = GenerationsMissing(missing=["a", "b", "c", "d", "e"])
    assert str(error).endswith("the account of the key: a, b, c and 2 more")


def test_a_failed_generation_says_why() -> None:
    assert str(GenerationFailed(FAILED)) == "c failed: moderated"
    silent = Generation(id="c", state=State.FAILED)
    assert str(GenerationFailed(silent)) == "c failed: no reason given"
