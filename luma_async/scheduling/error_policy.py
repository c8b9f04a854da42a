"""What is done about an error, of a poll or of a direct call."""

from enum import StrEnum
from math import inf

from luma_async.errors import (
    APIError,
    AuthenticationError,
    DecodeError,
    LumaError,
    NoSuchRouteError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    RateLimitedError,
    SessionClosed,
    SetupError,
    TooLongError,
)

_NO_ROUTE = (404, 405, 501)
_REJECTED = (400, 404, 405, 410, 413, 414, 422, 431, 501)
MAX_TOO_LONG = 1
MAX_UNDECODABLE = 4
MAX_FAILED_ATTEMPTS = 8


class Action(StrEnum):
    """What is done about an error."""

    RETRY = "retry later"
    NOT_FOUND = "the relay says that the task does not exist"
    REJECTED = "the relay rejects the request about one id, for whatever reason"
    BISECT = "retry in halves"
    NO_BATCH_ENDPOINT = "poll one id per request from now on"
    NO_SINGLE_ENDPOINT = "poll by the batch endpoint from now on"
    CHECK_KEY = "the key is rejected, or may not see one of the ids"
    ABORT = "abort all waits: no request can be sent"


ABORTING = (Action.CHECK_KEY, Action.ABORT)


def decide(error: LumaError, *, many: bool) -> Action:
    """Return what is done about an error; `many`: the request asked about several ids."""
    if isinstance(error, SessionClosed | SetupError):
        return Action.ABORT
    if isinstance(error, AuthenticationError | QuotaError | PermissionDeniedError):
        return Action.CHECK_KEY
    about_task = isinstance(error, NotFoundError) and error.about_task
    status = error.status if isinstance(error, APIError) else None
    if not many:
        if about_task:
            return Action.NOT_FOUND
        if isinstance(error, NoSuchRouteError):
            return Action.NO_SINGLE_ENDPOINT
        return Action.REJECTED if status in _REJECTED else Action.RETRY
    if not about_task and (isinstance(error, NoSuchRouteError) or status in _NO_ROUTE):
        return Action.NO_BATCH_ENDPOINT
    if about_task or status in _REJECTED:
        return Action.BISECT
    return Action.RETRY


def max_attempts(error: LumaError) -> float:
    """Return how many requests about the same ids may fail, while others are answered.

    After that the ids are taken for the cause, and the batch is sent in parts.
    """
    if isinstance(error, RateLimitedError):
        return inf
    if isinstance(error, TooLongError):
        return MAX_TOO_LONG
    return MAX_UNDECODABLE if isinstance(error, DecodeError) else MAX_FAILED_ATTEMPTS
