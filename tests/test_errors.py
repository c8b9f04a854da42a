"""The tree of exceptions: base classes, pickling, attributes and messages."""

import pickle
from collections.abc import Callable
from copy import copy, deepcopy
from datetime import UTC, datetime

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
    SubmitUnknown,
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
    SubmitUnknown: LumaError,
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
    """Return an error of this class with every attribute set."""
    if issubclass(kind, APIError):
        return api_error(kind)
    if issubclass(kind, WaitIncomplete):
        return wait(kind)
    if issubclass(kind, SubmitUnknown):
        return kind("it went wrong", user_prompt="a cat", sent_at=datetime.now(UTC), extends="a")
    return GenerationFailed(FAILED) if kind is GenerationFailed else kind("it went wrong")


EXAMPLES = [example(kind) for kind in TREE]


def pickled(error: LumaError) -> LumaError:
    other = pickle.loads(pickle.dumps(error))
    assert isinstance(other, LumaError)
    return other


COPIERS: list[Callable[[LumaError], LumaError]] = [pickled, copy, deepcopy]
each_kind = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
each_copier = pytest.mark.parametrize("copier", COPIERS, ids=["pickle", "copy", "deepcopy"])


@pytest.mark.parametrize(
    ("kind", "parent"), TREE.items(), ids=lambda kind: getattr(kind, "__name__", "")
)
def test_each_error_has_its_base_class(kind: type[LumaError], parent: type[Exception]) -> None:
    assert kind.__bases__[0] is parent


def test_all_errors_are_in_the_tree_and_public() -> None:
    defined = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert defined == set(TREE)
    assert {kind.__name__ for kind in TREE} <= set(luma_async.__all__)


@pytest.mark.parametrize("kind", [WaitTimeout, RequestTimeout])
def test_timeouts_are_timeout_errors(kind: type[LumaError]) -> None:
    assert issubclass(kind, TimeoutError)


def test_no_other_error_is_a_timeout_error() -> None:
    late = {kind for kind in TREE if issubclass(kind, OSError)}
    assert late == {WaitTimeout, RequestTimeout}


def test_a_closed_session_is_a_runtime_error() -> None:
    assert issubclass(SessionClosed, RuntimeError)


@each_copier
@each_kind
def test_each_error_is_copied_with_all_its_attributes(
    error: LumaError, copier: Callable[[LumaError], LumaError]
) -> None:
    other = copier(error)
    assert type(other) is type(error)
    assert other is not error
    assert str(other) == str(error)
    assert str(error)
    assert other.args == error.args
    assert vars(other) == vars(error)


@each_copier
@pytest.mark.parametrize("kind", API_ERRORS)
def test_an_api_error_is_copied_with_its_attributes(
    kind: type[APIError], copier: Callable[[LumaError], LumaError]
) -> None:
    other = copier(api_error(kind))
    assert isinstance(other, kind)
    assert (other.status, other.code, other.message) == (429, "busy", "come back later")
    assert (other.request_id, other.retry_after) == ("req-1", 2.5)


@each_copier
@pytest.mark.parametrize("kind", WAITS)
def test_an_incomplete_wait_is_copied_with_its_ids(
    kind: type[WaitIncomplete], copier: Callable[[LumaError], LumaError]
) -> None:
    other = copier(wait(kind))
    assert isinstance(other, kind)
    assert (other.done, other.pending) == ({"a": DONE}, {"b": OPEN, "d": None})
    assert other.missing == ("z", "y")


def test_text_from_a_relay_becomes_one_printable_line() -> None:
    reason = "no\n\x1b[2Jway\u2028\x85" + 300 * "!"
    error = GenerationFailed(Generation(id="c\n", state=State.FAILED, failure_reason=reason))
    assert str(error).startswith("c failed: no \ufffd[2Jway !!!")
    assert len(str(error)) < 250
    assert error.generation.failure_reason == reason


@each_copier
def test_a_failed_generation_is_copied(copier: Callable[[LumaError], LumaError]) -> None:
    other = copier(GenerationFailed(FAILED))
    assert isinstance(other, GenerationFailed)
    assert other.generation == FAILED


@each_copier
@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_a_luma_error_as_cause_is_copied(
    kind: type[LumaError], copier: Callable[[LumaError], LumaError]
) -> None:
    chained = example(kind)
    chained.__cause__ = api_error(AuthenticationError)
    cause = copier(chained).__cause__
    assert isinstance(cause, AuthenticationError)
    assert cause.request_id == "req-1"


@each_copier
def test_any_other_cause_is_not_copied(copier: Callable[[LumaError], LumaError]) -> None:
    """It may have an attribute that cannot be pickled, such as an open connection."""
    error = TransportError("reset")
    error.__cause__ = OSError(104, "reset")
    assert copier(error).__cause__ is None


def test_a_copy_does_not_share_its_attributes() -> None:
    error = wait(WaitTimeout)
    copy(error).done = {}
    assert error.done == {"a": DONE}


def test_an_aborted_wait_has_its_cause() -> None:
    error, cause = wait(WaitAborted), api_error(AuthenticationError)
    error.__cause__ = cause
    assert isinstance(error, WaitAborted)
    assert error.cause is cause
    assert WaitAborted().cause is None


@pytest.mark.parametrize("kind", API_ERRORS)
def test_an_api_error_has_four_positional_arguments(kind: type[APIError]) -> None:
    error = kind(400, "bad", "no such thing", "req-7")
    assert (error.status, error.code, error.message) == (400, "bad", "no such thing")
    assert (error.request_id, error.retry_after) == ("req-7", None)
    assert str(error) == "status 400: bad: no such thing (request id: req-7)"


def test_the_message_of_an_api_error_contains_only_what_is_set() -> None:
    assert str(APIError(500)) == "status 500"
    assert str(APIError(500, message="upstream closed")) == "status 500: upstream closed"
    assert str(APIError(404, "task_not_exist", "task_not_exist")) == "status 404: task_not_exist"


def test_an_incomplete_wait_copies_its_arguments() -> None:
    done, pending, missing = {"a": DONE}, {"b": None}, ["z"]
    error = WaitIncomplete(done=done, pending=pending, missing=missing)
    done.clear()
    pending.clear()
    missing.clear()
    assert (error.done, error.pending, error.missing) == ({"a": DONE}, {"b": None}, ("z",))


@pytest.mark.parametrize("kind", WAITS)
def test_an_incomplete_wait_keeps_the_order_of_the_ids(kind: type[WaitIncomplete]) -> None:
    ids = ["q", "a", "z", "m"]
    error = kind(done=dict.fromkeys(ids, DONE), pending=dict.fromkeys(ids), missing=ids)
    assert type(error.done) is dict
    assert type(error.pending) is dict
    assert type(error.missing) is tuple
    assert list(error.done) == list(error.pending) == list(error.missing) == ids


@pytest.mark.parametrize("kind", WAITS)
def test_an_incomplete_wait_without_arguments_is_empty(kind: type[WaitIncomplete]) -> None:
    error = kind()
    assert (error.done, error.pending, error.missing) == ({}, {}, ())


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (WaitIncomplete, "wait again for error.pending"),
        (WaitTimeout, "wait again for error.pending"),
        (WaitAborted, "fix the cause, then wait again for error.pending"),
        (GenerationsMissing, "check the ids and the account of the API key: z, y"),
    ],
)
def test_the_message_of_an_incomplete_wait_has_counts_and_a_remedy(
    kind: type[WaitIncomplete], remedy: str
) -> None:
    assert str(wait(kind)) == f"gone: 1 done, 2 pending, 2 missing; {remedy}"


def test_an_id_with_a_line_end_is_quoted_where_it_is_missing() -> None:
    error = GenerationsMissing(missing=["a\n", "b"])
    assert str(error).endswith(r"the account of the API key: 'a\n', b")


def test_three_missing_ids_are_in_the_message_at_most() -> None:
    error = GenerationsMissing(missing=["a", "b", "c", "d", "e"])
    assert str(error).endswith("the account of the API key: a, b, c and 2 more")


def test_a_failed_generation_has_its_reason() -> None:
    assert str(GenerationFailed(FAILED)) == "c failed: moderated"
    without_reason = Generation(id="c", state=State.FAILED)
    assert str(GenerationFailed(without_reason)) == "c failed: no reason given"
